"""Stage `tokenizer`: a byte-level BPE in CLIP's format with about a thousand entries, so that any prompt can be typed.

256 byte symbols, the same with `</w>`, merges learnt from the world's captions and common words, two specials.
"""

import json
from pathlib import Path
from random import Random

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer
from transformers.models.clip.tokenization_clip import VOCAB_FILES_NAMES

from . import scenes

ENTRIES = 1024
START, END = "<|startoftext|>", "<|endoftext|>"
CONTEXT = 77
COMMON_WORDS = (
    "the and with one two three small little big tall round flat bright dark light simple cute happy sad smiling "
    "photo picture drawing painting sketch portrait style of in on at by for to from over under near beside behind "
    "character creature monster robot cat dog bird fish tree flower house car boat sun moon sky sea sand forest city "
    "night day morning evening summer winter snow rain face eyes nose mouth hair hat body legs arms wings tail stripes "
    "striped dotted colourful brown cyan silver gold beige standing sitting running flying looking wearing holding "
    "detailed high quality best masterpiece background foreground front side view close up wide shot white black gray"
).split()


def _corpus(random: Random, captions: int = 20_000) -> list[str]:
    lines = [scenes.caption(scenes.random_scene(random), random, empty=0.0) for _ in range(captions)]
    # Common words count as much as rare caption words: often enough to be merged, too rarely to crowd those out.
    return lines + [word for word in COMMON_WORDS for _ in range(60)]


def _byte_symbols() -> list[str]:
    """The 256 printable stand-ins of bytes, in the order in which CLIP's vocabulary begins."""
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def build(folder: Path) -> CLIPTokenizer:
    """Learn the merges and write the tokenizer into `folder` (tokenizer.json, and vocab.json with merges.txt)."""
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words, behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    symbols = _byte_symbols()
    alphabet = symbols + [symbol + "</w>" for symbol in symbols]
    trainer = trainers.BpeTrainer(
        vocab_size=ENTRIES - 2,
        end_of_word_suffix="</w>",
        initial_alphabet=symbols,
        show_progress=False,
        min_frequency=2,
    )
    learner.train_from_iterator(_corpus(Random("tokenizer")), trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    merges = merges[: ENTRIES - 2 - len(alphabet)]
    vocabulary = {token: number for number, token in enumerate(alphabet)}
    for left, right in merges:
        vocabulary.setdefault(left + right, len(vocabulary))
    vocabulary[START] = len(vocabulary)
    vocabulary[END] = len(vocabulary)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / VOCAB_FILES_NAMES["vocab_file"]).write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    (folder / VOCAB_FILES_NAMES["merges_file"]).write_text(
        "#version: 0.2\n" + "".join(f"{left} {right}\n" for left, right in merges), encoding="utf-8"
    )
    tokenizer = CLIPTokenizer(
        vocab=vocabulary,
        merges=merges,
        bos_token=START,
        eos_token=END,
        unk_token=END,
        pad_token=END,
        model_max_length=CONTEXT,
    )
    tokenizer.save_pretrained(folder)
    return tokenizer
