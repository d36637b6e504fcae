"""The family sd15: card, module shapes, exported names, adapter."""
