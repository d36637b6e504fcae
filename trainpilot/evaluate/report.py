"""The report of a finished run: report/index.html (one file, no script), grid.png and summary.json.

`write` is called by the trainer when the result is verified. The page's frame and style are `report.html` beside this
module; here its parts are filled in.
"""

from __future__ import annotations

import base64
import io
import shlex
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from PIL import Image

from trainpilot import __version__
from trainpilot.config.describe import settings
from trainpilot.datasets.table import Table
from trainpilot.evaluate import curve
from trainpilot.evaluate.sheet import sheet
from trainpilot.evaluate.strengths import STRENGTHS, Row, Shot
from trainpilot.families.card import Card
from trainpilot.plan.command import command
from trainpilot.plan.plan import duration, gigabytes
from trainpilot.runs.atomic import write_beside, write_json
from trainpilot.runs.events import history
from trainpilot.runs.rundir import RunDir

if TYPE_CHECKING:
    from trainpilot.formats.verify import Verification

PAGE, GRID, SUMMARY, PICTURES = "index.html", "grid.png", "summary.json", "pictures"
SCHEMA = 1

Rows = Iterable[tuple[str, str]]


@dataclass(frozen=True)
class Facts:
    """What the trainer knows of a finished run. step: updates made; seconds: all attempts; device: in words."""

    card: Card
    table: Table
    verified: Sequence[Verification]
    step: int
    seconds: float
    device: str
    parameters: int


def write(run: RunDir, rows: Sequence[Row], facts: Facts) -> Path:
    """Write the three files, each whole, and return the page. A report of an earlier attempt is replaced."""
    run.report.mkdir(exist_ok=True)
    drawn = curve.curve(losses(run))
    if rows:
        title = f"{run.name}: base model and strengths {', '.join(f'{one:.1f}' for one in STRENGTHS)}"
        write_beside(run.report / GRID, _png(sheet(rows, title)))
    write_json(run.report / SUMMARY, _summary(run, rows, facts, drawn))
    page = run.report / PAGE
    write_beside(page, _page(run, rows, facts, drawn).encode("utf-8", "xmlcharrefreplace"))
    return page


def losses(run: RunDir) -> list[curve.Point]:
    """(step, loss) of the run's events, the later attempt's where two went over the same step."""
    found = (event for event in history(run.events.path) if event["kind"] == "step")
    return [(int(event["step"]), float(event["loss"])) for event in found if event.get("loss") is not None]


def _summary(run: RunDir, rows: Sequence[Row], facts: Facts, drawn: curve.Curve | None) -> dict[str, Any]:
    """What a program may read of the report; figures as they were measured, files relative to the run folder."""
    return {
        "schema": SCHEMA,
        "run": run.name,
        "made_at": time.time(),
        "trainpilot": __version__,
        "family": run.config.model.family,
        "base": run.config.model.base,
        "steps": facts.step,
        "seconds": round(facts.seconds, 1),
        "device": facts.device,
        "loss": None if drawn is None else {"first": drawn.first, "last": drawn.last},
        "dataset": {
            "images": len(facts.table.samples),
            "pictures_per_epoch": facts.table.images_per_epoch,
            "buckets": {f"{w}x{h}": count for (w, h), count in facts.table.bucket_counts().items()},
            "fingerprint": facts.table.fingerprint(),
        },
        "verified": [one.as_dict() for one in facts.verified],
        "strengths": list(STRENGTHS),
        "prompts": [
            {
                **asdict(row.prompt),
                "pictures": {shot.label: str(shot.file.relative_to(run.path)) for shot in row.shots},
            }
            for row in rows
        ],
        "command": command(run.resolved),
    }


# --- the page ---------------------------------------------------------------------------------------------------------


def _page(run: RunDir, rows: Sequence[Row], facts: Facts, drawn: curve.Curve | None) -> str:
    frame = Template(Path(__file__).with_name("report.html").read_text(encoding="utf-8"))
    config = run.config
    when = time.gmtime()
    return frame.substitute(
        name=escape(run.name),
        kind=escape(f"{config.network.type.upper().replace('LORA', 'LoRA')} on {Path(config.model.base).name}"),
        family=escape(facts.card.label),
        state=_state(facts.verified),
        figures=_figures(run, facts, drawn),
        prompts="".join(_row(row) for row in rows) or '<p class="note">The run has no sample prompts.</p>',
        loss=_loss(drawn),
        verified="".join(_facts(_verification(one)) for one in facts.verified),
        dataset=_facts(_dataset(run, facts.table)),
        settings=_facts(_settings(run)),
        changed=_changed(run),
        command=escape(shlex.join(command(run.resolved))),
        file=escape(run.result.name),
        made=f'<time datetime="{time.strftime("%Y-%m-%dT%H:%M:%SZ", when)}">'
        f"{time.strftime('%d %B %Y, %H:%M UTC', when).lstrip('0')}</time>",
        version=escape(__version__),
    )


def _state(verified: Sequence[Verification]) -> str:
    """Icon and word: colour alone says nothing."""
    if verified and all(one.ok for one in verified):
        return '<span class="state good"><svg viewBox="0 0 16 16"><path d="M3 8.5l3.2 3.2L13 5"/></svg>Verified</span>'
    return '<span class="state bad"><svg viewBox="0 0 16 16"><path d="M8 3v6M8 12v.5"/></svg>Not verified</span>'


