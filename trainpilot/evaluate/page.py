"""The page of an evaluation: one file that opens from disk, in both themes, without a script. Used by `record`.

Its frame is `evaluation.html` beside this module; the style is that of the run's report, whose frame has it inline.
"""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from PIL import Image

from trainpilot import __version__
from trainpilot.evaluate import plots
from trainpilot.evaluate.choosing import Cell, Scored
from trainpilot.evaluate.evaluation import Evaluated
from trainpilot.evaluate.metrics import Finding, metrics

SIDE = 384  # px of a picture's longer side in the page, at most
SMALL = 128  # smaller pictures are shown pixel by pixel
MOST_PAIRS = 6
_STATES = {
    "clear": ("good", "Clear winner"),
    "close": ("good", "A winner among equals"),
    "none": ("warn", "No clear winner"),
    "nothing learned": ("bad", "Nothing learned yet"),
    "undertrained": ("warn", "Undertrained"),
    "fits": ("good", "Fits"),
    "overtrained": ("warn", "Overtrained"),
}
_SIGNS = {"good": "M3 8.5l3.2 3.2L13 5", "warn": "M8 3v6M8 12v.5", "bad": "M4 4l8 8M12 4l-8 8"}


def page(found: Evaluated, document: Mapping[str, Any]) -> str:
    """The whole page. document: the evaluation's JSON, whose words it repeats."""
    choice = found.choice
    assert choice is not None
    frame = Template(Path(__file__).with_name("evaluation.html").read_text(encoding="utf-8"))
    when = time.gmtime(document["made_at"])
    return frame.substitute(
        style=_style(),
        name=escape(found.run.name),
        state=_state(choice.verdict),
        base=escape(found.base.path.name),
        protocol=escape(found.protocol.title or found.protocol.name),
        reason=escape(choice.reason),
        reference=f"{found.protocol.reference:g}",
        figures=_figures(found, document),
        pictures=_pictures(found, _columns(found)),
        table=_table(found),
        balance=plots.balance(found.cells, choice),
        course=plots.course(found.at_reference, choice),
        advice=escape(document["advice"]),
        diagnoses="".join(_diagnosis(one) for one in document["diagnoses"]),
        nearest_note=escape(metrics()["memorisation"].ABOUT.cannot_tell),
        nearest=_nearest(found),
        against=_against(found),
        interval=escape(document["interval"]),
        numbers=_numbers(found),
        metrics=_metrics(found),
        notes="".join(f"<li>{escape(note)}</li>" for note in _method(found, document)),
        made=f'<time datetime="{time.strftime("%Y-%m-%dT%H:%M:%SZ", when)}">'
        f"{time.strftime('%d %B %Y, %H:%M UTC', when).lstrip('0')}</time>",
        version=escape(__version__),
    )


def _style() -> str:
    """The style of the run's report: said once, there."""
    report = Path(__file__).with_name("report.html").read_text(encoding="utf-8")
    return report.partition("<style>")[2].partition("</style>")[0]


def _state(name: str) -> str:
    kind, words = _STATES[name]
    return f'<span class="state {kind}"><svg viewBox="0 0 16 16"><path d="{_SIGNS[kind]}"/></svg>{words}</span>'


def _figures(found: Evaluated, document: Mapping[str, Any]) -> str:
    choice, best = found.choice, document["recommendation"]
    assert choice is not None
    cell = choice.best.cell
    as_good = ", ".join(f"{strength:g}" for strength in best["strengths_as_good"] if strength != best["strength"])
    alike, follows = cell.estimate(choice.likeness_by), cell.estimate("flexibility")
    assert alike is not None and follows is not None
    known = [
        ("Checkpoint", cell.checkpoint, f"{len(found.checkpoints)} judged"),
        ("Strength", f"{best['strength']:g}", f"{as_good} as good" if as_good else "the best by itself"),
        ("Likeness", f"{alike.mean:.2f}", f"± {alike.half:.2f}; 1 is the dataset"),
        ("Flexibility", f"{follows.mean:.0%}", f"± {100 * follows.half:.0f} points; 100% is the base"),
        (
            "To copy",
            f"{best['strength']:g}",
            f"<lora:{Path(best['file'] or cell.checkpoint).stem}:{best['strength']:g}>",
        ),
    ]
    return "".join(
        f"<div><dt>{escape(name)}</dt><dd><b>{escape(value)}</b><span>{escape(note)}</span></dd></div>"
        for name, value, note in known
    )


