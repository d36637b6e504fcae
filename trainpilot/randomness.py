"""Every random draw of a run as a pure function of (seed, purpose, counters).

Nothing here has state, so resuming, sampling in between and the number of workers change nothing. Used by the
data order and the captions (numpy, here) and by the engine (which seeds torch generators with `draw_seed`).
"""

from __future__ import annotations

import hashlib

import numpy as np


def draw_seed(seed: int, purpose: str, *counters: int) -> int:
    """A 63-bit seed for one draw; equal arguments give equal draws on every machine.

    purpose names what is drawn ("noise", "order", "crop" ...); counters are, for instance, the optimizer step and
    the global sample slot. BLAKE2b keeps neighbouring counters unrelated, which adding them to a seed would not.
    """
    text = "/".join([str(seed), purpose, *map(str, counters)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def stream(seed: int, purpose: str, *counters: int) -> np.random.Generator:
    """A numpy generator for one draw (Philox: counter-based, identical on every platform)."""
    return np.random.Generator(np.random.Philox(draw_seed(seed, purpose, *counters)))
