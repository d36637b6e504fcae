"""The README.md of a published LoRA: front matter that the Hub reads, and a page that people read. No torch."""

from __future__ import annotations

from typing import Any

import yaml

from trainpilot.formats.account import length, lora_line, rates, what
from trainpilot.formats.release import Release

_TAGS = {"sd15": "stable-diffusion", "sdxl": "stable-diffusion-xl", "flux": "flux"}
STRENGTH = 0.8  # what the guides begin with


def model_card(release: Release, repo: str = "") -> str:
    """The card. repo: owner/name it will have on the Hub; without one the snippet names the file in this folder."""
    front = yaml.safe_dump(front_matter(release), sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{front}---\n\n{_page(release, repo)}"


def front_matter(release: Release) -> dict[str, Any]:
    """What the Hub reads: licence, base, tags, trigger and gallery."""
    about, licence = release.about, release.licence
    found: dict[str, Any] = {}
    if licence is not None:
        found["license"] = licence.id
        if licence.id == "other":
            slug = "".join(c if c.isalnum() or c == "." else "-" for c in licence.name.lower())
            found["license_name"] = "-".join(part for part in slug.split("-") if part)
            found["license_link"] = licence.link or "LICENSE"
            if not licence.link:
                del found["license_link"]
    if release.base_repo:
        found |= {"base_model": release.base_repo, "base_model_relation": "adapter"}
    found |= {
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": ["text-to-image", "diffusers", "lora", _TAGS.get(about.family, about.family), "template:sd-lora"],
    }
    if release.trigger:
        found["instance_prompt"] = release.trigger
    if release.samples:
        found["widget"] = [
            {
                "text": sample.prompt or release.trigger or release.title,
                "output": {"url": f"samples/{sample.path.name}"},
            }
            for sample in release.samples
        ]
    return found


def _page(release: Release, repo: str) -> str:
    parts = [f"# {_line(release.title)}\n"]
    if release.description:
        parts.append(release.description.strip() + "\n")
    if release.samples:
        parts.append("\n".join(_picture(s.path.name, s.prompt, s.seed) for s in release.samples) + "\n")
    parts.append(f"{what(release.about)}.\n")
    parts += [_use(release, repo), _training(release), _licences(release), _files(release)]
    return "\n".join(part for part in parts if part)


def _line(text: str) -> str:
    return " ".join(text.split())


def _picture(name: str, prompt: str, seed: str) -> str:
    text = _line(prompt).replace("[", "(").replace("]", ")")
    return f"![{text or name}](samples/{name})\n*{text}{f', seed {seed}' if seed else ''}*\n"


def _use(release: Release, repo: str) -> str:
    prompt = f"{release.trigger}, " if release.trigger else ""
    trigger = f"Write `{release.trigger}` into the prompt.\n\n" if release.trigger else ""
    return (
        f"## Use\n\n{trigger}"
        f"**A1111, Forge**: put the file into `models/Lora`, and write\n\n"
        f"```text\n{lora_line(release.file, STRENGTH)} {prompt}your prompt\n```\n\n"
        f"**ComfyUI**: put the file into `models/loras`, and open `comfyui.json`, or use a *Load LoRA* node.\n\n"
        f"**diffusers**:\n\n{snippet(release, repo)}"
    )


def snippet(release: Release, repo: str) -> str:
    """Python that loads the base and the LoRA and makes a picture, or why diffusers needs another file."""
    kind, own = release.about.kind, next(iter(release.others), None)
    plain = kind == "lora" or release.about.naming == "peft"
    if kind in ("loha", "lokr"):
        return f"diffusers does not read {kind} files; merge it into the base with `trainpilot merge --base`.\n"
    if not plain and own is None:
        return (
            "diffusers drops the magnitudes of a DoRA in Kohya naming: run `trainpilot convert FILE --to peft` first.\n"
        )
    file = release.file.name if plain or own is None else own.name
    base = release.base_repo or f"path/to/{release.base_name or 'the base model'}"
    trigger = f"{release.trigger}, " if release.trigger else ""
    prompt = (release.samples[0].prompt if release.samples else "") or f"{trigger}your prompt"
    lines = [
        "import torch",
        "from diffusers import AutoPipelineForText2Image",
        "",
        f"pipeline = AutoPipelineForText2Image.from_pretrained({base!r}, torch_dtype=torch.float16).to('cuda')",
        f"pipeline.load_lora_weights({repo or '.'!r}, weight_name={file!r}, adapter_name={release.name!r})",
        f"pipeline.set_adapters([{release.name!r}], [{STRENGTH:g}])",
        f"pipeline({_line(prompt)!r}).images[0].save('picture.png')",
    ]
    if release.about.family == "flux":
        lines[3] = lines[3].replace("float16", "bfloat16")
    return "```python\n" + "\n".join(lines) + "\n```\n"


def _training(release: Release) -> str:
    said, made = release.about.metadata, release.made
    rows = [("Length", length(said)), ("Optimizer", rates(said))]
    network = release.settings.get("network", {})
    if network:
        rows.append(
            ("Network", ", ".join(f"{key} {network[key]}" for key in ("type", "rank", "alpha") if key in network))
        )
    rows += [
        ("Pictures", str(made.get("images", ""))),
        ("Data hash", f"`{made['dataset_hash'][:16]}`" if made.get("dataset_hash") else ""),
        ("GPU", ", ".join(made.get("gpus", []))),
        ("TrainPilot", str(made.get("trainpilot", ""))),
        ("Packages", ", ".join(f"{name} {number}" for name, number in made.get("versions", {}).items())),
    ]
    table = "".join(f"| {name} | {_line(text)} |\n" for name, text in rows if text)
    more = "\nAll settings are in `settings.toml`.\n" if release.settings else ""
    return f"## Training\n\n| | |\n|---|---|\n{table}{more}" if table else ""


def _licences(release: Release) -> str:
    base = f"[{release.base_repo}](https://huggingface.co/{release.base_repo})" if release.base_repo else ""
    base = base or (f"`{release.base_name}`" if release.base_name else "an unnamed model")
    own = _linked(release.licence.name, release.licence.link) if release.licence else "not stated"
    of_base = _linked(release.base_licence.name, release.base_licence.link) if release.base_licence else "not known"
    warnings = ""
    if release.base_licence is not None and release.base_licence.non_commercial:
        warnings = "\nThe base's licence forbids commercial use, and goes with everything that is made of it.\n"
    return f"## Licence\n\nThis LoRA: {own}. Its base, {base}: {of_base}.\n{warnings}"


def _linked(name: str, link: str) -> str:
    return f"[{name}]({link})".replace("[dev]", "\\[dev\\]") if link else name


def _files(release: Release) -> str:
    said = release.about.metadata
    weights = said.get("sshs_model_hash", "")
    rows = f"| {release.file.name} | {release.about.naming} naming, for A1111, ComfyUI, InvokeAI and diffusers |\n"
    rows += "".join(f"| {path.name} | the same weights in diffusers' own naming |\n" for path in release.others)
    hashes = f"\nHash of the weights (AutoV3): `{weights[:12]}`. Whole files: `hashes.txt`.\n" if weights else ""
    return f"## Files\n\n| | |\n|---|---|\n{rows}{hashes}"