# --- pictures ---------------------------------------------------------------------------------------------------------


def _columns(found: Evaluated) -> list[tuple[str, str]]:
    """(label, name of the pictures): base, first, recommended and last checkpoint, as far as they differ."""
    assert found.choice is not None
    best, ends = found.choice.best.cell, found.at_reference
    columns = [("Base", "base")]
    columns += [(cell.name, cell.name) for cell in ends[:1]]
    columns += [(f"{best.name}, recommended", best.name)]
    columns += [(cell.name, cell.name) for cell in ends[-1:]]
    return [column for place, column in enumerate(columns) if column[1] not in [name for _, name in columns[:place]]]


def _pictures(found: Evaluated, columns: Sequence[tuple[str, str]]) -> str:
    seed = found.protocol.seeds[0]
    rows = []
    for asked in found.asked:
        figures = "".join(
            _figure(found.shown[name, asked.number, seed], f"{asked.text}: {label}", label)
            for label, name in columns
            if (name, asked.number, seed) in found.shown
        )
        rows.append(
            f'<article><h3>{escape(asked.text)}</h3><p class="note">{escape(asked.group)} · seed {seed}</p>'
            f'<div class="across">{figures}</div></article>'
        )
    return "".join(rows)


def _figure(file: Path, alt: str, caption: str) -> str:
    return f"<figure>{_image(file, alt)}<figcaption>{escape(caption)}</figcaption></figure>"


@lru_cache(maxsize=512)
def _data(file: Path) -> tuple[str, int, int]:
    """A picture for the page: small ones as they are, larger ones as JPEG of at most SIDE px."""
    with Image.open(file) as opened:
        image = opened.convert("RGB")
    buffer = io.BytesIO()
    if max(image.size) <= SMALL:
        image.save(buffer, format="PNG", optimize=True)
        kind = "png"
    else:
        image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        image.save(buffer, format="JPEG", quality=88)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}", *image.size


def _image(file: Path, alt: str) -> str:
    data, width, height = _data(file)
    small = ' style="image-rendering:pixelated"' if max(width, height) <= SMALL else ""
    return f'<img src="{data}" width="{width}" height="{height}" alt="{escape(alt)}"{small}>'


def _nearest(found: Evaluated) -> str:
    """The nearest pairs of the recommended checkpoint, then every copy of the others."""
    assert found.choice is not None
    known = found.findings.get("memorisation", {})
    best = found.choice.best.cell.checkpoint
    shown = [(best, one) for one in known.get(best, [])[:MOST_PAIRS]]
    shown += [
        (name, one) for name, some in known.items() for one in some if one.alarming and name not in (best, "base")
    ][:MOST_PAIRS]
    if not shown:
        return '<p class="note">No picture was compared.</p>'
    return f'<div class="pairs">{"".join(_pair(found, name, one) for name, one in shown)}</div>'


def _pair(found: Evaluated, name: str, one: Finding) -> str:
    words = "a copy" if one.alarming else "its own picture"
    return (
        f'<div><div class="couple">{_image(one.picture.file, "painted")}'
        f"{_image(one.other.file, 'training picture')}</div>"
        f"<p>{escape(name)} · {one.value:.2f}, {words}<br>{escape(found.asked[one.picture.prompt].text)}<br>"
        f"{escape(one.other.file.name)}</p></div>"
    )


# --- numbers ----------------------------------------------------------------------------------------------------------


def _table(found: Evaluated) -> str:
    """Checkpoints down, strengths across; a cell's ground is the stronger the higher its score."""
    assert found.choice is not None
    strengths = sorted({cell.strength for cell in found.cells})
    known = {(one.cell.checkpoint, one.cell.strength): one for one in found.choice.scored}
    head = "".join(f"<th scope=col>{strength:g}</th>" for strength in strengths)
    rows = []
    for candidate in found.checkpoints:
        cells = "".join(_score(known.get((candidate.name, strength)), found) for strength in strengths)
        rows.append(f"<tr><th scope=row>{escape(candidate.name)}</th>{cells}</tr>")
    return f'<table class="grid"><thead><tr><th></th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def _score(one: Scored | None, found: Evaluated) -> str:
    if one is None:
        return "<td></td>"
    assert found.choice is not None
    best = one is found.choice.best or one.cell is found.choice.best.cell
    share = round(34 * max(0.0, min(1.0, one.score.mean)))
    mark = "" if best or not one.tied else " ≈"
    ground = f"background:color-mix(in srgb, var(--accent) {share}%, transparent)"
    return (
        f'<td{" class=best" if best else ""} style="{ground}">'
        f"{one.score.mean:.2f} <small>± {one.score.half:.2f}{mark}</small></td>"
    )


