"""The wizard's views: the form from the schema, drafts, the live plan, and the run that comes out."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from picture_folders import make_pictures, measured, settle, with_demo

from controlpilot.training_types import training_types
from controlpilot.views import train
from controlpilot.views.drafts import Change, Choices, Drafts, moved_settings
from controlpilot.views.fields import dataset_fields, field_of, from_form, groups, shown, to_form
from controlpilot.views.plan import look
from controlpilot.views.refusals import Conflict, NotFound
from trainpilot.config.describe import dataset_settings, from_text, settings
from trainpilot.config.layers import declaration
from trainpilot.errors import PilotError, Problems
from trainpilot.runs.events import history
from trainpilot.runs.rundir import RunDir
from trainpilot.workspace import Workspace


@pytest.fixture(scope="module")
def demo_place(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = with_demo(tmp_path_factory.mktemp("demo"))
    measured(workspace, workspace.datasets)
    return workspace


def ready(workspace: Workspace, choices: Choices):
    from controlpilot.measuring import measuring

    outcome = look(workspace, choices)
    if outcome.live.state == "measuring":
        assert measuring(workspace).wait(60)
        outcome = look(workspace, choices)
    return outcome


def test_the_form_has_every_setting_of_the_schema_once():
    paths = [field.path for group in groups() for field in group.fields]
    assert sorted([*paths, "profile", "run.name", "model.base", "datasets"]) == sorted(settings())
    assert sorted([field.path for field in dataset_fields()] + ["path"]) == sorted(dataset_settings())
    assert all(field.help and field.allowed for group in groups() for field in group.fields)


@pytest.mark.parametrize("path", [*settings(), *(f"datasets.{path}" for path in dataset_settings())])
def test_a_default_that_the_form_shows_is_read_back_as_itself(path):
    info = declaration(path)
    default = info.get_default(call_default_factory=True)
    if path in ("datasets", "datasets.path"):
        return
    read = from_text(info, shown(default))
    assert (tuple(read) if isinstance(default, tuple) else read) == default


def test_a_list_is_edited_as_lines_and_kept_as_set_reads_it():
    field = field_of("sampling.prompts")
    text = from_form(field, 'a "red" car\r\n\r\nein Fluß --n blur\n')
    assert from_text(declaration("sampling.prompts"), text) == ['a "red" car', "ein Fluß --n blur"]
    assert to_form(field, text) == 'a "red" car\nein Fluß --n blur'
    assert from_form(field, "  \n") is None


def test_every_types_presets_are_settings_that_the_schema_accepts(demo_place):
    for kind in training_types().values():
        choices = train.demo(demo_place).model_copy(update={"kind": kind.name})
        outcome = ready(demo_place, choices)
        assert outcome.live.state == "ready", outcome.live.problems
        for preset in kind.presets:
            paths = [preset.set.replace("datasets.", "datasets.0.")]
            assert outcome.live.sources[paths[0]] == f"type {kind.name}"


def test_a_persons_setting_wins_over_the_types_preset(demo_place):
    choices = train.demo(demo_place)
    choices.kind, choices.settings = "style", {"datasets.0.captions.dropout_rate": "0.3"}
    outcome = ready(demo_place, choices)
    assert outcome.config.datasets[0].captions.dropout_rate == 0.3
    assert outcome.sources["datasets.0.captions.dropout_rate"] == "--set"
    assert outcome.config.datasets[0].flip is True


def test_the_trigger_word_goes_into_the_prompts_of_a_profile_without_any(demo_place):
    choices = train.demo(demo_place)
    choices.kind, choices.profile = "object", "quick_test"
    choices.settings = {"datasets.0.captions.trigger": "bluecar"}
    assert ready(demo_place, choices).config.sampling.prompts[0] == "bluecar on a wooden table"
    choices.profile = "demo"
    assert "bluecar" not in " ".join(ready(demo_place, choices).config.sampling.prompts)


def test_the_plan_follows_a_change_of_rank(demo_place):
    choices = train.demo(demo_place)
    small = ready(demo_place, choices).live.plan
    choices.settings |= {"network.rank": "64", "network.conv_rank": "64"}
    choices.price_per_hour = 2.0
    large = ready(demo_place, choices).live.plan
    assert large["parameters"] == small["parameters"] * 4
    for key in ("file_bytes", "disk_bytes"):
        assert large[key] > small[key]
    assert large["vram"]["total"] > small["vram"]["total"]
    assert small["cost"] is None and large["cost"] == pytest.approx(large["seconds"] / 1800)


def test_the_price_of_the_settings_holds_where_the_choices_name_none(tmp_path):
    workspace = with_demo(tmp_path)
    (workspace.root / "config" / "settings.toml").write_text("price_per_hour = 3.6\n")
    plan = ready(workspace, train.demo(workspace)).plan
    assert plan.cost == pytest.approx(plan.seconds / 1000)


def test_all_problems_come_at_once_with_what_was_meant_and_the_rest_of_the_form_still_stands(demo_place):
    choices = train.demo(demo_place)
    choices.settings = {"network.rank": "6x4", "optimizer.name": "adam8bit", "training.batch_size": "2"}
    outcome = look(demo_place, choices)
    wrong = {problem.where: problem for problem in outcome.live.problems}
    assert set(wrong) == {"network.rank", "optimizer.name"}
    assert "adamw8bit" in wrong["optimizer.name"].remedy
    assert outcome.config.training.batch_size == 2 and outcome.config.training.steps == 300


def test_choices_that_are_missing_are_no_errors(demo_place):
    outcome = look(demo_place, Choices())
    assert outcome.live.state == "choose" and not outcome.live.problems
    assert outcome.live.choose == ["Choose a base model", "Choose a dataset"]


def test_new_pictures_are_measured_by_another_process_and_the_plan_says_so(tmp_path):
    workspace = with_demo(tmp_path)
    choices = train.demo(workspace)
    outcome = look(workspace, choices)
    assert outcome.live.state == "measuring" and outcome.live.measured.of == 16
    assert ready(workspace, choices).live.plan["images"] == 16


def test_the_plan_sees_a_picture_that_came_and_a_caption_that_changed(tmp_path):
    workspace = with_demo(tmp_path)
    choices = train.demo(workspace)
    assert ready(workspace, choices).plan.images == 16
    folder = workspace.datasets / "images" / "10_zorp"
    make_pictures(folder, 1)
    (folder / "zorp_01.txt").write_text("quite another caption\n")
    settle(folder)
    outcome = ready(workspace, choices)
    assert outcome.plan.images == 17
    assert "quite another caption" in {sample.caption for sample in outcome.table.samples}


def test_a_started_run_is_queued_with_the_plan_and_a_clone_of_it_is_the_same(demo_place):
    choices = train.demo(demo_place)
    choices.settings = {"network.rank": "8", "sampling.negative": "blur, 'noise'"}
    started = train.start(demo_place, choices)
    run = RunDir.find(demo_place, started.run)
    assert run.job.status == "queued" and run.config.network.rank == 8 and run.config.network.alpha == 8
    assert run.resolved.sources["datasets.0.flip"] == "type character"
    assert next(iter(history(run.path / "events.jsonl")))["images"] == 16

    cloned, origin = train.from_run(demo_place, started.run)
    assert origin == f"run {started.run}" and cloned.base == "pilot-tiny" and cloned.datasets == ["10_zorp"]
    again = ready(demo_place, cloned).config
    mine = run.config.model_copy(deep=True)
    assert again.model_dump() == mine.model_dump()


def test_a_run_is_refused_with_everything_that_is_missing(demo_place):
    before = sorted(demo_place.outputs.iterdir())
    with pytest.raises(Problems) as refused:
        train.start(demo_place, Choices())
    assert {problem.where for problem in refused.value.problems} == {"datasets", "model.base"}
    assert sorted(demo_place.outputs.iterdir()) == before


def test_the_base_model_is_told_from_its_files_and_compared_with_the_data(demo_place):
    (found,) = train.base_cards(demo_place)
    assert (found.name, found.family, found.tiny) == ("pilot-tiny", "sd15", True)
    fits = train.fits(ready(demo_place, train.demo(demo_place)))
    assert [fit.level for fit in fits] == ["ok", "ok", "ok"]
    choices = train.demo(demo_place)
    choices.settings["buckets.resolution"] = "256"
    choices.settings["buckets.max_side"] = "512"
    texts = [fit.text for fit in train.fits(ready(demo_place, choices)) if fit.level == "warning"]
    assert any("16 of 16 pictures are smaller" in text for text in texts)


def test_choices_are_saved_as_a_profile_that_gives_them_again(demo_place):
    choices = train.demo(demo_place)
    choices.settings = {"network.rank": "24", "network.targets": '["to_q", "to_k"]'}
    train.save_profile(demo_place, choices, "mine", "My settings")
    config = ready(demo_place, Choices(profile="mine", base="pilot-tiny", datasets=["10_zorp"])).config
    assert (config.network.rank, config.network.targets, config.training.steps) == (24, ["to_q", "to_k"], 300)
    assert next(one for one in train.profile_cards(demo_place) if one.own).label == "My settings"
    with pytest.raises(Conflict):
        train.save_profile(demo_place, choices, "mine", "again")
    with pytest.raises(PilotError):
        train.save_profile(demo_place, choices, "../evil", "no")


def test_drafts_survive_and_two_writers_lose_nothing(tmp_path):
    drafts = Drafts(Workspace(tmp_path))
    draft = drafts.create(Choices(profile="standard"))
    paths = [field.path for group in groups() for field in group.fields if field.kind == "whole"][:24]

    def write(part: list[str]) -> None:
        for path in part:
            Drafts(Workspace(tmp_path)).change(draft.id, Change(settings={path: "1"}))

    threads = [threading.Thread(target=write, args=(paths[n::3],)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(drafts.read(draft.id).settings) == sorted(paths)
    drafts.change(draft.id, Change(settings={paths[0]: None}, price_per_hour=0.5))
    kept = Drafts(Workspace(tmp_path)).read(draft.id)
    assert paths[0] not in kept.settings and kept.price_per_hour == 0.5 and len(drafts.all()) == 1
    lies = drafts.discard(draft.id)
    assert lies.is_file() and drafts.all() == []
    with pytest.raises(NotFound):
        drafts.read(draft.id)


def test_an_unknown_setting_is_refused_with_what_was_meant(tmp_path):
    drafts = Drafts(Workspace(tmp_path))
    with pytest.raises(PilotError, match=r"network\.rank"):
        drafts.create(Choices(settings={"network.rnk": "4"}))
    with pytest.raises(PilotError, match="style"):
        drafts.create(Choices(kind="stile"))
    assert drafts.all() == []


@pytest.mark.parametrize("ident", ["../../VERSION", "x", "", "0123456789ab\n", "ÄÄÄÄÄÄÄÄÄÄÄÄ"])
def test_a_drafts_name_cannot_lead_elsewhere(tmp_path, ident):
    with pytest.raises(NotFound):
        Drafts(Workspace(tmp_path)).read(ident)


def test_settings_of_one_dataset_follow_it_when_the_list_changes():
    kept = {"datasets.0.repeats": "3", "datasets.1.flip": "true", "network.rank": "4"}
    assert moved_settings(kept, ["a", "b"], ["b"]) == {"datasets.0.flip": "true", "network.rank": "4"}
    assert moved_settings(kept, ["a", "b"], ["b", "c", "a"]) == {
        "datasets.2.repeats": "3",
        "datasets.0.flip": "true",
        "network.rank": "4",
    }


def test_a_damaged_draft_is_not_shown_and_not_touched(tmp_path: Path):
    drafts = Drafts(Workspace(tmp_path))
    drafts.create(Choices())
    broken = drafts.folder / "0123456789ab.json"
    broken.write_text("{")
    assert len(drafts.all()) == 1 and broken.read_text() == "{"


ENDLESS = [
    ({"training.epochs": "1000000", "datasets.0.repeats": "10000"}, "training.epochs"),
    ({"training.steps": "10000000", "saving.every_steps": "1", "saving.keep": "0"}, "saving.every_steps"),
]


@pytest.mark.parametrize(("settings_given", "where"), ENDLESS)
def test_a_length_that_nobody_means_is_refused_at_once(demo_place, settings_given, where):
    choices = train.demo(demo_place)
    choices.settings = settings_given
    began = time.perf_counter()
    outcome = ready(demo_place, choices)
    assert [problem.where for problem in outcome.live.problems] == [where]
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize("text", ["a\0b", "~nosuchuser/x", "x" * 300, "y/" * 1500])
def test_a_text_that_is_no_path_is_a_problem_and_no_crash(demo_place, text):
    for change in ({"base": text}, {"datasets": [text]}, {"profile": f"{text}.toml"}):
        outcome = look(demo_place, train.demo(demo_place).model_copy(update=change))
        assert outcome.live.state == "problems" and outcome.live.problems, change
    for path in ("network.init_from", "model.vae", "sampling.prompts_file", "datasets.0.masks"):
        choices = train.demo(demo_place)
        choices.settings = {path: text}
        assert look(demo_place, choices).live.state == "problems", path


def test_a_clone_can_begin_with_a_checkpoint_and_only_runs_of_the_workspace_are_runs(demo_place, tmp_path):
    choices = train.demo(demo_place)
    choices.name = "with-checkpoint"
    run = RunDir.find(demo_place, train.start(demo_place, choices).run)
    with pytest.raises(NotFound):
        train.from_run(demo_place, run.name, 100)
    with pytest.raises(NotFound):
        train.from_run(demo_place, str(run.path))
