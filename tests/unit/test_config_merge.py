"""The merge: which source wins, where each value came from, and every problem at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from light_bases import flux_folder, sd_folder, single_file

from trainpilot.config.describe import dataset_settings, settings
from trainpilot.config.document import load, read_toml, write_toml
from trainpilot.config.merge import Resolved, resolve
from trainpilot.config.schema import SCHEMA_VERSION
from trainpilot.errors import PilotError, Problems
from trainpilot.families.card import card
from trainpilot.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    place = Workspace(tmp_path / "ws")
    sd_folder(place.models / "tiny")
    (place.datasets / "images" / "10_zorp").mkdir(parents=True)
    (place.datasets / "images" / "5_other").mkdir(parents=True)
    return place


START = {"model.base": "tiny", "datasets": [{"path": "10_zorp"}]}


def merged(workspace: Workspace, *overrides: str, **sources: object) -> Resolved:
    return resolve(workspace, overrides=overrides, **{"direct": START, **sources})  # type: ignore[arg-type]


def problems(workspace: Workspace, *overrides: str, **sources: object) -> dict[str, PilotError]:
    with pytest.raises(Problems) as caught:
        merged(workspace, *overrides, **sources)
    return {problem.where: problem for problem in caught.value.problems}


def test_each_source_wins_over_the_one_before_and_is_named(workspace: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('profile = "standard"\n[training]\nbatch_size = 2\ngradient_accumulation = 2\n[run]\nseed = 1\n')
    result = merged(
        workspace,
        "run.seed=4",
        file=file,
        environment={"PILOT_RUN__SEED": "3", "PILOT_TRAINING__GRADIENT_ACCUMULATION": "8", "PILOT_CACHE": "/x"},
    )
    config, sources = result.config, result.sources
    assert (config.network.rank, sources["network.rank"]) == (32, "profile standard")
    assert (config.training.batch_size, sources["training.batch_size"]) == (2, "file mine.toml")
    accumulation = "training.gradient_accumulation"
    assert (config.training.gradient_accumulation, sources[accumulation]) == (
        8,
        "environment PILOT_TRAINING__GRADIENT_ACCUMULATION",
    )
    assert (config.run.seed, sources["run.seed"]) == (4, "--set")
    assert (config.noise.timesteps, sources["noise.timesteps"]) == ("uniform", "family sd15")
    assert (config.loss.type, sources["loss.type"]) == ("l2", "default")
    assert (sources["model.base"], sources["datasets.0.path"]) == ("--base-model", "--dataset")


def test_every_setting_has_a_source(workspace: Workspace) -> None:
    sources = merged(workspace).sources
    expected = {path for path in settings() if path != "datasets"}
    expected |= {f"datasets.0.{path}" for path in dataset_settings()}
    assert expected <= sources.keys()


def test_what_the_family_decides_is_concrete(workspace: Workspace) -> None:
    result = merged(workspace)
    config = result.config
    assert config.model.family == "sd15" and config.model.prediction == "epsilon"
    assert Path(config.model.base).is_absolute() and Path(config.datasets[0].path).is_absolute()
    # The miniature was made for 64 px; its sides are multiples of 8 (VAE 4, one halving in the U-Net).
    assert (config.buckets.resolution, config.buckets.step, config.buckets.min_side) == (64, 8, 32)
    assert (config.sampling.sampler, config.sampling.guidance) == (card("sd15").sampler, card("sd15").guidance)
    assert any("model.family = sd15" in note for note in result.notes)
    single_file(workspace.models / "big.safetensors", "sdxl")
    full = merged(workspace, "model.base=big.safetensors").config
    assert (full.buckets.resolution, full.buckets.step) == (card("sdxl").resolution, card("sdxl").step)


def test_every_problem_is_told_at_once_with_what_was_meant(workspace: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(
        "[optimizer]\nlerning_rate = 1\n[network]\nrank = -4\nalpha = true\n[memory]\nattention = 'xforms'\n"
    )
    found = problems(workspace, "noise.min_timestep=900", "noise.max_timestep=100", file=file)
    assert found["optimizer.lerning_rate"].remedy == "Did you mean optimizer.learning_rate?"
    assert "bad.toml" in found["optimizer.lerning_rate"].given
    assert found["network.rank"].given == "-4 (from file bad.toml)"
    assert found["network.rank"].allowed == "a whole number, at least 1 and at most 1024"
    assert found["network.alpha"].given == "true (from file bad.toml)"
    assert found["memory.attention"].remedy == "Did you mean xformers?"
    assert "noise.min_timestep" in found
    assert len(found) == 5


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("network.rnk", "network.rank"),
        ("netwrok.rank", "network"),
        ("training.learning_rate", "optimizer.learning_rate"),
        ("network_alpha", "network.alpha"),
        ("datasets.stricct", "datasets.strict"),
        ("datasets.0.captions.shufle", "datasets.0.captions.shuffle"),
    ],
)
def test_misspelt_keys_are_refused_with_the_likely_one(workspace: Workspace, key: str, meant: str) -> None:
    (problem,) = problems(workspace, f"{key}=1").values()
    assert problem.where == key and meant in problem.remedy


def test_a_misspelt_environment_variable_is_a_problem_too(workspace: Workspace) -> None:
    found = problems(workspace, environment={"PILOT_OPTIMISER__NAME": "adamw", "PILOT_STOP_GRACE": "3"})
    assert list(found) == ["optimiser.name"] and "optimizer" in found["optimiser.name"].remedy


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("optimizer.learning_rate=5e-5", 5e-5),
        ("training.batch_size=4", 4),
        ("memory.compile=on", True),
        ("run.name=2024", "2024"),
        ('run.comment="quoted, text"', "quoted, text"),
        ("buckets.resolution=512x768", (512, 768)),
        ("buckets.resolution=[512, 768]", (512, 768)),
        ("text_encoder.clip_tokens=150", 150),
        ("text_encoder.learning_rate=none", None),
        ("network.targets=attention_mlp", "attention_mlp"),
        ('network.targets=["to_q"]', ["to_q"]),
        ("network.block_ranks.mid_block=8", {"mid_block": 8}),
        ("optimizer.args={ d0 = 1e-6 }", {"d0": 1e-6}),
        ("optimizer.args.min_8bit_size=16", {"min_8bit_size": 16}),
        ("sampling.prompts=a zorp on a hill", ["a zorp on a hill"]),
    ],
)
def test_text_is_read_by_the_settings_type(workspace: Workspace, text: str, value: object) -> None:
    section, key = text.partition("=")[0].split(".")[:2]
    assert getattr(getattr(merged(workspace, text).config, section), key) == value


def test_settings_of_every_dataset_and_of_one(workspace: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "two.toml"
    file.write_text(
        "[[datasets]]\npath = '10_zorp'\nflip = true\n"
        "[[datasets]]\npath = '5_other'\n[datasets.captions]\nprefix = 'a'\n"
    )
    result = resolve(
        workspace,
        file=file,
        direct={"model.base": "tiny"},
        environment={"PILOT_DATASETS__STRICT": "true"},
        overrides=["datasets.1.repeats=3", "datasets.captions.shuffle=true", "datasets.0.strict=false"],
    )
    first, second = result.config.datasets
    assert (first.flip, second.flip) == (True, False)
    assert (first.strict, second.strict) == (False, True)
    assert (first.repeats, second.repeats) == (None, 3)
    assert first.captions.shuffle and second.captions.shuffle and second.captions.prefix == "a"
    assert result.sources["datasets.1.strict"] == "environment PILOT_DATASETS__STRICT"
    assert result.sources["datasets.1.repeats"] == "--set"
    assert "datasets.5" in problems(workspace, "datasets.5.repeats=3")


def test_a_profile_fills_what_a_dataset_does_not_say(workspace: Workspace) -> None:
    workspace.profiles.mkdir(parents=True)
    (workspace.profiles / "mine.toml").write_text("[datasets]\nflip = true\nrepeats = 7\n")
    direct = START | {"datasets": [{"path": "10_zorp", "repeats": 2}]}
    dataset = merged(workspace, profile="mine", direct=direct).config.datasets[0]
    assert (dataset.flip, dataset.repeats) == (True, 2)


def test_the_later_unit_of_length_wins_with_a_note(workspace: Workspace) -> None:
    result = merged(workspace, "training.epochs=3", profile="standard")
    assert (result.config.training.steps, result.config.training.epochs) == (None, 3)
    assert any("training.steps = 1500" in note and "dropped" in note for note in result.notes)
    assert (
        "steps or epochs"
        in problems(workspace, file=_file(workspace, "[training]\nsteps=1\nepochs=1"))["training.steps"].allowed
    )


def test_a_file_that_says_no_length_gets_one_with_a_note(workspace: Workspace) -> None:
    result = merged(workspace, file=_file(workspace, "[network]\nrank = 8\nalpha = 8\n"))
    assert result.config.training.steps == 1500 and result.config.profile == "custom"
    assert any("neither steps nor epochs" in note for note in result.notes)


def _file(workspace: Workspace, text: str) -> Path:
    path = workspace.root / "c.toml"
    path.write_text(text)
    return path


def test_alpha_keeps_its_ratio_when_only_the_rank_changes(workspace: Workspace) -> None:
    result = merged(workspace, "network.rank=48", profile="standard")
    assert result.config.network.alpha == 48 and any("network.alpha = 48" in note for note in result.notes)
    half = merged(workspace, "network.rank=64", file=_file(workspace, "[network]\nrank = 32\nalpha = 16\n"))
    assert half.config.network.alpha == 32
    told = merged(workspace, "network.rank=48", "network.alpha=7", profile="standard")
    assert told.config.network.alpha == 7
    first = merged(workspace, "network.alpha=7", "network.rank=48", profile="standard")
    assert first.config.network.alpha == 7


def test_contradictions_are_refused(workspace: Workspace) -> None:
    found = problems(
        workspace,
        "datasets.captions.dropout_every_n_epochs=1",
        "buckets.min_side=900",
        "buckets.max_side=800",
        "network.targets=atention_mlp",
        "sampling.prompts=zorp --q 4",
        "network.init_from=none-such.safetensors",
    )
    assert found.keys() == {
        "datasets.0.captions.dropout_every_n_epochs",
        "buckets.min_side",
        "network.targets",
        "sampling.prompts.0",
        "network.init_from",
    }
    assert found["network.targets"].remedy == "Did you mean attention_mlp?"
    assert "datasets" in problems(workspace, direct={"model.base": "tiny"})
    assert "datasets" in problems(workspace, "datasets.regularization=true")
    assert "datasets.0.path" in problems(workspace, direct=START | {"datasets": [{"path": "nowhere"}]})


def test_a_misspelt_sampler_is_refused_once(workspace: Workspace) -> None:
    found = problems(workspace, "sampling.sampler=dpm_2m_karras", "sampling.prompts=zorp")
    assert found["sampling.sampler"].remedy.startswith("Did you mean dpmpp_2m_karras")
    assert len(found) == 1
    assert "sampling.prompts" in problems(workspace, "sampling.prompts=zorp --ss flow_euler")


def test_a_base_of_another_family_is_refused_by_name(workspace: Workspace) -> None:
    problem = problems(workspace, "model.family=flux")["model.base"]
    assert "is sd15" in problem.given and "FLUX.1" in problem.allowed and "sd15 or auto" in problem.remedy


def test_a_missing_base_does_not_hide_the_other_problems(workspace: Workspace) -> None:
    found = problems(workspace, "network.rank=0", direct={"model.base": "tniy"})
    assert found["model.base"].remedy == "Did you mean tiny?"
    assert found.keys() == {"model.base", "network.rank", "datasets"}


def test_settings_without_effect_are_said(workspace: Workspace) -> None:
    flux_folder(workspace.models / "flux")
    notes = merged(workspace, "model.base=flux", profile="flux_final").notes
    assert any(note.startswith("loss.min_snr_gamma has no effect: a flow-matching loss") for note in notes)
    notes = merged(workspace, "schedule.cycles=4").notes
    assert "schedule.cycles = 4 has no effect: schedule.name is not cosine_with_restarts" in notes
    assert not any("has no effect" in note for note in merged(workspace).notes)


def test_a_written_run_loads_as_the_same_configuration(workspace: Workspace, tmp_path: Path) -> None:
    result = merged(
        workspace, "buckets.resolution=64x96", "network.block_ranks.mid=4", "sampling.prompts=zorp --w 64 --h 64"
    )
    path = tmp_path / "run" / "run.toml"
    write_toml(result, path)
    assert load(path) == result
    assert [file.name for file in path.parent.iterdir()] == ["run.toml"]
    text = path.read_text()
    assert "schema = 1\n" in text and 'kind = "train"' in text and "[sources]" in text


def test_a_run_can_be_the_start_of_another(workspace: Workspace, tmp_path: Path) -> None:
    first = merged(workspace, profile="quick_test")
    write_toml(first, tmp_path / "run.toml")
    again = resolve(workspace, file=tmp_path / "run.toml", overrides=["training.epochs=2"])
    assert again.config.profile == "quick_test"
    expected = first.config.model_copy(deep=True)
    expected.training.steps, expected.training.epochs = None, 2
    assert again.config == expected
    assert again.sources["network.rank"] == "file run.toml"


def test_a_newer_schema_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "new.toml"
    path.write_text(f"schema = {SCHEMA_VERSION + 1}\n")
    with pytest.raises(PilotError) as caught:
        read_toml(path)
    assert "newer" in caught.value.given and str(path) in caught.value.where


@pytest.mark.parametrize("head", ["schema = 0\n", ""])
def test_the_pre_release_format_is_migrated(workspace: Workspace, head: str) -> None:
    text = head + "[dataset]\npath = '10_zorp'\nrepeats = 3\n[training]\nsteps = 9\n"
    path = _file(workspace, text)
    config = resolve(workspace, file=path, direct={"model.base": "tiny"}).config
    assert [dataset.repeats for dataset in config.datasets] == [3]
    assert config.training.steps == 9
    assert path.read_text() == text


@pytest.mark.parametrize("content", [b"a = ", b"\xff\xfe", b"schema = true\n", b"schema = 'x'\n"])
def test_files_that_cannot_be_read_say_why(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(PilotError, match=r"bad\.toml"):
        read_toml(path)
    with pytest.raises(PilotError, match="does not exist"):
        read_toml(tmp_path / "none.toml")


def test_prodigy_takes_one_rate(workspace: Workspace) -> None:
    prodigy = ("optimizer.name=prodigy", "optimizer.learning_rate=1", "text_encoder.train=true")
    found = problems(workspace, *prodigy, "text_encoder.learning_rate=0.5", "optimizer.lora_plus_ratio=4")
    assert set(found) == {"text_encoder.learning_rate", "optimizer.lora_plus_ratio"}
    for rate in ("1", "0", "none"):
        merged(workspace, *prodigy, f"text_encoder.learning_rate={rate}")
    merged(workspace, *prodigy[:2], "text_encoder.learning_rate=0.5")  # not trained: no rate of it is used


def test_a_profile_may_be_set_like_any_other_setting(workspace: Workspace) -> None:
    by_set, by_name = merged(workspace, "profile=quick_test"), merged(workspace, profile="quick_test")
    assert by_set.config == by_name.config and by_set.config.profile == "quick_test"
    assert by_set.config.training.steps == 100


@pytest.mark.parametrize(
    ("setting", "along"),
    [
        ("optimizer.eps=1e-3", "optimizer.name=lion"),
        ("optimizer.eps=1e-3", "optimizer.name=adafactor"),
        ("optimizer.beta2=0.5", "optimizer.name=adafactor"),
        ("noise.sigmoid_scale=2", "noise.timesteps=uniform"),
    ],
)
def test_a_setting_that_another_keeps_idle_is_said(workspace: Workspace, setting: str, along: str) -> None:
    start = setting.partition("=")[0] + " = "
    assert any(n.startswith(start) and "no effect" in n for n in merged(workspace, setting, along).notes)
    assert not any(n.startswith(start) for n in merged(workspace, along).notes)
