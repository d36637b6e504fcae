"""How varied the pictures are: framing, light and ground, as far as small pictures tell."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trainpilot.datasets.doctor.case import Case
from trainpilot.datasets.doctor.findings import Finding, Place

TITLE = "varied framing and light"
POINTS = 15.0
WHY = (
    "Pictures that are alike in framing, light and background teach these with the subject: angles, distances, light "
    "and places should vary (front, three-quarter and profile; portrait, half and full body for a person)."
)
ALIKE = 0.9  # correlation of 8 x 8 colours above which two pictures have the same framing
MOST_ALIKE = 0.4  # share of pictures with such a sibling
MOST_LOOKED_AT = 2000
LEAST_PICTURES = 5
LEAST_LIGHT = 12.0  # standard deviation of middle tones between pictures


def look(case: Case) -> Iterator[Finding]:
    pictures = case.whole[:MOST_LOOKED_AT]
    if len(pictures) < LEAST_PICTURES:
        return
    small = np.stack([picture.facts.picture for picture in pictures]).astype(np.float32)
    rough = small.reshape(len(small), 8, 4, 8, 4, 3).mean((2, 4)).reshape(len(small), -1)
    rough -= rough.mean(axis=1, keepdims=True)
    rough /= np.maximum(np.linalg.norm(rough, axis=1, keepdims=True), 1e-6)
    alike = rough @ rough.T
    for pair in case.copies:  # their own check speaks of these
        if pair.second < len(pictures):
            alike[pair.first, pair.second] = alike[pair.second, pair.first] = 0
    np.fill_diagonal(alike, 0)
    nearest = alike.argmax(axis=1)
    same = [index for index in range(len(pictures)) if alike[index, nearest[index]] >= ALIKE]
    if len(same) > MOST_ALIKE * len(pictures):
        where = [Place(pictures[i].name, f"framed like {pictures[nearest[i]].name}") for i in same]
        title = f"{len(same)} of {len(pictures)} pictures have the same framing and ground as another one"
        yield Finding(title, "warning", where, len(case.whole))
    light = float(np.std([picture.facts.tones[2] for picture in pictures]))
    if light < LEAST_LIGHT:
        yield Finding(f"the light hardly varies: middle tones differ by {light:.0f} of 255", "note")
