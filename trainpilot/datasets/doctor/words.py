"""Words that checks of captions look for, in English: opinions, permanent traits, and everyday words as triggers."""

from __future__ import annotations

OPINIONS = (
    "beautiful pretty gorgeous stunning handsome attractive lovely cute adorable charming elegant sexy ugly amazing "
    "awesome incredible wonderful fantastic breathtaking magnificent marvelous marvellous perfect nice great good best "
    "excellent epic iconic masterpiece majestic spectacular interesting impressive captivating mesmerizing enchanting "
    "delightful exquisite flawless"
).split()

_COLOURS = {
    "black": "black", "brown": "brown", "brunette": "brown", "dark brown": "brown", "light brown": "brown",
    "blonde": "blond", "blond": "blond", "golden": "blond", "red": "red", "ginger": "red", "auburn": "red",
    "grey": "grey", "gray": "grey", "white": "white", "silver": "grey", "blue": "blue", "green": "green",
    "pink": "pink", "purple": "purple", "hazel": "hazel", "amber": "amber",
}  # fmt: skip

# What it is called in a finding -> (the noun, words before it -> the value they mean).
TRAITS: dict[str, tuple[str, dict[str, str]]] = {
    "hair colour": ("hair", _COLOURS),
    "hair length": ("hair", {"long": "long", "short": "short", "medium": "medium", "shoulder-length": "medium"}),
    "eye colour": ("eyes?", _COLOURS),
    "skin": ("skin", {"pale": "pale", "fair": "pale", "dark": "dark", "tan": "tan", "tanned": "tan", "brown": "dark",
                      "olive": "olive"}),
}  # fmt: skip

EVERYDAY = frozenset(
    "man woman person girl boy people child baby dog cat horse bird animal face portrait photo picture image style art "
    "painting drawing car house tree flower room street city mountain object thing toy bag shoe shirt dress hat camera "
    "red green blue black white anna emma john james mary".split()
)
