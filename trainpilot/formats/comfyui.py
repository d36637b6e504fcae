"""ComfyUI graphs that load a LoRA over its base, in both of ComfyUI's JSON formats. Strings and numbers only.

`workflow` is what its HTTP API takes: node id -> class and inputs, a link being [node id, slot]. `canvas` is the same
graph as its window saves and opens it. What a node offers is said once, in `_NODES`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trainpilot.errors import PilotError
from trainpilot.families.card import card

Graph = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class _Node:
    """sockets: name -> type of what is linked; widgets: names in the window's order; outputs: their types."""

    sockets: dict[str, str]
    widgets: tuple[str, ...]
    outputs: tuple[str, ...]


_NODES = {
    "CheckpointLoaderSimple": _Node({}, ("ckpt_name",), ("MODEL", "CLIP", "VAE")),
    "UNETLoader": _Node({}, ("unet_name", "weight_dtype"), ("MODEL",)),
    "DualCLIPLoader": _Node({}, ("clip_name1", "clip_name2", "type", "device"), ("CLIP",)),
    "VAELoader": _Node({}, ("vae_name",), ("VAE",)),
    "LoraLoader": _Node(
        {"model": "MODEL", "clip": "CLIP"}, ("lora_name", "strength_model", "strength_clip"), ("MODEL", "CLIP")
    ),
    "CLIPTextEncode": _Node({"clip": "CLIP"}, ("text",), ("CONDITIONING",)),
    "FluxGuidance": _Node({"conditioning": "CONDITIONING"}, ("guidance",), ("CONDITIONING",)),
    "EmptyLatentImage": _Node({}, ("width", "height", "batch_size"), ("LATENT",)),
    "EmptySD3LatentImage": _Node({}, ("width", "height", "batch_size"), ("LATENT",)),
    "KSampler": _Node(
        {"model": "MODEL", "positive": "CONDITIONING", "negative": "CONDITIONING", "latent_image": "LATENT"},
        ("seed", "steps", "cfg", "sampler_name", "scheduler", "denoise"),
        ("LATENT",),
    ),
    "VAEDecode": _Node({"samples": "LATENT", "vae": "VAE"}, (), ("IMAGE",)),
    "SaveImage": _Node({"images": "IMAGE"}, ("filename_prefix",), ()),
}
# The names under which the bases are usually saved, for a base whose own file name ComfyUI could not load.
_USUAL = {
    "sd15": "v1-5-pruned-emaonly.safetensors",
    "sdxl": "sd_xl_base_1.0.safetensors",
    "flux": "flux1-dev.safetensors",
}
_FLUX_PARTS = {"clip_name1": "t5xxl_fp16.safetensors", "clip_name2": "clip_l.safetensors", "type": "flux"}
_AFTER_SEED = "fixed"  # the window's own widget after a seed: what becomes of it after each picture
_COLUMN, _ROW = 360, 260  # px between nodes


def workflow(family: str, lora: str, base: str, prompt: str, strength: float = 0.8, seed: int = 42) -> Graph:
    """The graph for ComfyUI's API. lora, base: file names, as ComfyUI's lists show them; PilotError for a family that
    ComfyUI's graph is not known of."""
    if family not in _USUAL:
        raise PilotError("family", family, ", ".join(_USUAL), "Load the file with a Load LoRA node by hand.")
    about = card(family)
    name = base if base.endswith(".safetensors") else _USUAL[family]
    flux = family == "flux"
    graph: Graph = {}
    if flux:
        _add(graph, 1, "UNETLoader", unet_name=name, weight_dtype="default")
        _add(graph, 2, "DualCLIPLoader", **_FLUX_PARTS, device="default")
        _add(graph, 3, "VAELoader", vae_name="ae.safetensors")
        model, clip, vae = ["1", 0], ["2", 0], ["3", 0]
    else:
        _add(graph, 1, "CheckpointLoaderSimple", ckpt_name=name)
        model, clip, vae = ["1", 0], ["1", 1], ["1", 2]
    _add(
        graph, 4, "LoraLoader", model=model, clip=clip, lora_name=lora, strength_model=strength, strength_clip=strength
    )
    _add(graph, 5, "CLIPTextEncode", clip=["4", 1], text=prompt)
    _add(graph, 6, "CLIPTextEncode", clip=["4", 1], text="")
    positive: list[Any] = ["5", 0]
    if flux:
        _add(graph, 7, "FluxGuidance", conditioning=positive, guidance=about.embedded_guidance)
        positive = ["7", 0]
    size = {"width": about.resolution, "height": about.resolution, "batch_size": 1}
    _add(graph, 8, "EmptySD3LatentImage" if flux else "EmptyLatentImage", **size)
    _add(
        graph,
        9,
        "KSampler",
        model=["4", 0],
        positive=positive,
        negative=["6", 0],
        latent_image=["8", 0],
        seed=seed,
        steps=20 if flux else 25,
        cfg=about.guidance,
        sampler_name="euler",
        scheduler="simple" if flux else "normal",
        denoise=1.0,
    )
    _add(graph, 10, "VAEDecode", samples=["9", 0], vae=vae)
    _add(graph, 11, "SaveImage", images=["10", 0], filename_prefix=lora.removesuffix(".safetensors"))
    return graph


