"""Likeness of faces, where a model for them lies on disk."""

from __future__ import annotations

from trainpilot.evaluate.metrics import About, Bench, Measured, Picture
from trainpilot.evaluate.metrics._vectors import identity

ABOUT = About(
    name="likeness_face",
    label="Likeness (face)",
    says="Mean cosine with the dataset's pictures, as a model trained to tell faces apart sees them",
    low="0: the faces that the base paints",
    high="1: as the dataset's pictures are to one another",
    better="higher",
    model="a face embedder in models/face-embedding (transformers layout, safetensors)",
    cost="a pass of the model a picture",
    cannot_tell="Where the face is: it looks at the whole picture, so it means something for portraits and close-ups "
    "alone.",
)


def measure(pictures: list[Picture], bench: Bench) -> Measured:
    return identity("face", pictures, bench)
