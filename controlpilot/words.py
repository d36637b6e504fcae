"""Numbers as people read them: bytes, durations, ages, money. The templates use these as filters (`FILTERS`).

`create_app` hands `FILTERS` to Jinja; views that make sentences call the functions.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

MISSING = "–"
_AGES = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_SIZES = ("B", "KiB", "MiB", "GiB", "TiB")


def bytes_text(size: float | None) -> str:
    """1536 -> "1.5 KiB"; a dash where nothing is known."""
    if size is None:
        return MISSING
    value, place = float(size), 0
    while abs(value) >= 1024 and place < len(_SIZES) - 1:
        value, place = value / 1024, place + 1
    return f"{value:.0f} {_SIZES[place]}" if place == 0 or abs(value) >= 100 else f"{value:.1f} {_SIZES[place]}"


def duration_text(seconds: float | None) -> str:
    """Two units at most: 45 s, 3 min 20 s, 2 h 5 min, 3 d 4 h."""
    if seconds is None:
        return MISSING
    whole = max(0, round(seconds))
    for size, word, part, part_word in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            first, rest = divmod(whole, size)
            second = rest // part
            return f"{first} {word} {second} {part_word}" if second else f"{first} {word}"
    return f"{whole} s"


def ago_text(moment: float | None, now: float | None = None) -> str:
    """Unix seconds -> "3 min ago", "in 2 h", "just now"."""
    if moment is None:
        return "never"
    age = (time.time() if now is None else now) - moment
    if abs(age) < 5:
        return "just now"
    size, unit = next((size, unit) for size, unit in _AGES if abs(age) >= size)
    words = f"{int(abs(age) // size)} {unit}"
    return f"{words} ago" if age > 0 else f"in {words}"


def iso_text(moment: float) -> str:
    """Unix seconds as `<time datetime>` wants them, in UTC."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")


def exact_text(moment: float | None) -> str:
    """The exact time for a tooltip, in UTC; the browser turns it into its own zone."""
    if moment is None:
        return ""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def count_text(number: float | None) -> str:
    """12345 -> "12 345", with thin spaces."""
    return MISSING if number is None else f"{number:,.0f}".replace(",", "\u202f")


def percent_text(share: float | None) -> str:
    """0.256 -> "26 %"."""
    return MISSING if share is None else f"{share * 100:.0f} %"


def money_text(amount: float | None, currency: str = "$") -> str:
    """Two digits after the point, three below one unit."""
    if amount is None:
        return MISSING
    return f"{currency}{amount:.3f}" if 0 < amount < 1 else f"{currency}{amount:.2f}"


FILTERS: dict[str, Callable[..., str]] = {
    "bytes": bytes_text,
    "duration": duration_text,
    "ago": ago_text,
    "iso": iso_text,
    "exact": exact_text,
    "count": count_text,
    "percent": percent_text,
    "money": money_text,
}
