"""Every dialect both ways: what it calls mapped comes back the same, and every setting and key is accounted for."""

from __future__ import annotations

import pytest
from dialect_samples import configs, leaves, value
from hypothesis import HealthCheck, given, settings

from trainpilot.config.layers import declaration
from trainpilot.config.schema import RunConfig
from trainpilot.dialects import dialects

BOTH_WAYS = list(dialects())
QUICK = settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@pytest.mark.parametrize("name", BOTH_WAYS)
@QUICK
@given(config=configs())
def test_ours_to_theirs_to_ours_is_the_identity_on_everything_mapped(name: str, config: RunConfig) -> None:
    known = dialects()[name]
    written = known.write(config)
    again = RunConfig.model_validate(known.read(written.text, written.beside.get).config)
    different = {
        item.key: (value(config, item.key), value(again, item.key))
        for item in written.mapped
        if value(config, item.key) != value(again, item.key)
    }
    assert different == {}


@pytest.mark.parametrize("name", BOTH_WAYS)
@QUICK
@given(config=configs())
def test_writing_books_every_setting_that_says_something_exactly_once(name: str, config: RunConfig) -> None:
    written = dialects()[name].write(config)
    booked = [
        item.key for group in (written.mapped, written.approximated, written.refused, written.idle) for item in group
    ]
    assert sorted(booked) == sorted(set(booked))
    silent = [
        path
        for path, ours in leaves(config).items()
        if path not in booked and path not in ("profile", "training.steps", "training.epochs")
        if ours != declared(path)
    ]
    assert silent == []
    assert all(item.reason for item in (*written.approximated, *written.refused))


def declared(path: str) -> object:
    """The schema's own default of a setting."""
    info = declaration(path)
    assert info is not None
    return info.get_default(call_default_factory=True)


@pytest.mark.parametrize("name", BOTH_WAYS)
def test_most_of_our_settings_mean_the_same_in_every_dialect(name: str) -> None:
    config = RunConfig.model_validate(
        {
            "model": {"family": "sdxl", "base": "/base"},
            "datasets": [{"path": "/data", "repeats": 2}],
            "training": {"epochs": 3},
        }
    )
    written = dialects()[name].write(config)
    said = len(written.mapped) + len(written.approximated) + len(written.refused)
    assert len(written.mapped) > 0.7 * said
    assert len(written.mapped) > 0.25 * len(leaves(config))
