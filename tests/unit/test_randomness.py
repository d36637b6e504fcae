"""Draws are functions of (seed, purpose, counters) and of nothing else."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trainpilot.randomness import draw_seed, stream

COUNTERS = st.lists(st.integers(0, 2**40), max_size=3)


@given(st.integers(0, 2**63 - 1), st.sampled_from(["noise", "order", "crop"]), COUNTERS)
def test_a_seed_is_the_hash_of_what_names_the_draw(seed: int, purpose: str, counters: list[int]) -> None:
    text = "/".join(str(part) for part in (seed, purpose, *counters))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    expected = 0
    for byte in digest:  # big-endian, then without the lowest bit: torch and numpy take 63 bits
        expected = expected * 256 + byte
    assert draw_seed(seed, purpose, *counters) == expected // 2 < 2**63


@given(st.sets(st.tuples(st.integers(0, 50), st.sampled_from(["a", "b"]), st.integers(0, 50)), min_size=2))
def test_different_draws_have_different_seeds(draws: set[tuple[int, str, int]]) -> None:
    assert len({draw_seed(*draw) for draw in draws}) == len(draws)


def test_counters_do_not_run_together() -> None:
    assert len({draw_seed(1, "a", 2, 3), draw_seed(1, "a", 23), draw_seed(12, "a", 3), draw_seed(1, "a2", 3)}) == 4


def test_drawing_more_elsewhere_changes_nothing() -> None:
    alone = stream(7, "noise", 3).random(4)
    stream(7, "noise", 2).random(1000)
    stream(7, "order", 3).random(1000)
    np.testing.assert_array_equal(stream(7, "noise", 3).random(4), alone)


def test_another_process_draws_the_same() -> None:
    code = "from trainpilot.randomness import stream; print(stream(7, 'noise', 3, 1).random(3).tobytes().hex())"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert bytes.fromhex(printed.strip()) == stream(7, "noise", 3, 1).random(3).tobytes()


def test_neighbouring_counters_are_unrelated() -> None:
    draws = np.stack([stream(7, "noise", step).standard_normal(4096) for step in range(32)])
    correlations = np.corrcoef(draws)[~np.eye(32, dtype=bool)]
    # The correlation of two independent series of n normals has a deviation of 1/sqrt(n) = 1/64; five of them.
    assert np.abs(correlations).max() < 5 / 64
