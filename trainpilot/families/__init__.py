"""Model families, one folder each: card.toml (data), shapes.json (module shapes), names.py (exported names, without
torch) and adapter.py (the torch code). Found by scanning; adding a family is adding a folder."""
