"""Packaging and publishing: what is in the zip, on the card and in the repository, and what never leaves."""

from __future__ import annotations

import ast
import hashlib
import json
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis.strategies as st
import pytest
import yaml
from hub_server import Hub, serving
from huggingface_hub import constants
from hypothesis import given, settings
from light_bases import sd_folder
from lora_files import FLUX, lora
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from trainpilot import cli
from trainpilot.config.merge import Resolved
from trainpilot.config.schema import RunConfig
from trainpilot.errors import ExitCode, PilotError
from trainpilot.formats import comfyui
from trainpilot.formats.link import folder_of, link
from trainpilot.formats.model_card import front_matter, model_card, snippet
from trainpilot.formats.package import contents, package
from trainpilot.formats.publication import prepared
from trainpilot.formats.release import Release, gather
from trainpilot.models import web
from trainpilot.runs.events import history
from trainpilot.runs.jobdir import JobDir, jobdirs
from trainpilot.runs.requests import ask as ask_for
from trainpilot.runs.rundir import RunDir
from trainpilot.workspace import Workspace

TOKEN = "hf_" + "publish9" * 4
TAGS = {"ss_tag_frequency": json.dumps({"10_zorp": {"zorp": 3}})}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("PILOT_LOCKS", str(tmp_path / "locks"))
    for name in ("HF_TOKEN", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    return Workspace(tmp_path / "workspace")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving(TOKEN) as found:
        monkeypatch.setenv(web.HUB_VARIABLE, found.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield found


def finished(place: Workspace, name: str = "zorp", **metadata: str) -> RunDir:
    """A run as the trainer leaves it: result, samples of two steps, the reproducibility record."""
    config = RunConfig(
        run={"name": name, "comment": ""},
        model={"base": str(sd_folder(place.models / "mine")), "family": "sd15"},
        datasets=[{"path": str(place.datasets / "images" / "10_zorp"), "captions": {"trigger": "zorp"}}],
        sampling={"prompts": ["a zorp"]},
        notifications={"webhook_env": "MY_HOOK"},
    )
    run = RunDir.create(place, Resolved(config, {}))
    lora(run.result, {"ss_sd_model_name": "mine", "ss_steps": "20", **TAGS, **metadata})
    run.samples.mkdir()
    for step in (10, 20):
        for number in range(2):
            text = PngInfo()
            text.add_itxt("prompt", f"a zorp [{number}]\nat {step}")
            text.add_itxt("seed", "7")
            Image.new("RGB", (8, 8)).save(run.samples / f"step-{step:08d}_p{number}.png", pnginfo=text)
    place.logs.mkdir(exist_ok=True)
    record = {"seed": 3, "images": 12, "dataset_hash": "ab" * 32, "versions": {"torch": "2"}, "command": ["secret"]}
    (place.logs / f"{run.name}_repro.json").write_text(json.dumps(record))
    return run


def unpacked(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


# --- package ----------------------------------------------------------------------------------------------------------


def test_a_package_holds_all_that_belongs_to_it_and_nothing_of_the_machine(place: Workspace, tmp_path: Path) -> None:
    run = finished(place)
    package(gather(place, "zorp"), tmp_path / "zorp.zip")
    found = unpacked(tmp_path / "zorp.zip")
    names = {name.removeprefix("zorp/") for name in found}
    assert names == {
        *("README.md", "zorp.safetensors", "settings.toml", "comfyui.json", "comfyui_api.json", "lora.json"),
        *("hashes.txt", "samples/step-00000020_p0.png", "samples/step-00000020_p1.png"),
    }
    assert found["zorp/zorp.safetensors"] == run.result.read_bytes()
    listed = dict(line.split("  ", 1)[::-1] for line in found["zorp/hashes.txt"].decode().splitlines())
    assert set(listed) == names - {"hashes.txt"}
    for name, digest in listed.items():
        assert hashlib.sha256(found[f"zorp/{name}"]).hexdigest() == digest
    everything = b"".join(found.values())
    for private in (str(place.root), "MY_HOOK", "secret"):
        assert private.encode() not in everything
    assert json.loads(found["zorp/lora.json"])["in_a_prompt"] == "<lora:zorp:0.8>"
    with pytest.raises(PilotError, match="exists already"):
        package(gather(place, "zorp"), tmp_path / "zorp.zip")


def test_the_same_lora_gives_the_same_bytes(place: Workspace, tmp_path: Path) -> None:
    run = finished(place)
    package(gather(place, "zorp"), tmp_path / "a.zip")
    run.result.touch()
    package(gather(place, str(run.path)), tmp_path / "b.zip")
    package(gather(place, str(run.result)), tmp_path / "c.zip")
    assert len({(tmp_path / name).read_bytes() for name in ("a.zip", "b.zip", "c.zip")}) == 1
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["a.zip", "b.zip", "c.zip"]


def test_a_run_without_a_result_and_a_name_without_a_run_are_told(place: Workspace) -> None:
    run = finished(place)
    run.result.unlink()
    with pytest.raises(PilotError, match=r"no zorp\.safetensors yet"):
        gather(place, "zorp")
    with pytest.raises(PilotError, match="allowed: zorp"):
        gather(place, "zorb")


# --- card -------------------------------------------------------------------------------------------------------------


def release(place: Workspace, name: str = "a", family_name: str = "", **metadata: str) -> Release:
    return gather(
        place,
        str(lora(place.loras / f"{name}.safetensors", metadata, **({"name": family_name} if family_name else {}))),
    )


def test_the_card_says_what_the_hub_reads(place: Workspace) -> None:
    finished(place)
    own = gather(place, "zorp", base_repo="stable-diffusion-v1-5/stable-diffusion-v1-5")
    card = model_card(own, "me/zorp")
    assert card.startswith("---\n")
    front = yaml.safe_load(card.split("---\n")[1])
    assert front == front_matter(own)
    assert front["license"] == "creativeml-openrail-m" and front["instance_prompt"] == "zorp"
    assert (front["base_model"], front["base_model_relation"]) == (own.base_repo, "adapter")
    assert front["widget"][0] == {"text": "a zorp [0]\nat 20", "output": {"url": "samples/step-00000020_p0.png"}}
    assert "<lora:zorp:0.8> zorp, " in card and "| Pictures | 12 |" in card
    assert not [text for text in own.warnings if "licence" in text]
    code = snippet(own, "me/zorp").removeprefix("```python\n").removesuffix("```\n")
    ast.parse(code)
    assert "'me/zorp', weight_name='zorp.safetensors'" in code and own.base_repo in code


@settings(max_examples=40)
@given(
    title=st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=40),
    trigger=st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=40),
    licence=st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=40),
)
def test_front_matter_is_yaml_whatever_people_write(
    tmp_path_factory: pytest.TempPathFactory, title: str, trigger: str, licence: str
) -> None:
    said = {"modelspec.title": title, "modelspec.trigger_phrase": trigger, "modelspec.license": licence}
    own = release(Workspace(tmp_path_factory.mktemp("w")), **said)
    card = model_card(own)
    front = yaml.safe_load(card[4 : card.index("\n---\n", 4)])
    assert front == front_matter(own)
    assert front.get("instance_prompt", "") == trigger
    ast.parse(snippet(own, "").removeprefix("```python\n").removesuffix("```\n"))


