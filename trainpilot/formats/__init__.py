"""LoRA files: two namings of the same weights, their metadata and hashes, conversion and proof that they load."""
