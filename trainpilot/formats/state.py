"""An adapter as the engine hands it over and as a file gives it back. Used by the engine and by every format.

Module names are those of the diffusers and transformers models ("down_blocks.0.attentions.0...attn1.to_q",
"text_model.encoder.layers.0.self_attn.q_proj" or, as transformers 5.6 and newer have it, without "text_model.").
Leaves are peft's parameter names without the adapter's: "lora_A.weight" [r, in(,k,k)], "lora_B.weight"
[out, r(,1,1)], "lora_magnitude_vector.weight" [out] or [1, out, 1, 1], "hada_w1_a", "lokr_w1" and so on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

AdapterType = Literal["lora", "loha", "lokr"]

DOWN = "lora_A.weight"
UP = "lora_B.weight"
MAGNITUDE = "lora_magnitude_vector.weight"


@dataclass
class ModuleWeights:
    """The adapter of one module. Its effect is alpha / rank times the product of its tensors."""

    type: AdapterType
    tensors: dict[str, Tensor]
    rank: int
    alpha: float

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


AdapterState = dict[str, dict[str, ModuleWeights]]  # component -> module -> weights