def test_a_non_commercial_base_is_told_and_passed_on(place: Workspace) -> None:
    dev = release(place, "dev", FLUX, ss_base_model_version="flux1")
    assert dev.licence == dev.base_licence and dev.licence.non_commercial
    front = front_matter(dev)
    assert (front["license"], front["license_name"]) == ("other", "flux.1-dev-non-commercial-license")
    assert "may not be offered or used commercially" in dev.warnings[0]
    assert "forbids commercial use" in model_card(dev)
    free = gather(place, str(dev.file), licence="mit")
    assert "mit allows more than the base's licence does" in " ".join(free.warnings)
    unknown = release(place, "sd")
    assert unknown.licence is None and "not known here" in unknown.warnings[0]
    assert "license" not in front_matter(unknown)


def test_kinds_that_diffusers_does_not_read_say_so(place: Workspace) -> None:
    path = lora(place.loras / "a.safetensors")
    data = (
        path.read_bytes()
        .replace(b"lora_down.weight", b"hada_w1_b.......")
        .replace(b"lora_up.weight", b"hada_w1_a.....")
    )
    path.write_bytes(data)
    assert "diffusers does not read loha" in snippet(gather(place, str(path)), "")


# --- ComfyUI, A1111 ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["sd15", "sdxl", "flux"])
def test_both_forms_of_a_workflow_are_the_same_graph(family: str) -> None:
    graph = comfyui.workflow(family, "zorp.safetensors", "mine.safetensors", 'a "zorp"', 0.7)
    drawn = comfyui.canvas(graph)
    links = {link[0]: link for link in drawn["links"]}
    nodes = {node["id"]: node for node in drawn["nodes"]}
    assert len(links) == drawn["last_link_id"] and max(nodes) == drawn["last_node_id"]
    places = [tuple(node["pos"]) for node in nodes.values()]
    assert len(set(places)) == len(places)
    for number, node in nodes.items():
        given = graph[str(number)]
        values = iter(node["widgets_values"])
        back: dict[str, object] = {}
        for entry in node["inputs"]:
            _, source, slot, target, _, kind = links[entry["link"]]
            assert target == number and nodes[source]["outputs"][slot]["type"] == kind == entry["type"]
            assert entry["link"] in nodes[source]["outputs"][slot]["links"]
            back[entry["name"]] = [str(source), slot]
        for name in [name for name in given["inputs"] if name not in back]:
            back[name] = next(values)
            if name == "seed":
                assert next(values) == "fixed"
        assert (node["type"], back) == (given["class_type"], given["inputs"]) and not list(values)
    (loader,) = [node for node in graph.values() if node["class_type"] == "LoraLoader"]
    assert loader["inputs"]["lora_name"] == "zorp.safetensors" and loader["inputs"]["strength_model"] == 0.7
    assert any("mine.safetensors" in node["inputs"].values() for node in graph.values())
    with pytest.raises(PilotError):
        comfyui.workflow("other", "a", "b", "c")


