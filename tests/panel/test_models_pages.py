"""The Models and Test tabs and their API through the real application: what they show, change and refuse."""

from __future__ import annotations

import pytest
from model_places import with_base, with_lora, with_run_lora

from controlpilot.hub_tokens import HubTokens
from trainpilot.runs.jobdir import JobDir, jobdirs

TOKEN = "hf_abcdefghijklmnop1234"


@pytest.fixture(autouse=True)
def _own_locks(tmp_path, monkeypatch):
    monkeypatch.setenv("PILOT_LOCKS", str(tmp_path / "locks"))
    for name in ("HF_TOKEN", "CIVITAI_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def test_an_empty_workspace_shows_the_next_step(panel):
    page = panel.client.get("/models").text
    assert "No base model yet" in page and "Stable Diffusion 1.5" in page and "FLUX.1 [dev]" in page
    assert "A test needs a base model" in panel.client.get("/test").text


def test_models_and_loras_are_listed_with_what_they_are(panel):
    with_base(panel.workspace)
    with_lora(panel.workspace)
    with_run_lora(panel.workspace)
    page = panel.client.get("/models").text
    assert "pilot-tiny" in page and "Miniature" in page and "trigger <strong>zorp</strong>" in page
    assert 'of run <a href="/runs/hero">hero</a>' in page
    detail = panel.client.get("/models/loras/zorp.safetensors").text
    assert "modelspec.trigger_phrase" in detail
    sent = panel.client.get("/models/loras/zorp.safetensors/file")
    assert sent.data == (panel.workspace.loras / "zorp.safetensors").read_bytes()
    assert "attachment" in sent.headers["Content-Disposition"]


def test_a_download_begins_is_cancelled_resumed_and_taken_off(panel):
    client = panel.client
    assert client.post("/models/download", data={"item": "sd15"}).status_code == 303
    (folder,) = jobdirs(panel.workspace)
    page = client.get("/models?part=downloads").text
    assert "Stable Diffusion 1.5" in page and "Queued" in page and "controlpilot courier" in page
    again = client.post("/models/download", data={"item": "sd15"})
    assert again.status_code == 409 and "is on its way" in again.text
    assert client.post(f"/models/downloads/{folder.name}/cancel").status_code == 303
    assert "Stopped" in client.get("/models?part=downloads").text
    live = client.post(f"/models/downloads/{folder.name}/resume", headers={"HX-Request": "true"})
    assert live.status_code == 200 and "Queued" in live.text
    client.post(f"/models/downloads/{folder.name}/cancel")
    gone = client.post(f"/models/downloads/{folder.name}/remove")
    assert gone.status_code == 303 and not folder.exists()
    undo = gone.headers["Location"].partition("undo=")[2].partition("#")[0]
    assert client.post(f"/models/undo/{undo}").status_code == 303 and folder.exists()


@pytest.mark.parametrize(
    ("given", "params"),
    [
        ("owner/name", {"repo": "owner/name"}),
        ("https://huggingface.co/owner/name", {"repo": "owner/name"}),
        ("https://huggingface.co/owner/name/tree/main", {"repo": "owner/name"}),
        (
            "https://huggingface.co/owner/name/blob/main/a.safetensors",
            {"url": "https://huggingface.co/owner/name/resolve/main/a.safetensors"},
        ),
        ("https://example.org/a.safetensors", {"url": "https://example.org/a.safetensors"}),
    ],
)
def test_one_field_takes_addresses_and_repositories(panel, given, params):
    assert panel.client.post("/models/download", data={"source": given, "to": "mine"}).status_code == 303
    (folder,) = jobdirs(panel.workspace)
    found = JobDir.open(folder, panel.workspace).params.model_dump()
    assert {name: found[name] for name in params} == params and found["to"] == "mine"


@pytest.mark.parametrize(
    "given", ["file:///etc/passwd", "not a thing", "https://example.org/a?token=verysecret1", "../x"]
)
def test_what_cannot_be_fetched_comes_back_with_the_reason(panel, given):
    answer = panel.client.post("/models/download", data={"source": given, "to": "mine"})
    assert answer.status_code == 400 and 'role="alert"' in answer.text and 'value="mine"' in answer.text
    assert jobdirs(panel.workspace) == []


def test_a_token_is_saved_and_never_shown(panel):
    client = panel.client
    assert client.post("/models/tokens/HF_TOKEN", data={"value": TOKEN}).status_code == 303
    assert HubTokens(panel.settings.secrets).values()["HF_TOKEN"] == TOKEN
    for url in ("/models", "/api/v1/models/tokens", "/api/v1/models/catalogue"):
        assert TOKEN not in client.get(url).text
    assert client.get("/api/v1/models/tokens").json == {"HF_TOKEN": "saved", "CIVITAI_TOKEN": None}
    bad = client.post("/models/tokens/HF_TOKEN", data={"value": "my secret token"})
    assert bad.status_code == 400 and "my secret token" not in bad.text
    assert client.post("/models/tokens/HF_TOKEN", data={"value": ""}).status_code == 303
    assert HubTokens(panel.settings.secrets).values() == {}
    assert client.post("/models/tokens/PATH", data={"value": TOKEN}).status_code == 404


def test_a_lora_goes_to_the_trash_and_comes_back(panel):
    with_lora(panel.workspace)
    answer = panel.client.post("/models/loras/zorp.safetensors/trash")
    page = panel.client.get(answer.headers["Location"]).text
    assert not (panel.workspace.loras / "zorp.safetensors").exists() and "Undo" in page
    undo = answer.headers["Location"].partition("undo=")[2]
    panel.client.post(f"/models/undo/{undo}")
    assert (panel.workspace.loras / "zorp.safetensors").is_file()


def test_a_test_is_started_shown_and_repeated(panel):
    with_base(panel.workspace)
    with_lora(panel.workspace)
    form = {"base": "pilot-tiny", "prompts": "a zorp\na hill\n", "seeds": "1, 2", "steps": "3", "guidance": "",
            "loras": ["models/loras/zorp.safetensors"], "strengths": "0.5, 1", "with_base": "1"}  # fmt: skip
    answer = panel.client.post("/test", data=form)
    assert answer.status_code == 303, answer.text
    (folder,) = jobdirs(panel.workspace)
    params = JobDir.open(folder, panel.workspace).params.model_dump()
    assert [column["strength"] for column in params["columns"]] == [1.0, 0.5, 1.0] and params["seeds"] == [1, 2]
    page = panel.client.get(answer.headers["Location"]).text
    assert "12 pictures wait for their turn" in page and "trainpilot worker" in page
    like = panel.client.get(f"/test?like={folder.name}").text
    assert "a zorp\na hill" in like and 'value="0.5, 1"' in like and "checked" in like
    assert panel.client.post(f"/test/{folder.name}/cancel").status_code == 303
    assert panel.client.get(f"/test/{folder.name}?part=matrix").headers["HX-Refresh"] == "true"
    assert panel.client.post(f"/test/{folder.name}/trash").status_code == 303 and not folder.exists()


def test_a_test_that_cannot_be_comes_back_with_the_reason(panel):
    with_base(panel.workspace)
    with_lora(panel.workspace, "big.safetensors", width=2048)
    form = {"base": "pilot-tiny", "prompts": "a zorp", "loras": ["models/loras/big.safetensors"]}
    answer = panel.client.post("/test", data=form)
    assert (
        answer.status_code == 400
        and "is for Stable Diffusion XL" in answer.text
        and ">a zorp</textarea>" in answer.text
    )
    for wrong in ({"prompts": ""}, {"prompts": "a", "seeds": "x"}, {"prompts": "a", "steps": "999"}):
        answer = panel.client.post("/test", data={"base": "pilot-tiny", **wrong})
        assert answer.status_code == 400 and 'role="alert"' in answer.text


def test_the_api_says_the_same(panel):
    with_base(panel.workspace)
    with_lora(panel.workspace)
    client = panel.client
    assert client.get("/api/v1/models").json[0]["name"] == "pilot-tiny"
    assert client.get("/api/v1/models/loras?search=zor").json["total"] == 1
    assert client.get("/api/v1/models/loras/none.safetensors").status_code == 404
    begun = client.post("/api/v1/models/downloads", json={"repo": "owner/name"})
    assert begun.status_code == 202
    ident = begun.json["id"]
    assert client.get("/api/v1/jobs?live=true").json["jobs"][0]["id"] == ident
    assert client.post(f"/api/v1/jobs/{ident}/cancel").json["status"] == "stopped"
    assert client.post(f"/api/v1/jobs/{ident}/cancel").status_code == 409
    assert client.post(f"/api/v1/jobs/{ident}/resume").json["status"] == "queued"
    assert client.get(f"/api/v1/jobs/{ident}/log").status_code == 200
    assert client.delete(f"/api/v1/jobs/{ident}").json["undo"]
    assert client.post("/api/v1/jobs", json={"kind": "nothing", "params": {}}).status_code == 400
    made = client.post("/api/v1/tests", json={"base": "pilot-tiny", "prompts": ["a zorp"]})
    assert made.status_code == 202
    assert client.get(f"/api/v1/tests/{made.json['id']}").json["of"] == 1
    assert client.get("/api/v1/tests/choices").json["bases"] == ["pilot-tiny"]
    assert client.get("/api/v1/tests").json["total"] == 1
    removed = client.delete("/api/v1/models/loras/zorp.safetensors")
    assert removed.status_code == 200 and removed.json["undo"]


def test_nothing_is_told_without_a_login(panel):
    with_lora(panel.workspace)
    for url in ("/models", "/test", "/models/loras/zorp.safetensors/file", "/api/v1/jobs", "/api/v1/models/tokens"):
        assert panel.anonymous.get(url).status_code in (302, 303, 401), url
    assert panel.anonymous.post("/models/tokens/HF_TOKEN", data={"value": TOKEN}).status_code in (302, 303, 401, 403)
    assert not (panel.settings.secrets / "hub_tokens.json").exists()
