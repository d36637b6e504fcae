"""What is on disk and what it is, what can be fetched, tokens, jobs and tests: the functions behind pages and API."""

from __future__ import annotations

import os
import stat
import subprocess
import sys

import pytest
from model_places import lora_bytes, with_base, with_lora, with_run_lora

from controlpilot.hub_tokens import HubTokens
from controlpilot.views import jobs, models
from controlpilot.views import test as tests
from controlpilot.views.refusals import Conflict, NotFound
from controlpilot.views.trash import Trash
from trainpilot.errors import ExitCode, PilotError
from trainpilot.families.card import cards
from trainpilot.models import fetch
from trainpilot.models.catalogue import catalogue
from trainpilot.runs.atomic import write_json
from trainpilot.runs.job import Job
from trainpilot.runs.jobdir import JobDir, read_job
from trainpilot.runs.process import Identity
from trainpilot.workspace import Workspace


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.setenv("PILOT_LOCKS", str(tmp_path / "locks"))
    return Workspace(tmp_path / "workspace")


def test_a_base_model_is_told_by_its_files(workspace):
    with_base(workspace)
    broken = workspace.models / "half" / "model_index.json"
    broken.parent.mkdir()
    broken.write_text('{"unet": ["diffusers", "UNet2DConditionModel"]}')
    half, tiny = models.bases(workspace)
    assert (tiny.name, tiny.family, tiny.label, tiny.tiny, tiny.problem) == (
        "pilot-tiny",
        "sd15",
        cards()["sd15"].label,
        True,
        None,
    )
    assert half.name == "half" and half.problem is not None and "is missing" in str(half.problem["message"])


def test_a_model_that_changed_is_looked_at_again(workspace):
    with_base(workspace)
    assert models.bases(workspace)[0].problem is None
    (workspace.models / "pilot-tiny" / "unet" / "config.json").unlink()
    assert models.bases(workspace)[0].problem is not None


def test_loras_are_identified_and_a_bad_file_says_why(workspace):
    with_lora(workspace)
    with_run_lora(workspace)
    (workspace.loras / "page.safetensors").write_text("<html>")
    (workspace.loras / "gone.safetensors").symlink_to("../../outputs/gone/gone.safetensors")
    found = {row.name: row for row in models.loras(workspace).loras}
    zorp = found["zorp.safetensors"]
    assert (zorp.title, zorp.family, zorp.kind, zorp.ranks, zorp.trigger) == ("Zorp", "sd15", "lora", [4], "zorp")
    assert found["hero.safetensors"].run == "hero" and found["hero.safetensors"].problem is None
    assert found["page.safetensors"].problem is not None
    assert "gone" in str((found["gone.safetensors"].problem or {})["message"])
    assert models.loras(workspace, "ZOR").total == 1
    assert models.lora(workspace, "zorp.safetensors").metadata["modelspec.title"] == "Zorp"


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "..",
        "",
        ".hidden.safetensors",
        "a/b.safetensors",
        "no.txt",
        "x\0",
        "é" * 150 + ".safetensors",
    ],
)
def test_a_lora_name_is_never_a_way_out(workspace, name):
    with_lora(workspace)
    for call in (models.lora, models.lora_file, models.trash_lora):
        with pytest.raises(NotFound):
            call(workspace, name)


def test_a_link_out_of_the_workspace_is_not_sent(workspace, tmp_path):
    with_lora(workspace)
    (tmp_path / "secret.safetensors").write_bytes(lora_bytes())
    (workspace.loras / "leak.safetensors").symlink_to(tmp_path / "secret.safetensors")
    with pytest.raises(NotFound):
        models.lora_file(workspace, "leak.safetensors")


def test_trashing_a_runs_lora_takes_the_link_alone_and_is_undone(workspace):
    link = with_run_lora(workspace)
    entry = models.trash_lora(workspace, link.name)
    assert not os.path.lexists(link) and (workspace.outputs / "hero" / "hero.safetensors").is_file()
    Trash(workspace).restore(entry.id)
    assert link.is_symlink() and link.is_file()


def test_the_catalogue_agrees_with_the_families(workspace):
    items, problems = catalogue(workspace)
    assert problems == [] and len({item.name for item in items}) == len(items)
    published = {base["repo"]: base for card in cards().values() for base in card.bases}
    for item in items:
        assert item.family in cards() and item.size_bytes > 10**8 and item.about and item.licence, item.name
        if item.kind == "base":
            assert (item.licence, item.gated) == (published[item.repo]["licence"], published[item.repo]["gated"])
    assert {"sd15", "sdxl", "flux-dev", "flux-schnell"} <= {item.name for item in items}
    assert {(i.family, i.kind) for i in items} >= {
        ("sd15", "vae"),
        ("sdxl", "vae"),
        ("flux", "vae"),
        ("flux", "text_encoder"),
    }