def _numbers(found: Evaluated) -> str:
    names = [name for name in metrics() if any(name in cell.readings for cell in found.cells)]
    head = "".join(f"<th scope=col>{escape(metrics()[name].ABOUT.label)}</th>" for name in names)
    ordered = sorted(found.cells, key=lambda cell: (cell.step or 0, cell.strength))
    rows = "".join(_row(cell, names) for cell in [*found.others, *ordered])
    return f'<table class="grid"><thead><tr><th></th>{head}</tr></thead><tbody>{rows}</tbody></table>'


def _row(cell: Cell, names: Iterable[str]) -> str:
    cells = []
    for name in names:
        value, digits = cell.estimate(name), metrics()[name].ABOUT.digits
        text = f"{value.mean:.{digits}f} <small>± {value.half:.{digits}f}</small>" if value is not None else ""
        cells.append(f"<td>{text}</td>")
    label = "base" if cell.checkpoint == "base" else cell.name
    return f"<tr><th scope=row>{escape(label)}</th>{''.join(cells)}</tr>"


def _diagnosis(one: Mapping[str, Any]) -> str:
    signs = "".join(f"<li>{escape(sign)}</li>" for sign in [*one["signs"], *one["artefacts"]])
    fixes = " ".join(one["fixes"])
    body = (f'<ul class="signs">{signs}</ul>' if signs else "") + (f"<p>{escape(fixes)}</p>" if fixes else "")
    name = escape(one["checkpoint"])
    return f'<div class="diagnosis"><b>{name}</b><span>{_state(one["state"])}</span><div>{body}</div></div>'


def _against(found: Evaluated) -> str:
    """The comparison with other LoRAs: pictures side by side, and the numbers as bars."""
    others = [cell for cell in found.others if cell.checkpoint != "base"]
    if not others:
        return ""
    assert found.choice is not None
    best = found.choice.best.cell
    columns = [("Base", "base"), (f"{found.run.name}: {best.name}", best.name)]
    columns += [(cell.name, cell.name) for cell in others]
    shown = [(name, metrics()[name].ABOUT.label) for name in (found.choice.likeness_by, "flexibility", "leakage")]
    base = next(cell for cell in found.others if cell.checkpoint == "base")
    bars = plots.side_by_side([base, best, *others], shown)
    return (
        '<section><h2>Against other LoRAs</h2><p class="note">The same prompts, seeds and strength for all. '
        f"Whiskers are 95% intervals.</p>{bars}{_pictures(found, columns)}</section>"
    )


def _metrics(found: Evaluated) -> str:
    parts = []
    for name, metric in metrics().items():
        about = metric.ABOUT
        left = f" Left out: {found.left_out[name]}." if name in found.left_out else ""
        parts.append(
            f"<dt>{escape(about.label)}</dt><dd>{escape(about.says)}. {escape(about.low)}; {escape(about.high)}. "
            f"Better: {about.better}. Model: {escape(about.model)}; cost: {about.cost}. "
            f"Cannot tell: {escape(about.cannot_tell)}{escape(left)}</dd>"
        )
    return "".join(parts)


def _method(found: Evaluated, document: Mapping[str, Any]) -> list[str]:
    seeds = ", ".join(map(str, found.protocol.seeds))
    spent = f"{found.painted} pictures painted, the others were there; {found.seconds:.0f} s on {found.device.name}"
    return [
        f"{len(found.asked)} prompts, seeds {seeds}, {len(found.cells)} cells; {spent}",
        *document["notes"],
        *(f"{metrics()[name].ABOUT.label} left out: {reason}" for name, reason in found.left_out.items()),
    ]
