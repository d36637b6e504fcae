"""The torch room: everything that computes. `trainer.py` is the run from top to bottom."""
