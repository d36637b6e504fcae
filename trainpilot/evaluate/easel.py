"""A base model loaded once, into which LoRAs are put and taken out again, painting in batches.

`trainpilot sample` loads the base for each set of LoRAs; a grid of 36 of them would spend its time loading. Here the
weights that a LoRA changes are kept, so that another LoRA or strength costs one pass over those weights, and the base
is bit for bit itself again after each. Used by grids and evaluations.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from trainpilot.engine.merging import merge
from trainpilot.engine.probe import Device
from trainpilot.engine.sampler import Pair, encode, sample_batch
from trainpilot.errors import PilotError
from trainpilot.evaluate.album import Loras, Order
from trainpilot.families.protocol import Conditioning, Family, Parts, TextOptions
from trainpilot.families.registry import adapter
from trainpilot.formats.identify import family_of, naming_of
from trainpilot.formats.load import LoraFile, read
from trainpilot.formats.state import AdapterState
from trainpilot.models.detect import Base
from trainpilot.models.safetensors_header import read_header

log = logging.getLogger(__name__)
BATCH_PIXELS = 4 * 1024 * 1024  # painted at once, to begin with; halved where memory runs out
MOST_AT_ONCE = 16


@dataclass(frozen=True)
class Easel:
    """What paints: a base model, a replacement VAE or none, how the text is read, and the device."""

    base: Base
    device: Device
    vae: Path | None = None
    text: TextOptions = field(default_factory=TextOptions)
    zero_terminal_snr: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """What a picture depends on besides base, LoRAs and prompt; for the album. The device's number included:
        the same arithmetic on another kind of device rounds differently."""
        return {
            "vae": str(self.vae or ""),
            "clip_skip": self.text.clip_skip,
            "tokens": [self.text.clip_tokens, self.text.t5_tokens],
            "zero_terminal_snr": self.zero_terminal_snr,
            "precision": str(self.device.dtype).removeprefix("torch."),
            "device": self.device.torch_device.type,
        }

    def paint(
        self, orders: Sequence[Order], on_step: Callable[[int, int], None] | None = None
    ) -> Iterator[tuple[int, Image.Image]]:
        """(number of the order, its picture), in the order that is fastest: by LoRAs, then as many as fit at once.

        Texts are encoded before the denoiser is loaded and their encoders let go, unless a LoRA changes them.
        on_step(done, of): within a batch; may raise to stop. PilotError names a LoRA of another family.
        """
        if not orders:
            return
        family = adapter(self.base.family)
        files = dict.fromkeys(path for order in orders for path, _ in order.loras)
        changing = [path for path in files if changes_text(path, self.base.family)]  # and every family is checked
        parts = self.load(family, "text")
        texts = _Texts(family, parts, self.text)
        if not changing:
            for order in orders:
                texts.pair(order, ())
            parts.text_encoders, parts.tokenizers = [], []
        rest = self.load(family, "denoiser", "vae")
        rest.text_encoders, rest.tokenizers = parts.text_encoders, parts.tokenizers
        brush = Brush(family, rest)
        most = MOST_AT_ONCE
        for loras, numbers in _by_loras(orders).items():
            brush.take(loras)
            for group in _alike(orders, numbers):
                left = list(group)
                while left:
                    most = min(most, _fitting(orders[left[0]]))
                    chosen = left[:most]
                    pairs = [texts.pair(orders[one], loras if changing else ()) for one in chosen]
                    try:
                        images = self._batch(family, rest, [orders[one] for one in chosen], pairs, on_step)
                    except torch.OutOfMemoryError:
                        if len(chosen) == 1:
                            raise
                        most = max(1, len(chosen) // 2)
                        log.warning("memory ran out with %d pictures at once: now %d", len(chosen), most)
                        torch.cuda.empty_cache()
                        continue
                    yield from zip(chosen, images, strict=True)
                    left = left[len(chosen) :]
            texts.forget(loras)

    def _batch(
        self,
        family: Family,
        parts: Parts,
        orders: Sequence[Order],
        pairs: Sequence[Pair],
        on_step: Callable[[int, int], None] | None,
    ) -> list[Image.Image]:
        device = self.device.torch_device
        return sample_batch(
            family,
            parts,
            [order.prompt for order in orders],
            [(_moved(positive, device), negative and _moved(negative, device)) for positive, negative in pairs],
            dtype=self.device.dtype,
            zero_terminal_snr=self.zero_terminal_snr,
            on_step=on_step,
        )

    def load(self, family: Family, *wanted: str) -> Parts:
        """Pieces of the base ("text", "vae", "denoiser") on the device."""
        device = self.device
        parts = family.load(
            self.base.path, frozenset(wanted), dtype=device.dtype, device=device.torch_device, vae=self.vae
        )
        if parts.denoiser is not None and any(
            isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1) for module in parts.denoiser.modules()
        ):
            # Convolutions run fastest with channels innermost.
            parts.denoiser.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return parts


class Brush:
    """The loaded base with the LoRAs of the moment in it."""

    def __init__(self, family: Family, parts: Parts) -> None:
        self.family, self.parts = family, parts
        self._models: dict[str, nn.Module] = {}
        if parts.denoiser is not None:
            self._models["denoiser"] = parts.denoiser
        self._models |= dict(zip(family.components[1:], parts.text_encoders, strict=False))
        self._originals: dict[tuple[str, str], Tensor] = {}
        self._changed: set[tuple[str, str]] = set()
        self._read = lru_cache(maxsize=2)(read)  # one checkpoint is used at every strength before the next

    @torch.no_grad()
    def take(self, loras: Loras) -> None:
        """Make the weights those of the base with `loras`, in their order; () is the base."""
        for component, name in self._changed:
            weight: Any = self._models[component].get_submodule(name).weight
            weight.copy_(self._originals[component, name])
        self._changed.clear()
        for path, strength in loras:
            file: LoraFile = self._read(path)
            self._keep(file.state)
            merge(self.family, self.parts, file.state, strength)

    def _keep(self, state: AdapterState) -> None:
        """Remember the base's weights that `state` changes: in host memory, where a second copy of a base fits."""
        for component, modules in state.items():
            model = self._models.get(component)
            if model is None:
                continue
            known = dict(model.named_modules())
            for name in modules.keys() & known.keys():
                if (component, name) not in self._originals:
                    weight: Any = known[name].weight
                    self._originals[component, name] = weight.detach().to("cpu", copy=True)
                self._changed.add((component, name))


