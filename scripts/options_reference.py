"""Writes docs/options.md from the declarations of the settings: python scripts/options_reference.py

A test compares the page with what this would write, so it is never behind the code.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from trainpilot.config.describe import allowed
from trainpilot.config.fields import Section
from trainpilot.config.schema import Dataset, RunConfig
from trainpilot.families.card import cards

PAGE = Path(__file__).resolve().parent.parent / "docs" / "options.md"
_HEAD = """# Every setting

A setting is written `[section]` and `key = value` in a configuration file, and `--set section.key=value` on the command
line, which wins over the file. In the panel they are step three of the wizard, under Custom. What a model family does
not know is said by the plan and has no effect; the last column names those families.

Steps are optimizer updates, sizes are pixels (width, height), rates are fractions of one. "none" means that the value
follows from the family or the data, and the plan prints what was decided and why.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *_sections(RunConfig, "")]) + "\n"


def _sections(section: type[Section], prefix: str) -> Iterator[str]:
    plain = [(name, info) for name, info in section.model_fields.items() if not _tables(name, info)]
    if prefix:
        note = " A run may have several: one `[[datasets]]` for each folder." if section is Dataset else ""
        yield f"## {prefix}\n\n{(section.__doc__ or '').strip()}{note}\n"
        yield "| setting | allowed | default | what it does | without effect on |\n|---|---|---|---|---|"
        yield from (_row(f"{prefix}.{name}", name, info) for name, info in plain)
        yield ""
    for name, info in section.model_fields.items():
        if inner := _tables(name, info):
            yield from _sections(inner, f"{prefix}.{name}" if prefix else name)


def _tables(name: str, info: FieldInfo) -> type[Section] | None:
    if name == "datasets":
        return Dataset
    inner = info.annotation
    return inner if isinstance(inner, type) and issubclass(inner, Section) else None


def _row(path: str, name: str, info: FieldInfo) -> str:
    without = [card.label for card in cards().values() if path in card.no_effect]
    cells = [f"`{name}`", allowed(info), _default(info), info.description or "", ", ".join(without)]
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _default(info: FieldInfo) -> str:
    value = info.get_default(call_default_factory=True, validated_data={})
    if value is None or value is PydanticUndefined:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, dict)) and not value:
        return "empty"
    return f"{value:g}" if isinstance(value, float) else str(value) or "empty"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
    print(f"{PAGE}: {page().count(chr(10))} lines")