def _add(graph: Graph, number: int, kind: str, **inputs: Any) -> None:
    expected = {*_NODES[kind].sockets, *_NODES[kind].widgets}
    if set(inputs) != expected:
        raise ValueError(f"{kind} takes {sorted(expected)}, not {sorted(inputs)}")
    graph[str(number)] = {"class_type": kind, "inputs": inputs}


def canvas(graph: Graph) -> dict[str, Any]:
    """The graph as ComfyUI's window opens it: nodes with places, links with numbers of their own."""
    links: list[list[Any]] = []
    for target, node in graph.items():
        for place, (name, kind) in enumerate(_NODES[node["class_type"]].sockets.items()):
            source, slot = node["inputs"][name]
            links.append([len(links) + 1, int(source), slot, int(target), place, kind])
    nodes = [_drawn(number, node, links, place) for number, (node, place) in _placed(graph).items()]
    return {
        "last_node_id": max(map(int, graph)),
        "last_link_id": len(links),
        "nodes": nodes,
        "links": links,
        "groups": [],
        "config": {},
        "extra": {},
        "version": 0.4,
    }


def _placed(graph: Graph) -> dict[int, tuple[dict[str, Any], tuple[int, int]]]:
    """Each node in the column after the last that feeds it, below what is there already."""
    columns: dict[str, int] = {}
    filled: dict[int, int] = {}
    found = {}
    for number, node in graph.items():  # a node comes after those that feed it
        sources = [node["inputs"][name][0] for name in _NODES[node["class_type"]].sockets]
        columns[number] = column = 1 + max((columns[source] for source in sources), default=-1)
        filled[column] = row = filled.get(column, -1) + 1
        found[int(number)] = (node, (60 + column * _COLUMN, 60 + row * _ROW))
    return found


def _drawn(number: int, node: dict[str, Any], links: list[list[Any]], place: tuple[int, int]) -> dict[str, Any]:
    about = _NODES[node["class_type"]]
    into = {link[4]: link[0] for link in links if link[3] == number}
    out = [[link[0] for link in links if link[1] == number and link[2] == slot] for slot in range(len(about.outputs))]
    values: list[Any] = []
    for name in about.widgets:
        values.append(node["inputs"][name])
        values += [_AFTER_SEED] if name == "seed" else []
    return {
        "id": number,
        "type": node["class_type"],
        "pos": list(place),
        "size": [300, 60 + 26 * (len(about.widgets) + max(len(about.sockets), len(about.outputs)))],
        "flags": {},
        "order": number - 1,
        "mode": 0,
        "inputs": [{"name": n, "type": kind, "link": into[i]} for i, (n, kind) in enumerate(about.sockets.items())],
        "outputs": [
            {"name": kind, "type": kind, "links": found, "slot_index": slot}
            for slot, (kind, found) in enumerate(zip(about.outputs, out, strict=True))
        ],
        "properties": {"Node name for S&R": node["class_type"]},
        "widgets_values": values,
    }
