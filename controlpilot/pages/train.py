"""The Train tab: the wizard's six steps, their live fragments, and the start. HTML only; logic is in the views."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, abort, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from controlpilot.desk import desk
from controlpilot.nav import Nav
from controlpilot.training_types import training_type, training_types
from controlpilot.views import train, wizard
from controlpilot.views.dataset_check import check
from controlpilot.views.dataset_folders import folders, places
from controlpilot.views.datasets import listing, page
from controlpilot.views.drafts import Change, Draft, Drafts
from controlpilot.views.plan import look, trigger_of
from controlpilot.views.refusals import Problem
from controlpilot.views.runs import open_run
from trainpilot.errors import PilotError, Problems
from trainpilot.runs.rundir import folders as run_folders
from trainpilot.workspace import Workspace

blueprint = Blueprint("train", __name__)
NAV = Nav("Training", 40, "train")
PREVIEWED = 8
RECENT_RUNS = 8


def _drafts() -> Drafts:
    return Drafts(desk().workspace)


@blueprint.get("/train")
def index() -> Response | str:
    """The tab: begin, or go on with a draft. ?demo=1 and ?from=RUN lead into a draft of that kind."""
    place = desk().workspace
    if request.args.get("demo"):
        return redirect(url_for("train.draft", ident=_begun(place, None).id), 303)
    if run := request.args.get("from"):
        begun = _begun(place, run, request.args.get("checkpoint", type=int))
        return redirect(url_for("train.draft", ident=begun.id, step=5), 303)
    recent = sorted(run_folders(place), key=lambda path: -path.stat().st_mtime)[:RECENT_RUNS]
    return render_template(
        "train/index.html",
        drafts=_drafts().all(),
        types=training_types(),
        runs=[path.name for path in recent],
        demo=(place.datasets / "images" / "10_zorp").is_dir(),
    )


def _begun(place: Workspace, run: str | None, checkpoint: int | None = None) -> Draft:
    """A draft of a run's configuration, or of the demo; one that nobody has touched since is taken again."""
    choices, origin = train.from_run(place, run, checkpoint) if run else (train.demo(place), "the demo")
    drafts = _drafts()
    for draft in drafts.all():
        if draft.origin == origin and draft.updated == draft.created:
            return draft
    return drafts.create(choices, origin)


@blueprint.post("/train")
def begin() -> Response:
    """Begin a draft: empty, of the demo, or of a run."""
    place = desk().workspace
    run = request.form.get("from")
    draft = _begun(place, run) if run or request.form.get("demo") else _drafts().create(train.suggestion(place))
    return redirect(url_for("train.draft", ident=draft.id), 303)


@blueprint.get("/train/<ident>")
def draft(ident: str) -> str:
    """One step of a draft."""
    kept = _drafts().read(ident)
    step = request.args.get("step", kept.step, type=int)
    return _page(kept, min(max(1, step), len(wizard.STEPS)))


def _page(kept: Draft, step: int, refused: PilotError | None = None) -> str:
    place = desk().workspace
    outcome = look(place, kept)
    name = wizard.STEPS[step - 1][0]
    refusals = [Problem.of(one) for one in _each(refused)] if refused else []
    context: dict[str, Any] = {}
    if name == "type":
        context = {"types": training_types()}
    elif name == "dataset":
        context = _dataset_step(place, kept)
        context["fields"] = _few_dataset_fields(kept, outcome)
    elif name == "profile":
        context = {"profiles": train.profile_cards(place), "groups": wizard.form(kept, outcome)}
    elif name == "model":
        context = {"bases": train.base_cards(place), "fits": train.fits(outcome)}
        context["fields"] = wizard.some(kept, outcome, wizard.AUTOMATIC)
    elif name in ("review", "start"):
        context = {"settings": wizard.changed_settings(outcome), "environment": train.environment_settings()}
    return render_template(
        f"train/{name}.html",
        draft=kept,
        outcome=outcome,
        live=outcome.live,
        values=wizard.values_of(kept, outcome),
        step=step,
        name=name,
        steps=[(key, word, url_for("train.draft", ident=kept.id, step=number))
               for number, (key, word) in enumerate(wizard.STEPS, 1)],
        done=wizard.done(kept, outcome),
        refusals=refusals,
        **_helpers(),
        **context,
    )  # fmt: skip


def _helpers() -> dict[str, Any]:
    return {"step_of": wizard.step_of, "place_of": wizard.place_of, "problem_words": wizard.problem_words}


def _each(error: PilotError) -> list[PilotError]:
    return list(error.problems) if isinstance(error, Problems) else [error]


def _dataset_step(place: Workspace, kept: Draft) -> dict[str, Any]:
    cards = listing(place)
    known = {one.name for one in cards}
    absolute = [path for path in kept.datasets if path not in known]
    return {"cards": cards, "absolute": absolute, **_preview(place, kept)}