def test_a_lora_is_linked_or_copied_and_nothing_is_overwritten(
    place: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = lora(place.loras / "a.safetensors")
    comfy, forge = tmp_path / "ComfyUI" / "models" / "loras", tmp_path / "forge" / "models" / "Lora"
    for folder in (comfy, forge):
        folder.mkdir(parents=True)
    assert folder_of("comfyui", tmp_path / "ComfyUI") == comfy == folder_of("comfyui", comfy)
    assert (link(file, comfy).how, link(file, comfy).how) == ("link", "already there")
    assert (comfy / "a.safetensors").resolve() == file

    def no_links(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", no_links)
    made = link(file, forge)
    assert (made.how, made.why) == ("copy", "Operation not permitted")
    assert (forge / "a.safetensors").read_bytes() == file.read_bytes() and link(file, forge).how == "already there"
    (forge / "a.safetensors").write_bytes(b"mine")
    with pytest.raises(PilotError, match="another file of that name"):
        link(file, forge)
    assert (forge / "a.safetensors").read_bytes() == b"mine"
    with pytest.raises(PilotError, match="models/Lora"):
        folder_of("a1111", tmp_path / "ComfyUI")


def test_the_verb_link(place: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished(place)
    loras = tmp_path / "ComfyUI" / "models" / "loras"
    loras.mkdir(parents=True)
    words = ["link", "zorp", "--comfyui", str(tmp_path / "ComfyUI"), "--workspace", str(place.root)]
    words += ["--workflow", str(tmp_path / "w.json"), "--strength", "0.65"]
    assert cli.main(words) == 0
    assert "in a prompt: <lora:zorp:0.65> zorp" in capsys.readouterr().out
    assert (loras / "zorp.safetensors").is_symlink()
    assert json.loads((tmp_path / "w.json").read_text())["nodes"]
    assert cli.main(words) == 2, "the workflow is there already"


# --- publish ----------------------------------------------------------------------------------------------------------


def publish(place: Workspace, *words: str) -> int:
    return cli.main(["publish", "zorp", "--repo", "me/zorp", "--workspace", str(place.root), *words])


def test_it_arrives_whole_and_private(place: Workspace, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    run = finished(place)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert publish(place) == 0
    there = hub.repos["me/zorp"]
    assert there.private and there.commits == ["Upload zorp"]
    packed = {one.name: b"".join(one.blocks()) for one in contents(gather(place, "zorp"), "me/zorp")}
    assert there.files == packed and there.files["zorp.safetensors"] == run.result.read_bytes()
    assert "from_pretrained('path/to/mine'" in there.files["README.md"].decode()
    assert not any(TOKEN.encode() in data for data in there.files.values())


def test_a_repository_that_exists_needs_update_and_stays_as_private_as_was_asked(
    place: Workspace, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(place)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert publish(place, "--public") == 0 and not hub.repos["me/zorp"].private
    assert publish(place, "--public") == 2
    assert "409: this repository exists already" in capsys.readouterr().err
    assert publish(place, "--update") == 2
    assert "a public repository, and the LoRA was to stay private" in capsys.readouterr().err
    assert publish(place, "--update", "--public", "--message", "Second") == 0
    assert hub.repos["me/zorp"].commits == ["Upload zorp", "Second"]


@pytest.mark.parametrize(
    ("where", "status", "code", "words"),
    [
        ("/api/repos/create", 401, 2, "401: the Hub does not know this token"),
        ("/api/repos/create", 403, 2, "403: this token may not write there (refused with 403)"),
        ("/api/models/me/zorp/preupload", 403, 2, "403: this token may not write there"),
        ("/store/", 403, 2, "403"),
        ("/api/models/me/zorp/commit", 409, 3, "409: the repository was changed meanwhile"),
        ("/api/models/me/zorp/commit", 413, 2, "413: too large"),
    ],
)
def test_refusals_are_told_apart(
    place: Workspace,
    hub: Hub,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    where: str,
    status: int,
    code: int,
    words: str,
) -> None:
    finished(place)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.refuse[where] = status
    assert publish(place) == code
    told = capsys.readouterr()
    assert words in told.err and TOKEN not in told.err + told.out
    assert not hub.repos or not hub.repos["me/zorp"].commits


def test_another_owner_and_a_wrong_and_a_missing_token(
    place: Workspace, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(place)
    assert publish(place) == 2 and "no token" in capsys.readouterr().err and not hub.seen
    monkeypatch.setenv("HF_TOKEN", "hf_" + "wrongone" * 4)
    assert publish(place) == 2 and "401" in capsys.readouterr().err
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert cli.main(["publish", "zorp", "--repo", "you/zorp", "--workspace", str(place.root)]) == 2
    assert "403" in capsys.readouterr().err
    monkeypatch.setenv(web.HUB_VARIABLE, "http://127.0.0.1:9")
    assert publish(place) == 3 and "no connection" in capsys.readouterr().err


def test_a_dry_run_tells_everything_and_asks_nobody(
    place: Workspace, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(place)
    assert publish(place, "--dry-run") == 0
    out = capsys.readouterr().out
    for words in ("private: only you see it", "zorp.safetensors", "README.md", "--without-tags", "nothing was sent"):
        assert words in out
    assert publish(place, "--dry-run", "--public", "--without-tags", "--no-samples", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert not told["private"] and not [text for text in told["warnings"] if "tags" in text]
    assert not [one for one in told["files"] if one["name"].startswith("samples/")] and not hub.seen


def test_tags_can_stay_at_home(place: Workspace) -> None:
    run = finished(place)
    with prepared(place, gather(place, "zorp"), "me/zorp", without_tags=True) as publication:
        (sent,) = [file for file in publication.files if file.name == "zorp.safetensors"]
        assert b"ss_tag_frequency" not in b"".join(sent.blocks())
    assert b"ss_tag_frequency" in run.result.read_bytes()


@pytest.mark.parametrize("where", ["modelspec.description", "ss_training_comment"])
def test_a_secret_in_a_text_or_a_header_never_leaves(
    place: Workspace, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], where: str
) -> None:
    finished(place, **{where: "made with hf_abcdefghijklmnopqrst"})
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert publish(place) == 2
    told = capsys.readouterr().err
    assert "looks like a token" in told and "abcdefgh" not in told and not hub.seen


def test_datasets_configuration_keys_and_pickles_are_not_included(place: Workspace, tmp_path: Path) -> None:
    finished(place)
    own = gather(place, "zorp")
    picture, config = place.datasets / "images" / "10_zorp" / "a.png", place.root / "config" / "panel" / "x.txt"
    refused = [picture, config, tmp_path / "id_rsa", tmp_path / ".env", tmp_path / "model.ckpt", tmp_path / "README.md"]
    for path in refused:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    link_to = tmp_path / "innocent.png"
    link_to.symlink_to(picture)
    for path in (*refused, link_to, tmp_path / "absent.txt"):
        with pytest.raises(PilotError), prepared(place, own, "me/zorp", include=[path]):
            pass
    notes = tmp_path / "notes.txt"
    notes.write_text("fine")
    with prepared(place, own, "me/zorp", include=[notes]) as publication:
        assert publication.files[-1].name == "notes.txt"
    for repo in ("zorp", "me/zorp/x", "../x", "me/zo rp"):
        with pytest.raises(PilotError), prepared(place, own, repo):
            pass


def test_the_job(place: Workspace, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    finished(place)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    job = JobDir.create(place, "publish", {"lora": "zorp", "repo": "me/zorp", "without_tags": True})
    assert job.resource == "net" and cli.main(["run", str(job.path)]) == 0
    assert job.job is not None and "(private, commit" in job.job.reason
    (event,) = [event for event in history(job.path / "events.jsonl") if event["kind"] == "published"]
    assert event["url"] == f"{hub.url}/me/zorp" and event["created"]
    written = b"".join(path.read_bytes() for path in job.path.rglob("*") if path.is_file())
    assert TOKEN.encode() not in written
    elsewhere = lora(place.root / "config" / "a.safetensors")
    other = JobDir.create(place, "publish", {"lora": str(elsewhere), "repo": "me/other"})
    assert cli.main(["run", str(other.path)]) == ExitCode.BAD_INPUT and "me/other" not in hub.repos
    with pytest.raises(PilotError):
        JobDir.create(place, "publish", {"lora": "zorp", "repo": "zorp"})


def test_a_run_that_names_a_repository_queues_its_publication(
    place: Workspace, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finished(place)
    run.config.saving.hub_model_id = "me/mine"
    run.begin_attempt()
    run.finish("done", "trained", ExitCode.DONE)
    (folder,) = jobdirs(place)
    assert f"trainpilot run {folder}" in capsys.readouterr().out
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert cli.main(["run", str(folder)]) == 0
    assert hub.repos["me/mine"].private and "zorp.safetensors" in hub.repos["me/mine"].files
    with pytest.raises(ValueError, match="hub_model_id"):
        RunConfig(saving={"hub_model_id": "mine"})


def test_a_stop_does_not_wait_for_the_network(place: Workspace, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    finished(place)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.gate = threading.Event()
    job = JobDir.create(place, "publish", {"lora": "zorp", "repo": "me/zorp"})

    def ask() -> None:
        while not any(path.startswith("/store/") for _, path in hub.seen):
            waiting.wait(0.01)
        ask_for(job.path, "stop")

    waiting = threading.Event()
    threading.Thread(target=ask, daemon=True).start()
    assert cli.main(["run", str(job.path)]) == ExitCode.STOPPED
    assert not hub.repos["me/zorp"].commits and not hub.gate.is_set()
