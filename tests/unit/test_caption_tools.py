"""Editing all captions of a dataset: nothing else changes, undo restores every byte, and a death in between is no loss.

Pictures are empty files here: nothing that is tested decodes one.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from trainpilot import cli
from trainpilot.datasets import caption_edits, caption_files, caption_journal, caption_sets, caption_tags, caption_tools
from trainpilot.datasets.caption_edits import replace
from trainpilot.datasets.caption_journal import Journal
from trainpilot.datasets.captions import read_caption
from trainpilot.errors import ExitCode, PilotError

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "cp1252")
LAYOUTS = ("side by side", "images and captions", "metadata")

letters = st.text(st.characters(codec="cp1252", exclude_categories=["C"]), max_size=12)
tag = st.one_of(letters, st.sampled_from(["zorp", "blue hair", "Zorp", "", " ", "1girl", "long_hair", "^_^", "桜"]))
line = st.lists(tag, max_size=5).map(", ".join)
caption = st.lists(line, min_size=1, max_size=3).map("\n".join)
word = letters.filter(lambda text: text.strip(" ,\xa0\xad") != "")
operation = st.one_of(
    st.builds(lambda w: ("add-trigger", {"word": w}), word),
    st.builds(lambda w: ("remove-trigger", {"word": w}), word),
    st.builds(lambda w: ("prefix", {"text": w}), word),
    st.builds(lambda w: ("suffix", {"text": w, "joiner": " "}), word),
    st.builds(lambda a, b: ("replace", {"find": a, "with": b}), word, letters),
    st.builds(
        lambda b: ("replace", {"find": "[aeiou]+", "with": b, "pattern": True}), st.sampled_from(["", "桜", "_"])
    ),
    st.builds(lambda tags: ("prune", {"tags": tags}), st.lists(word, min_size=1, max_size=3)),
    st.builds(lambda yes: ("tidy", {"underscores": yes}), st.booleans()),
)


@contextmanager
def dataset(captions: list[str | None], layout: str, encoding: str = "utf-8", ends: str = "\n") -> Iterator[Path]:
    """A folder with a picture for each caption (None: it has none), in that layout."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve() / "mine"
        pictures = root if layout == "side by side" else root / "images"
        pictures.mkdir(parents=True)
        texts = root / "captions" if layout == "images and captions" else pictures
        texts.mkdir(exist_ok=True)
        rows = []
        for number, text in enumerate(captions):
            (pictures / f"p{number:02d}.png").write_bytes(b"")
            if layout == "metadata":
                rows.append({"file_name": f"p{number:02d}.png", "text": text, "nsfw": number})
            elif text is not None:
                data = f"{text}\n".replace("\n", ends).encode(encoding, "replace")
                (texts / f"p{number:02d}.txt").write_bytes(data)
        if rows:
            made = ends.join(json.dumps(row, ensure_ascii=number % 2 == 0) for number, row in enumerate(rows))
            (root / "metadata.jsonl").write_bytes(made.encode("utf-8-sig" if encoding == "utf-8-sig" else "utf-8"))
        yield root


