"""Makes `shapes.json` of every family from its full-size model on the meta device.

    python -m trainpilot.families.shapes

Run it after changing `configs.json` or moving to another diffusers or transformers; a test compares the result.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from trainpilot.families.construction import FOLDER, build_on_meta

DENOISERS = ("unet", "transformer")


def describe(configs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """{"modules": component -> module -> weight shape, "parameters": component -> count}; linear and conv weights."""
    modules: dict[str, dict[str, list[int]]] = {}
    parameters: dict[str, int] = {}
    for name, component in configs.items():
        if name.startswith(("tokenizer", "scheduler")):
            continue
        model = build_on_meta(component)
        label = "denoiser" if name in DENOISERS else name
        parameters[label] = sum(p.numel() for p in model.parameters())
        if label != "vae":
            modules[label] = {
                path: list(module.weight.shape)
                for path, module in model.named_modules()
                if isinstance(module, (nn.Linear, nn.Conv2d))
            }
    return {"modules": modules, "parameters": parameters}


def written(description: dict[str, Any]) -> str:
    """One module a line: readable, and small in a diff."""
    lines = ['{"parameters": ' + json.dumps(description["parameters"]) + ', "modules": {']
    components = description["modules"].items()
    for number, (component, modules) in enumerate(components):
        lines.append(f"{json.dumps(component)}: {{")
        lines.append(",\n".join(f"{json.dumps(name)}: {json.dumps(shape)}" for name, shape in modules.items()))
        lines.append("}" if number == len(components) - 1 else "},")
    return "\n".join([*lines, "}}"]) + "\n"


def main() -> None:
    """Write every family's shapes beside its configurations."""
    for path in sorted(FOLDER.glob("*/configs*.json")):
        description = describe(json.loads(path.read_text(encoding="utf-8")))
        target = Path(str(path).replace("configs", "shapes"))
        target.write_text(written(description), encoding="utf-8")
        print(f"{target.relative_to(FOLDER)}: {description['parameters']}")


if __name__ == "__main__":
    main()