class _Texts:
    """Conditionings, each encoded once: by the texts, and by the LoRAs where those change how texts are read."""

    def __init__(self, family: Family, parts: Parts, options: TextOptions) -> None:
        self.family, self.parts, self.options = family, parts, options
        self._known: dict[tuple[Loras, str], Conditioning] = {}

    def pair(self, order: Order, loras: Loras) -> Pair:
        prompt = order.prompt
        return self._one(prompt.text, loras), self._one(prompt.negative, loras) if prompt.guidance > 1 else None

    def _one(self, text: str, loras: Loras) -> Conditioning:
        from trainpilot.config.prompts import Prompt

        if (loras, text) not in self._known:
            [(positive, _)] = encode(self.family, self.parts, [Prompt(text=text, guidance=1)], self.options)
            self._known[loras, text] = _moved(positive, torch.device("cpu"))
        return self._known[loras, text]

    def forget(self, loras: Loras) -> None:
        """These LoRAs do not come again: so many conditionings would fill the memory."""
        if loras:
            self._known = {key: value for key, value in self._known.items() if key[0] != loras}


def _moved(conditioning: Conditioning, device: torch.device) -> Conditioning:
    return {key: value.to(device) for key, value in conditioning.items()}


def changes_text(path: Path, family: str) -> bool:
    """Whether a LoRA file has weights for a text encoder; PilotError where it is made for another family."""
    header = read_header(path)
    names = list(header.tensors)
    made_for = family_of(path, header, naming_of(path, names))
    if made_for != family:
        raise PilotError(path, f"a LoRA for {made_for}", family, "Choose the base that it was made for.")
    return any(name.startswith(("lora_te", "text_encoder")) for name in names)


def _by_loras(orders: Sequence[Order]) -> dict[Loras, list[int]]:
    """Numbers of the orders by their LoRAs: the base first, then each file with all its strengths."""
    found: dict[Loras, list[int]] = {}
    for number, order in enumerate(orders):
        found.setdefault(order.loras, []).append(number)
    return dict(sorted(found.items(), key=lambda item: [str(path) for path, _ in item[0]]))


def _alike(orders: Sequence[Order], numbers: Sequence[int]) -> list[list[int]]:
    """Groups that can be painted together: prompts that differ in text, negative and seed alone."""
    found: dict[Any, list[int]] = {}
    for number in numbers:
        shape = replace(orders[number].prompt, text="", negative="", seed=0)
        found.setdefault(shape, []).append(number)
    return list(found.values())


def _fitting(order: Order) -> int:
    return max(1, min(MOST_AT_ONCE, BATCH_PIXELS // (order.prompt.width * order.prompt.height)))
