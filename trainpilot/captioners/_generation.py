"""What the captioners that write sentences share: loading from a folder, and a generation that can be stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from trainpilot.engine.probe import Device
from trainpilot.errors import PilotError


def load_parts(model_class: Any, path: Path, device: Device) -> tuple[Any, Any]:
    """(processor, model on the device, ready to generate). Only from the folder, only safetensors."""
    from transformers import AutoProcessor
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    try:
        processor = AutoProcessor.from_pretrained(path, local_files_only=True)
        model = model_class.from_pretrained(path, local_files_only=True, use_safetensors=True, dtype=device.dtype)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PilotError(
            path, f"cannot be loaded as {model_class.__name__}: {str(error)[:300]}", "a whole model of that kind",
            "Fetch the model again, or choose another one.",
        ) from error  # fmt: skip
    return processor, model.to(device.torch_device).eval()


class Looking:
    """A stopping criterion that never says stop, but looks at every token whether somebody else does."""

    def __init__(self, look: Callable[[], None]) -> None:
        self.look = look

    def __call__(self, input_ids: torch.Tensor, scores: Any, **more: Any) -> torch.Tensor:
        """input_ids: [batch, tokens]; False for each row."""
        self.look()
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


@torch.inference_mode()
def generate(model: Any, inputs: Any, device: Device, look: Callable[[], None], **options: Any) -> torch.Tensor:
    """Token ids [batch, tokens], without sampling: the same picture gets the same caption."""
    from transformers import StoppingCriteriaList

    moved = {
        name: value.to(device.torch_device, device.dtype if value.is_floating_point() else value.dtype)
        for name, value in inputs.items()
    }
    made: torch.Tensor = model.generate(
        **moved, **options, do_sample=False, stopping_criteria=StoppingCriteriaList([Looking(look)])
    )
    return made
