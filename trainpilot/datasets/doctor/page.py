"""The report as one HTML file: thumbnails inside, no script, no address, light or dark as the reader's system is.

Used by `dataset check --html` and the job. Thumbnails are of the pictures that findings name, a bounded number.
"""

from __future__ import annotations

import base64
import io
from functools import partial
from html import escape
from pathlib import Path
from string import Template

from PIL import Image, ImageOps

from trainpilot.datasets.doctor.findings import counted
from trainpilot.datasets.doctor.report import Judged, Report, buckets, sizes
from trainpilot.datasets.images import FORMATS, UNREADABLE, as_rgb

SIDE = 132  # px of a thumbnail
MOST_SHOWN = 12  # thumbnails of one finding
MOST_PICTURES = 200  # thumbnails of a page
_TEMPLATE = Path(__file__).with_name("page.html")


def page(report: Report) -> str:
    """The whole page."""
    case = report.case
    thumbnails: dict[str, str] = {}
    paths = {picture.name: picture.found.image for picture in case.whole}
    captioned = {picture.caption_file: picture.name for picture in case.whole if picture.caption_file}
    show = partial(_thumbnail, paths, captioned, thumbnails)
    found = sizes(case)
    facts = [f"{counted(len(case.pictures), 'picture')}, {len(case.captioned)} with captions", case.layout.kind]
    if found["median"]:
        facts.append(f"median size {found['median'][0]}x{found['median'][1]}")
    if case.triggers:
        facts.append(f"trigger {', '.join(case.triggers)}")
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        name=escape(case.root.name),
        score=report.score,
        facts="".join(f"<li>{escape(fact)}</li>" for fact in facts),
        findings="".join(_finding(report, one, show) for one in report.judged)
        or "<p>Nothing to say: every check passed.</p>",
        passed=escape(", ".join(title for _, title in report.passed)),
        buckets="".join(_bucket(row) for row in buckets(case)),
        model=escape(case.question.model),
        arithmetic=escape("\n".join(report.arithmetic())),
        seconds=f"{report.seconds:.1f}",
    )


def _finding(report: Report, one: Judged, show: partial[str]) -> str:
    figures, rest = [], []
    for number, place in enumerate(one.finding.where):
        told = f"{escape(place.file)}<br>{escape(place.detail)}" if place.detail else escape(place.file)
        source = show(place.file) if number < MOST_SHOWN else ""
        if source:
            figures.append(f'<figure><img src="{source}" alt=""><figcaption>{told}</figcaption></figure>')
        else:
            rest.append(f"<li>{told}</li>")
    fix = one.finding.fix
    command = report.command(one)
    level = one.finding.level
    points = f'<span class="points">-{one.points:g}</span>' if one.points else ""
    return "".join((
        f'<section class="{level}"><h2><span class="level">{level}</span> {escape(one.finding.title)} {points}</h2>',
        f"<p>{escape(one.why)}</p>",
        f"<p><b>What helps:</b> {escape(fix.text)}</p>" if fix else "",
        f"<pre>{escape(command)}</pre>" if command else "",
        f'<div class="pictures">{"".join(figures)}</div>' if figures else "",
        f"<details><summary>{counted(len(rest), 'more file')}</summary><ul>{''.join(rest)}</ul></details>" if rest
        else "",
        "</section>",
    ))  # fmt: skip


def _bucket(row: dict[str, object]) -> str:
    cells = (f"{row['width']}x{row['height']}", row["images"], row["per_epoch"], f"{row['crop_mean']:.1%}",
             f"{row['crop_most']:.1%}", row["enlarged"])  # fmt: skip
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _thumbnail(paths: dict[str, Path], captioned: dict[str, str], made: dict[str, str], file: str) -> str:
    """A picture as a data address; "" for a file that cannot be shown, or when there are enough."""
    name = captioned.get(file, file)
    if name in made:
        return made[name]
    if name not in paths or len(made) >= MOST_PICTURES:
        return ""
    try:
        with Image.open(paths[name], formats=FORMATS) as image:
            image.draft("RGB", (SIDE * 2, SIDE * 2))
            small = as_rgb(ImageOps.exif_transpose(image))
            small.thumbnail((SIDE * 2, SIDE * 2))
            kept = io.BytesIO()
            small.save(kept, "WEBP", quality=70)
    except UNREADABLE:
        return ""  # it was whole when it was checked; the report stands without its picture
    made[name] = f"data:image/webp;base64,{base64.b64encode(kept.getvalue()).decode()}"
    return made[name]
