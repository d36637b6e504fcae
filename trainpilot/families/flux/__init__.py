"""The family flux: card, module shapes, exported names, adapter."""
