"""Pictures without fine detail: enlarged, out of focus or shaken. Which of these, pixels alone do not tell."""

from __future__ import annotations

from collections.abc import Iterator

from trainpilot.datasets.doctor.case import Case
from trainpilot.datasets.doctor.findings import Finding, about

TITLE = "sharp pictures"
POINTS = 40.0
WHY = (
    "The LoRA learns blur as readily as a face. Measured where the picture is sharpest, after scaling to the training "
    "size: a soft background does not count, nor does softness that scaling down hides."
)
SOFT, BLURRED = 0.62, 0.4  # share of the detail that the training size could show


def look(case: Case) -> Iterator[Finding]:
    enlarged, blurred = [], []
    for picture in case.whole:
        # Detail at the training size: what the pixels hold, less what scaling down throws away.
        trained = min(1.0, picture.facts.detail / max(1e-6, min(1.0, picture.enlarged)))
        width, height = picture.facts.fine_size
        if trained < BLURRED:
            blurred.append((picture.name, f"no more detail than {width}x{height} px would show"))
        elif trained < SOFT:
            enlarged.append((picture.name, f"no more detail than {width}x{height} px would show"))
    yield from about(blurred, len(case.whole), "1 picture is blurred", "{} pictures are blurred")
    one = "1 picture looks enlarged or slightly out of focus"
    yield from about(enlarged, len(case.whole), one, "{} pictures look enlarged or slightly out of focus")
