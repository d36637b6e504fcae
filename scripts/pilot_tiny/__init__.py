"""How pilot-tiny was made: drawn scenes in, a Stable Diffusion 1.5 in miniature and a matching CLIP out.

`python -m scripts.pilot_tiny STAGE` runs one stage; nothing here is needed to train a LoRA on the result.
"""