def _few_dataset_fields(kept: Draft, outcome: Any) -> list[Any]:
    inner = ("captions.trigger", "repeats", "regularization", "default_caption", "flip")
    return [
        (path, wizard.some(kept, outcome, [f"datasets.{number}.{one}" for one in inner]))
        for number, path in enumerate(kept.datasets)
    ]


def _preview(place: Workspace, kept: Draft) -> dict[str, Any]:
    """Thumbnails with captions and the check of every chosen dataset."""
    kind = training_type(kept.kind) if kept.kind else None
    known = folders(place)
    previews: list[dict[str, Any]] = []
    for number, path in enumerate(kept.datasets):
        name = next((one for one, root in known.items() if path in (one, str(root))), None)
        if name is None:
            previews.append({"name": path, "problem": None, "outside": True})
            continue
        trigger = kept.settings.get(f"datasets.{number}.captions.trigger", "")
        trigger = trigger or (trigger_of(place, kept) if number == 0 else "")
        try:
            shown = page(place, name)
            report = check(place, name, kind.images if kind and number == 0 else None, trigger)
            previews.append({"name": name, "page": shown, "check": report, "pictures": shown.pictures[:PREVIEWED]})
        except PilotError as problem:
            previews.append({"name": name, "problem": Problem.of(problem)})
    pending = any(p.get("page") and (p["page"].pending or p["check"].measured < p["check"].of) for p in previews)
    return {"previews": previews, "kind": kind, "pending": pending, "data_place": str(places(place)[0])}


@blueprint.get("/train/<ident>/preview")
def preview(ident: str) -> str:
    """The chosen datasets, as a fragment."""
    kept = _drafts().read(ident)
    return render_template("train/_preview.html", draft=kept, **_preview(desk().workspace, kept))


@blueprint.get("/train/<ident>/fits")
def fits(ident: str) -> str:
    """The compatibility check, as a fragment."""
    kept = _drafts().read(ident)
    outcome = look(desk().workspace, kept)
    return render_template("train/_fits.html", fits=train.fits(outcome), live=outcome.live)


@blueprint.get("/train/<ident>/review")
def review(ident: str) -> str:
    """Every value that is not a default, with its source, and the command, as a fragment."""
    kept = _drafts().read(ident)
    outcome = look(desk().workspace, kept)
    return render_template("train/_review.html", settings=wizard.changed_settings(outcome), live=outcome.live)


@blueprint.post("/train/<ident>/plan")
def plan(ident: str) -> str:
    """Keep what the form says, and answer with the plan, as a fragment."""
    drafts = _drafts()
    refused: list[Problem] = []
    try:
        kept = drafts.change(ident, wizard.change_of(request.form.to_dict(flat=False)))
    except Problems as several:
        kept, refused = drafts.read(ident), [Problem.of(one) for one in several.problems]
    outcome = look(desk().workspace, kept)
    outcome.live.problems = [*refused, *outcome.live.problems]
    return render_template(
        "train/_plan.html", draft=kept, live=outcome.live, values=wizard.values_of(kept, outcome), **_helpers()
    )


@blueprint.post("/train/<ident>")
def save(ident: str) -> Response | str:
    """Keep a step and go where its button says: a step's number, `start`, `profile`, or `discard`."""
    drafts = _drafts()
    go = request.form.get("go", "1")
    if go == "discard":
        drafts.discard(ident)
        return redirect(url_for("train.index"), 303)
    try:
        kept = drafts.change(ident, wizard.change_of(request.form.to_dict(flat=False)))
        if go == "start":
            return _started(drafts, kept)
        if go == "profile":
            return _profile(kept)
    except PilotError as problem:
        return _page(drafts.read(ident), _here(), problem)
    if not go.isdigit() or not 1 <= int(go) <= len(wizard.STEPS):
        abort(400)
    drafts.change(ident, Change(step=int(go)))
    return redirect(url_for("train.draft", ident=ident, step=int(go)), 303)


def _here() -> int:
    step = request.form.get("step", 1, type=int)
    return min(max(1, step), len(wizard.STEPS))


def _started(drafts: Drafts, kept: Draft) -> Response:
    made = train.start(desk().workspace, kept)
    drafts.discard(kept.id)
    return redirect(url_for("train.started", run=made.run), 303)


def _profile(kept: Draft) -> Response:
    name = request.form.get("profile_name", "").strip()
    train.save_profile(desk().workspace, kept, name, request.form.get("profile_label", "").strip())
    return redirect(url_for("train.draft", ident=kept.id, step=5, saved=name), 303)


@blueprint.get("/train/started/<run>")
def started(run: str) -> str:
    """A run was queued: what happens now, and where to watch it."""
    found = open_run(desk().workspace, run)
    return render_template("train/started.html", run=found.name, job=found.job, config=found.config)
