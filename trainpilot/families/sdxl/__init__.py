"""The family sdxl: card, module shapes, exported names, adapter."""