def test_a_catalogue_of_ones_own_is_read_and_its_mistakes_are_told(workspace):
    folder = workspace.root / "config" / "models"
    folder.mkdir(parents=True)
    (folder / "mine.toml").write_text(
        '[mine]\nlabel = "Mine"\nurl = "https://example.org/mine.safetensors"\nto = "mine"\n'
    )
    (folder / "bad.toml").write_text('[bad]\nlabel = "Bad"\n')
    found = models.offers(workspace, HubTokens(workspace.root / "secrets", {}))
    assert "mine" in {offer.item.name for offer in found.offers}
    assert len(found.problems) == 1 and "either repo or url" in str(found.problems[0]["message"])


def test_an_offer_says_what_stands_in_its_way(workspace, monkeypatch):
    tokens = HubTokens(workspace.root / "secrets", {})
    monkeypatch.setattr(models, "free_bytes", lambda _: 10**10 + fetch.RESERVE)
    found = {offer.item.name: offer for offer in models.offers(workspace, tokens).offers}
    assert found["flux-dev"].needs_token and not found["flux-dev"].fits
    assert not found["sdxl"].needs_token and found["sdxl"].fits and not found["sdxl"].here
    models.save_token(tokens, "HF_TOKEN", "hf_1234567890abcdef")
    found = {offer.item.name: offer for offer in models.offers(workspace, tokens).offers}
    assert not found["flux-dev"].needs_token


def test_tokens_are_kept_private_and_never_told(tmp_path):
    tokens = HubTokens(tmp_path / "secrets", {"CIVITAI_TOKEN": "from-the-environment"})
    told = models.save_token(tokens, "HF_TOKEN", "  hf_1234567890abcdef ")
    assert told == {"HF_TOKEN": "saved", "CIVITAI_TOKEN": "environment"}
    path = tmp_path / "secrets" / "hub_tokens.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert tokens.values() == {"HF_TOKEN": "hf_1234567890abcdef", "CIVITAI_TOKEN": "from-the-environment"}
    with pytest.raises(PilotError) as refused:
        models.save_token(tokens, "HF_TOKEN", "two words secret")
    assert "secret" not in refused.value.message
    with pytest.raises(NotFound):
        models.save_token(tokens, "AWS_SECRET", "x" * 20)
    assert models.save_token(tokens, "HF_TOKEN", "")["HF_TOKEN"] is None


def test_a_download_is_queued_once_cancelled_and_resumed(workspace):
    row = models.download(workspace, models.DownloadRequest(item="sd15"))
    assert (row.status, row.resource, row.title) == ("queued", "net", "Stable Diffusion 1.5")
    assert "courier" in row.nobody_works
    assert read_job(workspace.jobs / row.id)["params"]["to"] == "sd15"
    with pytest.raises(Conflict):
        models.download(workspace, models.DownloadRequest(item="sd15"))
    offer = next(o for o in models.offers(workspace, HubTokens(workspace.root, {})).offers if o.item.name == "sd15")
    assert offer.download is not None and offer.download.id == row.id
    assert jobs.act(workspace, row.id, "cancel").status == "stopped"
    with pytest.raises(Conflict):
        jobs.act(workspace, row.id, "cancel")
    assert jobs.act(workspace, row.id, "resume").status == "queued"
    entry = jobs.trash(workspace, row.id)
    assert jobs.listing(workspace).jobs == []
    Trash(workspace).restore(entry.id)
    assert jobs.listing(workspace).total == 1


def test_a_running_job_is_asked_to_stop_not_pushed(workspace):
    job = JobDir.create(workspace, "download", {"repo": "owner/name"})
    job.begin_attempt()
    job.state.write("download", 50, 100, eta=7.0, force=True, rate=5, unit="bytes", file="a.safetensors")
    row = jobs.one(workspace, job.name)
    assert (row.status, row.step, row.of, row.rate, row.eta, row.facts) == (
        "running",
        50,
        100,
        5,
        7.0,
        {"file": "a.safetensors"},
    )
    jobs.act(workspace, job.name, "cancel")
    assert job.requests.take("stop")
    with pytest.raises(Conflict):
        jobs.trash(workspace, job.name)
    job.finish("stopped", "by a person", ExitCode.STOPPED)
    assert jobs.one(workspace, job.name).can_resume


def test_a_job_whose_process_died_is_interrupted(workspace):
    job = JobDir.create(workspace, "download", {"repo": "owner/name"})
    dead = Identity(2**22 - 1, 1.0, Identity.own().boot, "here")
    Job("running", attempts=1, process=dead).write(job.path)
    assert jobs.one(workspace, job.name).status == "interrupted"
    assert jobs.act(workspace, job.name, "resume").status == "queued"