def _figures(run: RunDir, facts: Facts, drawn: curve.Curve | None) -> str:
    size = gigabytes(run.result.stat().st_size)
    known = [("Steps", f"{facts.step:,}", _per_epoch(facts)), ("Training time", duration(facts.seconds), facts.device)]
    if drawn is not None:
        known.append(("Loss, smoothed", f"{drawn.last:.3g}", f"from {drawn.first:.3g}"))
    known.append(("LoRA file", size, f"{run.config.precision.save}, {facts.parameters / 1e6:.2f} M parameters"))
    return "".join(
        f"<div><dt>{escape(name)}</dt><dd><b>{escape(value)}</b><span>{escape(note)}</span></dd></div>"
        for name, value, note in known
    )


def _per_epoch(facts: Facts) -> str:
    return f"{len(facts.table.samples)} pictures, {facts.table.images_per_epoch} an epoch"


def _row(row: Row) -> str:
    prompt = row.prompt
    details = [
        f"seed {prompt.seed}",
        f"{row.shots[0].image.width}×{row.shots[0].image.height} px",
        f"{prompt.steps} steps",
        f"guidance {prompt.guidance:g}",
        prompt.sampler,
    ]
    if prompt.negative:
        details.append(f"negative: {prompt.negative}")
    return (
        f'<article><h3>{escape(prompt.text) or "<i>empty prompt</i>"}</h3><p class="note">'
        + escape(" · ".join(details))
        + f'</p><div class="shots">{"".join(_shot(shot, prompt.text) for shot in row.shots)}</div></article>'
    )


def _shot(shot: Shot, text: str) -> str:
    words = "base model" if shot.strength is None else f"strength {shot.label}"
    kind = ' class="as-trained"' if shot.strength == 1 else ""
    data = base64.b64encode(_png(shot.image)).decode("ascii")
    return (
        f'<figure{kind}><img src="data:image/png;base64,{data}" width="{shot.image.width}" '
        f'height="{shot.image.height}" alt="{escape(f"{text}, {words}")}">'
        f"<figcaption>{'Base' if shot.strength is None else escape(shot.label)}</figcaption></figure>"
    )


def _loss(drawn: curve.Curve | None) -> str:
    if drawn is None:
        return '<p class="note">No step of this run has told its loss.</p>'
    thinned = f"; each point is the mean of {drawn.window} steps told" if drawn.window > 1 else ""
    return (
        f'{curve.svg(drawn)}<p class="note legend"><span class="key raw"></span>each step '
        f'<span class="key smooth"></span>smoothed over a tenth of the run{thinned}. '
        "Horizontally: optimizer steps. The noise level drawn at each step moves the raw loss more than learning does."
        "</p>"
    )


def _verification(one: Verification) -> Rows:
    yield "File", Path(one.file).name
    yield "Read by", f"{one.reader}, {one.naming} naming, {one.dtype}"
    yield "Keys", f"{one.keys_matched} matched, {len(one.missing)} missing, {len(one.unexpected)} unexpected"
    yield "Alpha", "right" if not one.wrong_alpha else f"wrong in {len(one.wrong_alpha)} modules"
    yield "Largest relative error", f"{one.max_relative_error:.1e}"
    yield "Adapted", ", ".join(f"{count} modules in {component}" for component, count in one.modules.items())


def _dataset(run: RunDir, table: Table) -> Rows:
    names = ", ".join(dict.fromkeys(Path(dataset.path).name for dataset in run.config.datasets))
    yield "Folder" if len(run.config.datasets) == 1 else "Folders", names
    regularization = sum(sample.regularization for sample in table.samples)
    counts = f"{len(table.samples)}, with captions {sum(bool(sample.caption.strip()) for sample in table.samples)}"
    yield "Pictures", counts + (f", for regularisation {regularization}" if regularization else "")
    yield (
        "An epoch",
        f"{table.images_per_epoch} pictures, {table.batches_per_epoch(run.config.training.batch_size)} batches",
    )
    buckets = sorted(table.bucket_counts().items(), key=lambda item: -item[1])
    more = f" and {len(buckets) - 6} more" if len(buckets) > 6 else ""
    yield "Buckets", ", ".join(f"{w}×{h}: {count}" for (w, h), count in buckets[:6]) + more
    yield "Fingerprint", table.fingerprint()[:16]


def _settings(run: RunDir) -> Rows:
    config = run.config
    network, optimizer = config.network, config.optimizer
    yield "Profile", config.profile
    yield "Base model", Path(config.model.base).name
    yield "Network", f"{network.type}, rank {network.rank}, alpha {network.alpha:g}"
    yield "Optimizer", f"{optimizer.name}, rate {optimizer.learning_rate:g}, {config.schedule.name}"
    yield "Batch", f"{config.training.batch_size} × {config.training.gradient_accumulation} accumulated"
    yield "Resolution", str(config.buckets.resolution)
    yield "Precision", f"{config.precision.mixed}, base {config.precision.base}"
    yield "Text encoder", "trained" if config.text_encoder.train else "left as it is"
    yield "Seed", str(config.run.seed)


def _changed(run: RunDir) -> str:
    """Everything that neither a default nor the family decided, with where it came from."""
    known = settings()
    tables = run.config.model_dump(mode="json")
    lines = []
    for path, source in sorted(run.resolved.sources.items()):
        if path in known and source != "default" and not source.startswith("family "):
            value: Any = tables
            for key in path.split("."):
                value = value[key]
            lines.append(f"<tr><th>{escape(path)}</th><td>{escape(_written(value))}</td><td>{escape(source)}</td></tr>")
    return "".join(lines)


def _written(value: Any) -> str:
    if isinstance(value, list):
        return "; ".join(_written(one) for one in value)
    if isinstance(value, dict):
        return str(value.get("path", value))
    return "none" if value is None else str(value)


def _facts(rows: Rows) -> str:
    lines = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in rows)
    return f'<dl class="facts">{lines}</dl>'


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=image.width * image.height <= 512 * 512)
    return buffer.getvalue()
