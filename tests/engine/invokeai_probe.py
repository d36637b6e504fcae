"""Runs inside InvokeAI's own environment: asks its importer and its loader about LoRA files, prints JSON.

    python invokeai_probe.py FILE...

Knows nothing of this project. For every file: what InvokeAI identified, for every layer it loaded the rank and the
scale, and for every tenth layer two numbers of its weight change (all of them would be 12 billion weights for FLUX):
its norm and its sum.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from invokeai.backend.model_manager.configs.factory import ModelConfigFactory
from invokeai.backend.model_manager.load.model_loaders.lora import LoRALoader

EVERY = 10


def probe(path: Path) -> dict[str, object]:
    found = ModelConfigFactory.from_model_on_disk(path, allow_unknown=False).config
    loader = LoRALoader.__new__(LoRALoader)
    loader._app_config = SimpleNamespace(models_path=path.parent)
    loader._logger = logging.getLogger("probe")
    loader._torch_dtype = torch.float32
    loader._get_model_path(found)
    found.path = str(path)
    layers: dict[str, dict[str, object]] = {}
    for index, (name, layer) in enumerate(loader._load_model(found).layers.items()):
        layers[name] = {"kind": type(layer).__name__, "rank": layer._rank(), "scale": layer.scale()}
        if index % EVERY == 0:
            change = layer.get_weight(torch.empty(0)) * layer.scale()
            exact = change.double()
            layers[name] |= {"norm": float(exact.norm()), "sum": float(exact.sum())}
    kind = {"class": type(found).__name__, "base": found.base.value, "type": found.type.value}
    return {**kind, "format": found.format.value, "layers": layers}


def main() -> None:
    results = {Path(name).stem: probe(Path(name)) for name in sys.argv[1:]}
    versions = {name: importlib.metadata.version(name) for name in ("InvokeAI", "torch", "diffusers", "transformers")}
    print(json.dumps({"versions": versions, "files": results}))


if __name__ == "__main__":
    main()