def state(root: Path) -> dict[str, bytes]:
    """Every file that is a person's: the history's own are left out."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and caption_journal.FOLDER not in path.parts
    }


def checked(name: str, params: dict[str, object]) -> tuple[caption_edits.Operation, BaseModel]:
    found = caption_edits.find(name)
    return found, caption_edits.check(found, params)


def changed(root: Path, name: str, **params: object) -> caption_tools.Preview:
    files = caption_files.read(root)
    wanted = caption_tools.preview(files, *checked(name, params))
    caption_tools.apply(files, wanted)
    return wanted


def texts(root: Path) -> list[str]:
    return list(caption_files.read(root).texts.values())


# --- what holds for every operation -----------------------------------------------------------------------------------


@settings(max_examples=30)
@given(
    captions=st.lists(st.one_of(st.none(), caption), min_size=1, max_size=5),
    layout=st.sampled_from(LAYOUTS),
    encoding=st.sampled_from(ENCODINGS),
    ends=st.sampled_from(["\n", "\r\n"]),
    edits=st.lists(operation, min_size=1, max_size=3),
)
def test_no_caption_is_lost_and_undo_restores_every_byte(
    captions: list[str | None], layout: str, encoding: str, ends: str, edits: list[tuple[str, dict[str, object]]]
) -> None:
    with dataset(captions, layout, encoding, ends) as root:
        states = [state(root)]
        for name, params in edits:
            before = caption_files.read(root)
            wanted = caption_tools.preview(before, *checked(name, params))
            edit = caption_tools.apply(before, wanted)
            after = caption_files.read(root)
            expected = before.texts | {change.picture: change.after for change in wanted.changes}
            assert after.texts == {picture: caption_files.normal(text or "") for picture, text in expected.items()}
            assert set(state(root)) == set(states[-1])
            if edit:
                states.append(state(root))
        journal = Journal(root)
        for earlier in reversed(states[:-1]):
            journal.undo()
            assert state(root) == earlier
        for later in states[1:]:
            journal.redo()
            assert state(root) == later


@settings(max_examples=12)
@given(
    captions=st.lists(caption, min_size=2, max_size=6),
    layout=st.sampled_from(LAYOUTS),
    survives=st.integers(0, 6),
)
def test_a_process_that_dies_in_the_middle_loses_nothing(captions: list[str], layout: str, survives: int) -> None:
    with dataset(captions, layout) as root:
        before = state(root)
        files = caption_files.read(root)
        wanted = caption_tools.preview(files, *checked("prefix", {"text": "photo"}))
        after = {str(one.file.relative_to(root)): one.after for one in wanted.replacements}
        child = os.fork()
        if child == 0:  # a real death: nothing of Python's runs after it
            _dying_after(survives)
            caption_tools.apply(files, wanted)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        died = os.WIFSIGNALED(status)
        assert died == (survives < len(after))
        torn = {name for name, data in state(root).items() if data != before[name]}
        assert all(state(root)[name] == after[name] for name in torn)
        assert len(torn) == min(survives, len(after))
        assert Journal(root).undo().files == len(torn)
        assert state(root) == before


def _dying_after(replacements: int) -> None:
    put: Callable[[Path, bytes | None], None] = caption_journal._put
    done = 0

    def counted(file: Path, data: bytes | None) -> None:
        nonlocal done
        if done == replacements:
            os.kill(os.getpid(), signal.SIGKILL)
        done += 1
        put(file, data)

    caption_journal._put = counted  # type: ignore[assignment]


@pytest.mark.parametrize("cut", [1, 10, 40])
def test_a_torn_journal_means_that_its_file_was_not_touched(cut: int) -> None:
    with dataset(["a", "b"], "side by side") as root:
        before = state(root)
        changed(root, "suffix", text="x")
        journal = next((root / ".captions" / "edits").iterdir())
        Journal(root).undo()
        journal = next((root / ".captions" / "edits").iterdir())
        journal.rename(journal.with_name("000001.jsonl"))
        journal = journal.with_name("000001.jsonl")
        journal.write_bytes(journal.read_bytes()[:-cut])
        Journal(root).undo()
        assert state(root) == before


# --- what each operation does -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "params", "before", "after"),
    [
        ("add-trigger", {"word": "zorp"}, "a hat, red", "zorp, a hat, red"),
        ("add-trigger", {"word": "zorp"}, "a hat, Zorp, red", "zorp, a hat, red"),
        ("add-trigger", {"word": "zorp"}, "zorp on a hill", "zorp on a hill"),
        ("add-trigger", {"word": "zorp"}, "zorpian", "zorp, zorpian"),
        ("add-trigger", {"word": "zorp"}, "", "zorp"),
        ("add-trigger", {"word": "zorp"}, "red\nblue", "zorp, red\nzorp, blue"),
        ("add-trigger", {"word": "zorp, 1girl"}, "1girl, red", "zorp, 1girl, red"),
        ("remove-trigger", {"word": "zorp"}, "Zorp, red", "red"),
        ("remove-trigger", {"word": "zorp"}, "red, zorp", "red"),
        ("remove-trigger", {"word": "zorp"}, "zorp on a hill", "on a hill"),
        ("remove-trigger", {"word": "zorp"}, "zorpian", "zorpian"),
        ("prefix", {"text": "a photo of", "joiner": " "}, "a cat", "a photo of a cat"),
        ("suffix", {"text": "sketch"}, "a cat", "a cat, sketch"),
        ("replace", {"find": "a.c", "with": "x"}, "a.c abc", "x abc"),
        ("replace", {"find": "a.c", "with": "x", "pattern": True}, "a.c abc", "x x"),
        ("replace", {"find": "cat", "with": "dog", "whole_words": True}, "cat catalogue", "dog catalogue"),
        ("replace", {"find": "CAT", "with": r"\1", "ignore_case": True}, "a cat", r"a \1"),
        ("replace", {"find": r"(\w+) hair", "with": r"hair: \1", "pattern": True}, "red hair", "hair: red"),
        ("prune", {"tags": ["* hair", "smile"]}, "red, Blue Hair, smile, smiles", "red, smiles"),
        ("prune", {"tags": ["[a]"]}, "a, [a]", "a"),
        ("tidy", {}, "a,,  b , A,b", "a, b"),
        ("tidy", {"underscores": True}, "long_hair, ^_^, o_o, hatsune_miku_(vocaloid)",
         "long hair, ^_^, o_o, hatsune miku_(vocaloid)"),
    ],
)  # fmt: skip
def test_an_operation_does_what_its_name_says(name: str, params: dict[str, object], before: str, after: str) -> None:
    found, values = checked(name, params)
    result = found.edit({"p": before}, values)
    assert result == ({"p": after} if after != before else {})


def test_every_operation_can_be_done_from_the_command_line() -> None:
    """Each example in the help is one that the parser takes."""
    for found in caption_edits.operations().values():
        import shlex

        parser_line = ["captions", "nowhere", *shlex.split(found.EXAMPLE), "--json"]
        assert cli.main(parser_line) == ExitCode.BAD_INPUT  # the dataset is missing; the line itself was understood


def test_a_catastrophic_pattern_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replace, "PATIENCE", 0.2)
    found, values = checked("replace", {"find": "^(a|aa)+$", "with": "", "pattern": True})
    begun = time.process_time()
    with pytest.raises(PilotError, match="takes more than"):
        found.edit({f"p{number}": "a" * 80 + "b" for number in range(20)}, values)
    assert time.process_time() - begun < 2


@pytest.mark.parametrize(
    ("params", "where"),
    [
        ({"find": "(", "pattern": True}, "find"),
        ({"find": "a", "with": r"\7", "pattern": True}, "with"),
        ({"find": "a", "with": "x" * 2000}, "with"),
    ],
)
def test_a_wrong_pattern_is_refused(params: dict[str, object], where: str) -> None:
    found, values = checked("replace", params)
    with pytest.raises(PilotError) as refused:
        found.edit({"p": "a" * 1000}, values)
    assert refused.value.where == where


@pytest.mark.parametrize("word", ["", " ", ",", "a\nb", "a\0b", "x" * 501])
def test_a_trigger_is_a_word(word: str) -> None:
    with pytest.raises(PilotError, match=r"add-trigger\.word"):
        checked("add-trigger", {"word": word})


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
def test_an_encoding_is_kept_where_it_can_hold_the_text(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    path.write_bytes("  caf\xe9\r\nsecond\r\n".encode(encoding) if encoding != "utf-16-le" else
                     "  cafe\r\nsecond\r\n".encode(encoding))  # fmt: skip
    made, note = caption_files.with_text(path, path.read_bytes(), "other\nline")
    assert note is None
    assert made == "  other\r\nline\r\n".encode(encoding)
    made, note = caption_files.with_text(path, path.read_bytes(), "桜")
    path.write_bytes(made)
    assert read_caption(path)[0] == "桜"
    assert (note is None) == (encoding in ("utf-8-sig", "utf-16"))


def test_windows_1252_that_would_read_back_as_utf_8_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    made, note = caption_files.with_text(path, "caf\xe9".encode("cp1252"), "\xc3\xa9")
    path.write_bytes(made)
    assert note is not None
    assert read_caption(path)[0] == "\xc3\xa9"


@given(text=caption, other=st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_any_text_reads_back_or_is_refused(text: str, other: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p.txt"
        wanted = caption_files.normal(other)
        try:
            made, _ = caption_files.with_text(path, text.encode(), wanted)
        except PilotError:
            assert "\0" in wanted
            return
        path.write_bytes(made)
        assert read_caption(path)[0] == wanted


def test_only_the_caption_of_a_row_changes(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).write_bytes(b"")
    rows = [
        r'{"text" :"old \"one\"","file_name":"a.png", "more": {"text": "inner"}}' + "\r\n",
        "\n",
        '{ "file_name": "b.png", "text": null, "k": "é\u2009"}\n',
        '{"file_name": "a.png", "text": "a second row of the same picture"}\n',
        r'{"file_name": "c.png", "text": "first", "text": "last \ud83d\ude00"}',
    ]
    (tmp_path / "metadata.jsonl").write_bytes(b"\xef\xbb\xbf" + "".join(rows).encode())
    changed(tmp_path, "prefix", text="neu é\u2028"[:5])
    after = (tmp_path / "metadata.jsonl").read_bytes().decode("utf-8-sig")
    expected = [
        rows[0].replace(r'"old \"one\""', r'"neu \u00e9, old \"one\""'),
        *rows[1:4],
        rows[4].replace(r'"last \ud83d\ude00"', r'"neu \u00e9, last \ud83d\ude00"'),
    ]
    assert after == "".join(expected)


def test_a_new_caption_goes_where_the_others_are() -> None:
    for layout, place in (("side by side", "p01.txt"), ("images and captions", "captions/p01.txt")):
        with dataset(["a", None], layout) as root:
            files = caption_files.read(root)
            picture = list(files.places)[1]
            caption_tools.apply(files, caption_tools.of_texts(files, "test", {picture: "new"}))
            assert (root / place).read_text() == "new\n"
            Journal(root).undo()
            assert not (root / place).exists()


def test_the_inner_folder_may_be_given() -> None:
    with dataset(["a", None], "images and captions") as root:
        before = state(root)
        files = caption_files.read(root / "images")
        assert (files.root, files.texts) == (root, {"images/p00.png": "a"})
        changed(root / "images", "suffix", text="x")
        assert (root / "captions" / "p00.txt").read_text() == "a, x\n"
        Journal(root).undo()
        assert state(root) == before


def test_a_link_out_of_the_dataset_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text("theirs")
    with dataset(["a"], "side by side") as root:
        (root / "p00.txt").unlink()
        (root / "p00.txt").symlink_to(outside)
        with pytest.raises(PilotError, match="a link"):
            changed(root, "suffix", text="x")
    assert outside.read_text() == "theirs"


@pytest.mark.parametrize("name", ["../outside.txt", "/etc/motd", ".captions/sets/a.jsonl", "sub/../../outside.txt"])
def test_a_journal_from_elsewhere_cannot_write_outside(name: str, tmp_path: Path) -> None:
    root = tmp_path / "mine"
    folder = root / ".captions" / "edits"
    folder.mkdir(parents=True)
    rows = [{"schema": 1, "t": 0, "about": "evil"}, {"file": name, "before": "ZXZpbA==", "after": None}]
    (folder / "000001.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(PilotError, match=r"a record of|a link, or a file outside"):
        Journal(root).undo()
    assert not (tmp_path / "outside.txt").exists()


def test_what_a_person_changed_since_is_not_undone() -> None:
    with dataset(["a", "b"], "side by side") as root:
        changed(root, "suffix", text="x")
        (root / "p00.txt").write_text("mine")
        with pytest.raises(PilotError, match=r"p00\.txt"):
            Journal(root).undo()
        assert (root / "p01.txt").read_text() == "b, x\n"
        turned = Journal(root).undo(leave_changed=True)
        assert (turned.files, turned.left) == (1, ("p00.txt",))
        assert [(root / f"p0{n}.txt").read_text() for n in (0, 1)] == ["mine", "b\n"]


def test_a_preview_that_is_out_of_date_is_refused() -> None:
    with dataset(["a", "b"], "side by side") as root:
        files = caption_files.read(root)
        wanted = caption_tools.preview(files, *checked("suffix", {"text": "x"}))
        (root / "p01.txt").write_text("mine")
        with pytest.raises(PilotError, match="changed meanwhile"):
            caption_tools.apply(files, wanted)
        fresh = caption_files.read(root)
        with pytest.raises(PilotError, match="changed since the preview"):
            caption_tools.apply(fresh, caption_tools.preview(fresh, *checked("suffix", {"text": "x"})), wanted.seen)
        assert texts(root) == ["a", "mine"]


def test_two_edits_at_once_are_refused() -> None:
    with (
        dataset(["a"], "side by side") as root,
        Journal(root).held(),
        pytest.raises(PilotError, match="another edit or captioner"),
    ):
        changed(root, "suffix", text="x")


# --- sets and tags ----------------------------------------------------------------------------------------------------


def test_a_set_comes_back_as_it_was_and_can_be_undone() -> None:
    with dataset(["a", None, "c"], "side by side", "utf-16") as root:
        first = state(root)
        caption_sets.save(root, "A", caption_sets.present(caption_files.read(root)))
        files = caption_files.read(root)
        caption_tools.apply(files, caption_tools.of_texts(files, "b", dict.fromkeys(files.places, "other")))
        second = state(root)
        caption_sets.save(root, "B", caption_sets.present(caption_files.read(root)))
        files = caption_files.read(root)
        wanted, notes = caption_sets.changes(files, caption_sets.read(root, "A"))
        caption_tools.apply(files, caption_tools.of_texts(files, "A", wanted))
        assert (state(root), notes) == (first, [])
        Journal(root).undo()
        assert state(root) == second
        both = caption_sets.as_lines([caption_sets.read(root, "A"), caption_sets.read(root, "B")])
        assert list(both.values()) == ["a\nother", "other", "c\nother"]
        with pytest.raises(PilotError, match="never replaced"):
            caption_sets.save(root, "A", {})


@pytest.mark.parametrize("name", ["", "../a", "a/b", ".hidden", "x" * 65, "now"])
def test_the_name_of_a_set_is_a_plain_one(name: str, tmp_path: Path) -> None:
    with pytest.raises(PilotError):
        caption_sets.save(tmp_path, name, {"a.png": "a"})
    assert list(tmp_path.iterdir()) == []


@given(st.lists(st.lists(st.sampled_from("abcDd"), max_size=6).map(", ".join), min_size=1, max_size=8))
def test_counts_are_those_of_the_captions(captions: list[str]) -> None:
    sets = [{part.strip().casefold() for part in text.split(",") if part.strip()} for text in captions]
    for found in caption_tags.count(captions):
        assert found.captions == sum(found.tag.casefold() in own for own in sets)
    for pair in caption_tags.together(captions, least=1):
        assert pair.captions == sum({pair.one, pair.other} <= own for own in sets)
        assert 0 < pair.share <= 1


def test_what_is_in_most_captions_is_suggested_and_the_trigger_is_not() -> None:
    captions = {f"p{n}": f"zorp, blue eyes, {'indoors' if n % 2 else 'a hill'}, smile {n}" for n in range(10)}
    found = {one.tag: one.reason for one in caption_tags.suggest(captions, "zorp")}
    assert set(found) == {"blue eyes"}
    assert "10 of 10" in found["blue eyes"]
    assert {one.tag for one in caption_tags.suggest(captions)} == {"zorp", "blue eyes"}


def test_the_verb_edits_shows_and_undoes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with dataset(["a", "zorp, b", None], "side by side") as root:
        before = state(root)
        line = ["captions", str(root), "add-trigger", "zorp"]
        assert cli.main([*line, "--dry-run"]) == 0
        out = capsys.readouterr().out
        assert "- a\n+ zorp, a\n" in out and "1 of 2 captions, 1 pictures have none" in out
        assert state(root) == before
        assert cli.main([*line, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["changes"] == [{"picture": "p00.png", "before": "a", "after": "zorp, a"}]
        assert cli.main(["captions", str(root), "history", "--json"]) == 0
        assert [one["about"] for one in json.loads(capsys.readouterr().out)] == ["trigger zorp added"]
        assert cli.main(["captions", str(root), "undo"]) == 0
        assert state(root) == before
        assert cli.main(["captions", str(root), "undo"]) == ExitCode.BAD_INPUT
