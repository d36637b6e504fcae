"""Captions: what a file says, and what each option makes of it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainpilot.config.schema import Captions
from trainpilot.datasets.captions import apply, fixed, is_dynamic, read_caption
from trainpilot.errors import PilotError


def draw(text: str, seed: int = 0, step: int = 0, total: int = 100, epoch: int = 0, **rules) -> str:
    rng = np.random.default_rng(seed)
    return apply(text, Captions(**rules), rng, step=step, total_steps=total, epoch=epoch)


def draws(text: str, count: int = 200, **rules) -> list[str]:
    return [draw(text, seed, **rules) for seed in range(count)]


def test_without_options_the_first_line_is_returned_as_written():
    assert draw("a cat ,on a mat\nsecond line") == "a cat ,on a mat"


def test_prefix_and_suffix_are_joined_by_spaces():
    assert draw("cat", prefix="photo of", suffix="at night") == "photo of cat at night"
    assert draw("", prefix="photo of") == "photo of"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("red hat", "zorp, red hat"),
        ("zorp, red hat", "zorp, red hat"),
        ("Zorp in a red hat", "Zorp in a red hat"),
        ("zorpion, red hat", "zorp, zorpion, red hat"),
        ("", "zorp"),
    ],
)
def test_the_trigger_comes_first_once(text, expected):
    assert draw(text, trigger="zorp") == expected


def test_the_trigger_is_neither_shuffled_nor_dropped():
    found = draws("a, b, c", trigger="zorp", shuffle=True, tag_dropout_rate=0.5)
    assert all(caption.split(", ")[0] == "zorp" for caption in found)
    assert len(set(found)) > 10


def test_dropout_empties_about_the_given_share():
    empty = draws("a cat", 2000, dropout_rate=0.25).count("")
    # binomial: mean 500, standard deviation sqrt(2000 * 0.25 * 0.75) = 19.4; five of them
    assert abs(empty - 500) < 97


def test_every_nth_epoch_is_empty_counted_from_one():
    assert [draw("a", epoch=epoch, dropout_every_n_epochs=3) for epoch in range(6)] == ["a", "a", "", "a", "a", ""]


def test_wildcards_choose_one_and_doubled_braces_stay():
    assert set(draws("a {red|green} {{x}} cat", wildcards=True)) == {"a red {x} cat", "a green {x} cat"}
    assert draw("a {red|green} cat") == "a {red|green} cat"


def test_wildcards_choose_one_line_and_each_gets_the_prefix():
    assert set(draws("one\n\ntwo", wildcards=True, prefix="my")) == {"my one", "my two"}


def test_kept_tags_stay_in_front_and_all_others_move():
    found = draws("a, b, c, d", shuffle=True, keep_tokens=1)
    assert all(caption.startswith("a, ") for caption in found)
    assert {tuple(sorted(caption.split(", "))) for caption in found} == {("a", "b", "c", "d")}
    assert len(set(found)) == 6  # 3! orders of the others


def test_keep_tokens_separator_wins_and_never_reaches_the_encoder():
    found = draws("a, b ||| c, d ||| e", shuffle=True, keep_tokens=1, keep_tokens_separator="|||")
    assert set(found) == {"a, b, c, d, e", "a, b, d, c, e"}
    assert draw("a ||| b", keep_tokens_separator="|||") == "a, b"


def test_token_warm_up_grows_from_the_minimum_to_all():
    tags = "a, b, c, d, e"
    counts = [len(draw(tags, step=step, token_warmup_step=8).split(", ")) for step in range(10)]
    # floor(step * (5 - 1) / 8) + 1, and all from step 8 on
    assert counts == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_token_warm_up_may_be_a_share_of_the_run():
    by_share = [draw("a, b, c", step=step, total=40, token_warmup_step=0.5) for step in range(40)]
    by_step = [draw("a, b, c", step=step, token_warmup_step=20) for step in range(40)]
    assert by_share == by_step
    assert by_share[0] == "a" and by_share[20] == "a, b, c"


def test_tag_dropout_leaves_out_about_the_given_share():
    kept = sum(caption.count("x") for caption in draws(", ".join(["x"] * 10), 500, tag_dropout_rate=0.3))
    # binomial over 5000 tags: mean 3500, standard deviation sqrt(5000 * 0.3 * 0.7) = 32.4; five of them
    assert abs(kept - 3500) < 162


def test_secondary_separator_binds_tags_that_move_together():
    found = draws("red;;hat, blue;;shoes", shuffle=True, secondary_separator=";;")
    assert set(found) == {"red,hat, blue,shoes", "blue,shoes, red,hat"}


def test_dynamic_options_are_named_and_dropout_is_not_one_of_them():
    assert is_dynamic(Captions(dropout_rate=0.5, dropout_every_n_epochs=2, prefix="a", trigger="t")) == []
    everything = Captions(wildcards=True, shuffle=True, tag_dropout_rate=0.1, token_warmup_step=10)
    assert is_dynamic(everything) == ["wildcards", "token_warmup_step", "shuffle", "tag_dropout_rate"]


TAG = st.text(st.characters(whitelist_categories=["L", "N"]), min_size=1, max_size=6)
RULES = st.builds(
    Captions,
    prefix=st.sampled_from(["", "pre"]),
    suffix=st.sampled_from(["", "post"]),
    trigger=st.sampled_from(["", "zorp", "zorp, thing"]),
    dropout_rate=st.sampled_from([0.0, 0.2]),
    wildcards=st.booleans(),
    keep_tokens=st.integers(0, 4),
    token_warmup_step=st.sampled_from([0, 0.3, 50]),
    shuffle=st.booleans(),
    tag_dropout_rate=st.sampled_from([0.0, 0.4, 1.0]),
)


@given(st.lists(TAG, max_size=8), RULES, st.integers(0, 2**32), st.integers(0, 100))
@settings(max_examples=300, deadline=None)
def test_no_option_invents_or_repeats_a_tag(tags, rules, seed, step):
    text = ", ".join(tags)
    first = apply(text, rules, np.random.default_rng(seed), step=step, total_steps=100, epoch=0)
    again = apply(text, rules, np.random.default_rng(seed), step=step, total_steps=100, epoch=0)
    assert first == again
    words = first.replace(",", " ").split()
    allowed = [*tags, *rules.prefix.split(), *rules.suffix.split(), *rules.trigger.replace(",", " ").split()]
    assert all(words.count(word) <= allowed.count(word) for word in words)
    if not is_dynamic(rules):
        assert first in ("", fixed(text, rules))


@pytest.mark.parametrize(
    ("data", "text", "note"),
    [
        ("Größe".encode(), "Größe", None),
        ("Größe".encode("utf-8-sig"), "Größe", None),
        ("Größe".encode("utf-16"), "Größe", "utf-16"),
        ("plain".encode("utf-16-le"), "plain", "UTF-16"),
        ("Größe".encode("cp1252"), "Größe", "Windows-1252"),
        (b"caf\xe9 \x81", "café \x81", "Latin-1"),
        (b"", "", "empty"),
        (b" \r\n", "", "empty"),
        (b"one\r\ntwo\r\n", "one\ntwo", None),
    ],
)
def test_caption_files_are_decoded_and_oddities_are_said(tmp_path, data, text, note):
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    found, said = read_caption(path)
    assert found == text
    assert said is None if note is None else note in said


def test_strict_refuses_other_encodings_but_not_an_empty_caption(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("Größe".encode("cp1252"))
    with pytest.raises(PilotError) as caught:
        read_caption(path, strict=True)
    assert str(path) in caught.value.where and "UTF-8" in caught.value.allowed
    path.write_bytes(b"")
    assert read_caption(path, strict=True)[0] == ""


def test_what_is_no_text_is_refused(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\x89PNG\0\xff\xfe\0" * 10)
    with pytest.raises(PilotError):
        read_caption(path)
    path.write_bytes(b"a" * ((1 << 20) + 1))
    with pytest.raises(PilotError):
        read_caption(path)
