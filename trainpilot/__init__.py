"""TrainPilot: configurations in, LoRAs out. Knows nothing of the panel."""

__version__ = "0.1.0"