def test_only_the_newest_jobs_are_read(workspace, monkeypatch):
    monkeypatch.setattr(jobs, "MOST", 3)
    made = JobDir.create(workspace, "download", {"repo": "owner/name"})
    text = (made.path / "job.toml").read_text()
    stamps = ("20261121-204501", "20261121-091500", "20261121-204501-2", "20250101-235959", "20261121-204501-10")
    made.path.rename(workspace.jobs / f"download-{stamps[0]}")
    for stamp in stamps[1:]:
        (workspace.jobs / f"download-{stamp}").mkdir()
        (workspace.jobs / f"download-{stamp}" / "job.toml").write_text(text)
    found = jobs.listing(workspace)
    assert {row.id for row in found.jobs} == {f"download-20261121-204501{end}" for end in ("", "-2", "-10")}
    assert found.total == 5


def test_one_bad_job_folder_hides_no_other(workspace):
    JobDir.create(workspace, "download", {"repo": "owner/name"})
    for name, text in (("bad-1", "not toml ["), ("bad-2", "schema = 99"), ("bad-3", 'schema = 1\nkind = "gone"')):
        (workspace.jobs / name).mkdir()
        (workspace.jobs / name / "job.toml").write_text(text)
    found = jobs.listing(workspace)
    assert {row.kind for row in found.jobs} == {"download", "gone"}
    with pytest.raises(NotFound):
        jobs.one(workspace, "../outputs")


def test_a_test_becomes_a_job_with_its_columns(workspace):
    with_base(workspace)
    with_lora(workspace)
    checkpoint = with_run_lora(workspace)
    offered = tests.choices(workspace)
    assert offered.bases == ["pilot-tiny"]
    assert {choice.label for choice in offered.loras} == {"zorp", "hero", "hero, step 100"}
    assert checkpoint.is_file()
    asked = tests.TestRequest(base="pilot-tiny", prompts=["a zorp", "a zorp on a hill"], seeds=[1, 2], steps=2,
                              loras=[choice.file for choice in offered.loras], strengths=[0.5, 1.0])  # fmt: skip
    row = tests.start(workspace, asked)
    assert (row.kind, row.resource, row.status) == ("sample", "gpu", "queued")
    found = tests.result(workspace, row.id)
    assert found.of == 2 * 2 * (1 + 3 * 2) and found.done == 0
    assert [column.get("strength", 1.0) for column in found.params["columns"]] == [1.0] + [0.5, 1.0] * 3


def test_a_lora_of_another_family_is_refused_before_it_waits(workspace):
    with_base(workspace)
    with_lora(workspace, "big.safetensors", width=2048)
    request = tests.TestRequest(base="pilot-tiny", prompts=["a"], loras=["models/loras/big.safetensors"])
    with pytest.raises(PilotError, match="is for Stable Diffusion XL"):
        tests.start(workspace, request)
    for base, lora in (
        ("nothing", ""),
        ("pilot-tiny", "../../etc/x.safetensors"),
        ("pilot-tiny", "models/loras/none.safetensors"),
    ):
        with pytest.raises(PilotError):
            tests.start(workspace, tests.TestRequest(base=base, prompts=["a"], loras=[lora] if lora else []))
    assert jobs.listing(workspace).total == 0


def test_pictures_are_shown_as_they_arrive(workspace):
    with_base(workspace)
    row = tests.start(workspace, tests.TestRequest(base="pilot-tiny", prompts=["a zorp"], seeds=[1, 2], steps=2))
    folder = workspace.jobs / row.id
    prompt = {"text": "a zorp", "negative": "", "steps": 2, "guidance": 7.0, "width": 64, "height": 64}
    write_json(folder / "matrix.json", {"columns": [{"label": "base model", "lora": "", "strength": 1.0}],
                                        "rows": [{**prompt, "seed": 1}, {**prompt, "seed": 2}]})  # fmt: skip
    (folder / "pictures").mkdir()
    (folder / "pictures" / "c00_r000.png").write_bytes(b"png")
    found = tests.result(workspace, row.id)
    assert (found.done, found.of) == (1, 2)
    assert [one.pictures[0] is not None for one in found.rows] == [True, False]
    assert tests.picture_file(workspace, row.id, "c00_r000.png").read_bytes() == b"png"
    for name in ("../job.toml", "c00_r001.png", "matrix.json"):
        with pytest.raises(NotFound):
            tests.picture_file(workspace, row.id, name)


def test_no_view_brings_torch_along():
    rooms = "controlpilot.views.models, controlpilot.views.test, controlpilot.courier"
    heavy = "('torch', 'diffusers', 'transformers', 'flask')"
    code = f"import sys, {rooms}; import trainpilot.jobs as jobs; jobs.kinds(); "
    code += f"print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
