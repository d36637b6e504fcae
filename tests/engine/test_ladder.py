"""Out of memory while training: which rungs are taken, and that the weights come out as without it."""

from __future__ import annotations

import pytest
import torch
from tiny_runs import attempt, final_tensors, make
from torch import Tensor

from trainpilot.engine.batches import Batch
from trainpilot.engine.step import Step
from trainpilot.errors import RunFailed
from trainpilot.runs.events import history
from trainpilot.runs.rundir import RunDir

SETTINGS = ("training.steps=3", "training.batch_size=2", "memory.gradient_checkpointing=false", "network.dropout=0")


def _short_of_memory(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """A device on which only `most` images fit into a forward pass, and none without recomputed activations."""
    plain = Step.loss

    def loss(self: Step, step: int, batch: Batch) -> Tensor:
        denoiser = self.parts.denoiser
        if len(batch.slots) > most or not denoiser.is_gradient_checkpointing:
            raise torch.OutOfMemoryError("injected")
        return plain(self, step, batch)

    monkeypatch.setattr(Step, "loss", loss)


def _told(run: RunDir) -> list[str]:
    return [event["text"] for event in history(run.path / "events.jsonl") if "out of memory" in event.get("text", "")]


def test_the_weights_are_those_of_a_run_with_enough_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    plenty = make("sd15", *SETTINGS)
    attempt(plenty)
    _short_of_memory(monkeypatch, most=1)
    short = make("sd15", *SETTINGS)
    assert attempt(short).status == "done"
    expected, found = final_tensors(plenty), final_tensors(short)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=2e-5, msg=name)
    rungs = _told(short)
    assert len(rungs) == 2
    assert "recomputed" in rungs[0]
    assert "2 pieces" in rungs[1]


def test_at_the_top_the_run_fails_and_names_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    _short_of_memory(monkeypatch, most=0)
    run = make("sd15", *SETTINGS)
    with pytest.raises(RunFailed, match=r"precision\.base=nf4"):
        attempt(run)
    assert not run.result.exists()
