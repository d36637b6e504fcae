"""The tiny models and runs of the engine's tests and the base models of the unit tests are at hand here too."""

from __future__ import annotations

import sys
from pathlib import Path

for room in ("engine", "unit"):
    sys.path.insert(1, str(Path(__file__).parents[1] / room))
