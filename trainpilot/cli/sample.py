"""`trainpilot sample`: pictures from prompts, with a base model and any number of LoRA files."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from trainpilot.errors import ExitCode, PilotError, RunFailed

if TYPE_CHECKING:
    from trainpilot.config.prompts import Prompt
    from trainpilot.families.card import Card
    from trainpilot.models.detect import Base

Loras = list[tuple[Path, float]]
N = TypeVar("N", int, float)

HELP = "Make pictures from prompts, with a base model and LoRA files"
EXAMPLE = 'trainpilot sample "a zorp on a hill --d 7" --base pilot-tiny --lora outputs/zorp/zorp.safetensors:0.8'


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "prompts", nargs="*", metavar="PROMPT", help="prompt, with --n --w --h --d --s --l --g --ss options"
    )
    parser.add_argument("--base", required=True, metavar="MODEL", help="diffusers folder or checkpoint, or its name")
    parser.add_argument(
        "--lora", action="append", default=[], metavar="FILE[:STRENGTH]", help="LoRA file; several add up"
    )
    parser.add_argument("--prompts-file", metavar="FILE", help="file of prompts: .txt (one a line), .toml or .json")
    parser.add_argument("--out", default="samples", metavar="DIR", help="folder of the pictures (default: samples)")
    parser.add_argument("--seed", type=int, default=42, help="seed of the first picture; the next ones count up")
    parser.add_argument("--count", type=int, default=1, metavar="N", help="pictures of each prompt")
    parser.add_argument("--negative", default="", help="negative prompt")
    parser.add_argument("--steps", type=int, default=20, help="steps of the sampler")
    parser.add_argument("--guidance", type=float, help="guidance scale (default: the family's)")
    parser.add_argument("--sampler", default="auto", help="sampler by name (default: the family's)")
    parser.add_argument("--size", metavar="WxH", help="size in pixels (default: the model's)")
    parser.add_argument("--vae", metavar="MODEL", help="replacement VAE")
    parser.add_argument("--clip-skip", type=int, default=1, metavar="N", help="CLIP layer, counted from the last")
    parser.add_argument("--workspace", metavar="DIR", help="workspace folder (else PILOT_WORKSPACE, else ./workspace)")
    parser.add_argument("--json", action="store_true", help="print the pictures' paths as JSON")


def run(args: argparse.Namespace) -> int:
    from trainpilot.cli import _options
    from trainpilot.families.card import card
    from trainpilot.models.detect import detect
    from trainpilot.models.ondisk import find_base

    place = _options.workspace(args)
    vae = place.locate(args.vae, place.models) if args.vae else None
    base = detect(find_base(place, args.base), vae)
    prompts = _prompts(args, base, card(base.family).variant(base.variant))
    loras = [_options.lora_at_strength(given, "--lora") for given in args.lora]
    with _device_locked():
        paths = _make(base, prompts, loras, vae, args)
    print(json.dumps({"pictures": [str(path) for path in paths]}) if args.json else "\n".join(map(str, paths)))
    return int(ExitCode.DONE)


def _prompts(args: argparse.Namespace, base: Base, about: Card) -> list[Prompt]:
    """What is asked for, each with its seed; options of a prompt win over those of the command."""
    from trainpilot.config.prompts import Prompt, parse_prompt, read_prompts
    from trainpilot.families.samplers import samplers_of

    side = base.resolution or about.resolution
    width, height = size_of(args.size) if args.size else (side, side)
    defaults = Prompt(
        negative=args.negative,
        width=width,
        height=height,
        steps=_at_least("--steps", args.steps, 1),
        guidance=about.guidance if args.guidance is None else _at_least("--guidance", args.guidance, 0),
        embedded_guidance=about.embedded_guidance,
        sampler=args.sampler,
    )
    found = [parse_prompt(line, defaults) for line in args.prompts]
    if args.prompts_file:
        found += read_prompts(Path(args.prompts_file), defaults)
    if not found:
        raise PilotError(
            "prompts", "none", "a prompt, or --prompts-file", 'For example: trainpilot sample "a zorp" ...'
        )
    known = ["auto", *samplers_of(base.family)]
    for prompt in found:
        if prompt.sampler not in known:
            raise PilotError("--sampler", prompt.sampler, ", ".join(known), "Choose one of these.")
    repeated = [prompt for prompt in found for _ in range(_at_least("--count", args.count, 1))]
    first = _at_least("--seed", args.seed, 0)
    return [
        replace(
            prompt,
            seed=first + number if prompt.seed is None else prompt.seed + number % args.count,
            sampler=about.sampler if prompt.sampler == "auto" else prompt.sampler,
        )
        for number, prompt in enumerate(repeated)
    ]


def _at_least(where: str, given: N, least: N) -> N:
    if given < least:
        raise PilotError(where, given, f"{least} or more", "Correct it.")
    return given


def size_of(given: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", given)
    if not match or not all(8 <= int(side or 8) <= 8192 for side in match.groups()):
        raise PilotError("--size", given, "WIDTHxHEIGHT or one number, from 8 to 8192", "For example 512x768.")
    return int(match[1]), int(match[2] or match[1])


@contextmanager
def _device_locked() -> Iterator[None]:
    """Hold the lock of a GPU that nothing else uses, and let torch see only it. The CPU can be shared."""
    from trainpilot.runs.devices import CPU, VISIBLE, devices
    from trainpilot.runs.locks import device_lock

    names, _ = devices()
    if names == [CPU] or os.environ.get("PILOT_DEVICE", "").strip() == CPU:
        yield
        return
    for name in names:
        lock = device_lock(name)
        if lock.acquire(run="trainpilot sample"):
            os.environ[VISIBLE] = name
            try:
                yield
            finally:
                lock.release()
            return
    raise RunFailed("device", "every GPU is in use", "a free GPU", "Wait for the run to end, or set PILOT_DEVICE=cpu.")


def _make(base: Base, prompts: list[Prompt], loras: Loras, vae: Path | None, args: argparse.Namespace) -> list[Path]:
    from trainpilot.engine.painting import Painting, named, paint
    from trainpilot.engine.probe import choose_device
    from trainpilot.engine.sampler import save_png

    def say(text: str) -> None:
        print(text, file=sys.stderr)

    device = choose_device()
    for note in device.notes:
        say(note)
    painting = Painting(base, tuple(loras), vae, _at_least("--clip-skip", args.clip_skip, 1))
    paths = []
    for number, (prompt, image) in enumerate(zip(prompts, paint(painting, prompts, device), strict=True)):
        place = _free(Path(args.out), number, prompt)
        path = save_png(image, place, prompt, prompt.sampler, base=base.path.name, lora=named(loras))
        say(f"{number + 1}/{len(prompts)} {path}")
        paths.append(path)
    return paths


def _free(folder: Path, number: int, prompt: Prompt) -> Path:
    """A name that no file has: nothing is overwritten."""
    stem = f"{number:03d}_{prompt.seed}"
    candidates = (folder / f"{stem}{f'_{again}' if again else ''}.png" for again in range(10_000))
    return next(path for path in candidates if not path.exists())
