"""Changing a LoRA file's metadata: weights byte for byte, hashes true, and what a file tells in words."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given
from lora_files import lora

from trainpilot import cli
from trainpilot.errors import PilotError
from trainpilot.formats import edit as editing
from trainpilot.formats.account import account, lora_line, tags
from trainpilot.formats.identify import identify
from trainpilot.models.safetensors_header import read_header

TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=60)
KEYS = st.text(st.characters(whitelist_categories=["L", "N"]), min_size=1, max_size=12).map("x_".__add__)


def weights(path: Path) -> bytes:
    return path.read_bytes()[read_header(path).data_start :]


@given(before=st.dictionaries(KEYS, TEXT, max_size=4), changes=st.dictionaries(KEYS, st.none() | TEXT, max_size=5))
def test_only_what_was_asked_changes_and_it_can_be_taken_back(
    tmp_path_factory: pytest.TempPathFactory, before: dict[str, str], changes: dict[str, str | None]
) -> None:
    file = lora(tmp_path_factory.mktemp("a") / "a.safetensors", before)
    original = file.read_bytes()
    editing.edit(file, changes)
    expected = {k: v for k, v in (read_header_of(original) | changes).items() if v is not None}
    told = read_header(file).metadata
    own = (editing.MODEL_HASH, editing.LEGACY_HASH)
    assert {k: v for k, v in told.items() if k not in own} == {k: v for k, v in expected.items() if k not in own}
    assert weights(file) == original[-48:] and editing.hashes_of(file).right
    assert told["sshs_model_hash"] == hashlib.sha256(original[-48:]).hexdigest()
    editing.edit(file, {key: before.get(key) for key in changes})
    assert file.read_bytes() == original
    assert [path.name for path in file.parent.iterdir()] == ["a.safetensors"]


def read_header_of(data: bytes) -> dict[str, str]:
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]


def test_the_legacy_hash_reads_what_lies_at_one_megabyte(tmp_path: Path) -> None:
    """A file long enough that its 64 KiB there exist, and move with the length of the ss_ metadata."""
    file = lora(tmp_path / "a.safetensors", rank=50_000)
    first = editing.hashes_of(file)
    editing.edit(file, {"comment": "longer"})
    second = editing.hashes_of(file)
    assert first.right and second.right
    assert first.true["sshs_model_hash"] == second.true["sshs_model_hash"]
    assert first.true["sshs_legacy_hash"] != second.true["sshs_legacy_hash"]
    editing.edit(file, {"title": "no ss_ key"})
    assert editing.hashes_of(file).true["sshs_legacy_hash"] == second.true["sshs_legacy_hash"]


@pytest.mark.parametrize("name", ["sshs_model_hash", "format", "trainpilot_parts", "lora_adapter_metadata", "", "a\nb"])
def test_what_says_how_the_weights_are_read_stays(tmp_path: Path, name: str) -> None:
    file = lora(tmp_path / "a.safetensors")
    before = file.read_bytes()
    with pytest.raises(PilotError):
        editing.edit(file, {name: "x"})
    assert file.read_bytes() == before


def test_a_link_stays_a_link_and_out_is_another_file(tmp_path: Path) -> None:
    file = lora(tmp_path / "a.safetensors")
    file.chmod(0o640)
    link = tmp_path / "link.safetensors"
    link.symlink_to(file.name)
    assert editing.edit(link, {"title": "Zorp"}) == {"modelspec.title": ("", "Zorp")}
    assert link.is_symlink() and identify(file).title == "Zorp" and file.stat().st_mode & 0o777 == 0o640
    assert editing.edit(link, {"title": "Zorp"}) == {}
    out = tmp_path / "b.safetensors"
    editing.edit(file, {"title": "Other"}, out)
    assert (identify(file).title, identify(out).title) == ("Zorp", "Other")
    with pytest.raises(PilotError, match="exists already"):
        editing.edit(file, {"title": "x"}, out)


def test_the_account_is_in_words(tmp_path: Path) -> None:
    said = {
        "ss_sd_model_name": "base.safetensors",
        "ss_new_sd_model_hash": "0123456789abcdef",
        "ss_steps": "300",
        "ss_epoch": "4",
        "ss_total_batch_size": "2",
        "ss_resolution": "(512, 512)",
        "ss_training_started_at": "1000.0",
        "ss_training_finished_at": "9100.0",
        "ss_optimizer": "torch.optim.adamw.AdamW(weight_decay=0.1)",
        "ss_learning_rate": "0.0001",
        "ss_text_encoder_lr": "None",
        "ss_dataset_dirs": json.dumps({"10_zorp": {"n_repeats": 10, "img_count": 16}}),
        "ss_tag_frequency": json.dumps({"10_zorp": {"zorp": 16, "red": 2}, "b": {"red": 4}}),
        "modelspec.trigger_phrase": "zorp",
    }
    about = identify(lora(tmp_path / "a.safetensors", said))
    told = dict(account(about))
    assert told["trained on"] == "base.safetensors (sd_v1) hash 0123456789"
    assert told["length"] == "300 steps, 4 epochs, batches of 2, at (512, 512) px, 2.2 hours"
    assert told["rates"] == "AdamW, learning rate 0.0001"
    assert (told["pictures"], told["trigger"]) == ("16 in 10_zorp, 10 times", "zorp")
    assert tags(about.metadata) == [("zorp", 16), ("red", 6)]
    assert told["what"].startswith("LoRA for Stable Diffusion 1.5") and "rank 2" in told["what"]
    assert lora_line(about.path) == "<lora:a:0.8>"


@given(
    st.dictionaries(
        st.sampled_from(["ss_dataset_dirs", "ss_tag_frequency", "trainpilot_made_from"]),
        TEXT | st.sampled_from(["[1]", '{"a":1}', '{"a":{"n_repeats":"x"}}', '{"files":[1]}', '{"files":{}}']),
    )
)
def test_what_a_stranger_wrote_breaks_nothing(tmp_path_factory: pytest.TempPathFactory, said: dict[str, str]) -> None:
    about = identify(lora(tmp_path_factory.mktemp("a") / "a.safetensors", said))
    assert dict(account(about))["what"]


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = lora(tmp_path / "a.safetensors", {"x_old": "1"})
    assert cli.main(["metadata", str(file), "--set", "title=A=B", "--unset", "x_old"]) == 0
    out = capsys.readouterr().out
    assert "as they should be" in out and "A=B" in out and "<lora:a:0.8>" in out
    assert cli.main(["metadata", str(file), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["metadata"]["modelspec.title"] == "A=B" and "x_old" not in told["metadata"] and told["hashes_right"]
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 1
    file.write_bytes(damaged)
    assert cli.main(["metadata", str(file), "--all"]) == 0
    assert "WRONG" in capsys.readouterr().out
    assert cli.main(["metadata", str(file), "--set", "title"]) == 2
