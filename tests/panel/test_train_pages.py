"""The wizard over HTTP, without a browser: what a form sends, what comes back, and the run at its end."""

from __future__ import annotations

import html
import json
import re

import pytest
from flask.testing import FlaskClient
from picture_folders import measured, with_demo

from controlpilot.views.drafts import Drafts
from trainpilot.runs.rundir import RunDir


@pytest.fixture
def place(panel):
    workspace = with_demo(panel.workspace.root)
    measured(workspace, workspace.datasets)
    return panel


def begun(client: FlaskClient, **form: str) -> str:
    answer = client.post("/train", data=form)
    assert answer.status_code == 303
    return answer.headers["Location"].split("?")[0]


def data_of(text: str, name: str):
    return json.loads(html.unescape(re.search(rf'data-{name}="([^"]*)"', text)[1]))


def test_six_steps_by_plain_forms_lead_to_a_queued_run(place):
    client = place.client
    draft = begun(client)
    forms = [
        {"kind": "character"},
        {"datasets_shown": "1", "datasets": ["10_zorp"], "set.datasets.0.captions.trigger": "zorp"},
        {
            "profile": "quick_test",
            "set.network.rank": "8",
            "set.buckets.resolution": "64",
            "set.buckets.max_side": "96",
        },
        {"base": "pilot-tiny"},
        {"name": "first", "price_per_hour": "0,5"},
    ]
    for step, form in enumerate(forms, 1):
        page = client.get(f"{draft}?step={step}")
        assert page.status_code == 200
        answer = client.post(draft, data=form | {"step": str(step), "go": str(step + 1)})
        assert (answer.status_code, answer.headers["Location"]) == (303, f"{draft}?step={step + 1}")
    review = client.get(f"{draft}?step=5").text
    assert "trainpilot train --profile quick_test" in review and "datasets.0.captions.trigger=zorp" in html.unescape(
        review
    )
    last = client.get(f"{draft}?step=6").text
    assert 'data-state="ready"' in last and "Not complete" not in last
    answer = client.post(draft, data={"step": "6", "go": "start"})
    assert answer.headers["Location"] == "/train/started/first"
    assert "in the queue" in client.get("/train/started/first").text
    run = RunDir.find(place.workspace, "first")
    assert run.job.status == "queued" and run.config.network.rank == 8 and run.config.training.steps == 100
    assert run.config.sampling.prompts[0].startswith("zorp, full body")
    assert client.get(draft).status_code == 404 and Drafts(place.workspace).all() == []


def test_the_plan_fragment_keeps_the_change_and_names_problems_at_their_fields(place):
    client = place.client
    draft = begun(client, demo="1")
    before = data_of(client.get(draft).text, "values")
    answer = client.post(f"{draft}/plan", data={"set.network.rank": "64"}).text
    values = data_of(answer, "values")
    assert before["network.rank"] == ["16", "profile demo"] and values["network.rank"] == ["64", "you"]
    assert values["network.alpha"] == ["64", "decided here"] and data_of(answer, "problems") == []
    bad = client.post(f"{draft}/plan", data={"set.network.rank": "many", "set.optimizer.name": "adam8bit"}).text
    problems = dict(data_of(bad, "problems"))
    assert (
        set(problems) == {"network.rank", "optimizer.name"} and "Did you mean adamw8bit?" in problems["optimizer.name"]
    )
    assert "(from --set)" not in bad
    page = client.get(f"{draft}?step=3").text
    assert page.count('aria-invalid="true"') == 2 and 'value="many"' in page
    cleared = client.post(f"{draft}/plan", data={"set.network.rank": "", "set.optimizer.name": ""}).text
    assert data_of(cleared, "values")["network.rank"] == ["16", "profile demo"]


def test_the_third_step_has_a_field_for_every_setting(place):
    from trainpilot.config.describe import dataset_settings, settings

    draft = begun(place.client, demo="1")
    names = set(re.findall(r'name="set\.([^"]+)"', place.client.get(f"{draft}?step=3").text))
    wanted = set(settings()) - {"profile", "run.name", "model.base", "datasets"}
    assert names == wanted | {f"datasets.0.{path}" for path in dataset_settings() if path != "path"}


def test_a_start_that_cannot_be_says_everything_and_makes_nothing(place):
    draft = begun(place.client)
    answer = place.client.post(draft, data={"step": "6", "go": "start"})
    assert answer.status_code == 200 and "Choose a dataset" in answer.text
    assert list(place.workspace.outputs.iterdir()) == []
    assert len(Drafts(place.workspace).all()) == 1


def test_the_demo_and_a_clone_are_one_click_and_one_untouched_draft(place):
    client = place.client
    first = client.get("/train?demo=1").headers["Location"]
    assert client.get("/train?demo=1").headers["Location"] == first
    client.post(first.split("?")[0], data={"step": "6", "go": "start"})
    assert RunDir.find(place.workspace, "demo").config.profile == "demo"
    clone = client.get("/train?from=demo").headers["Location"]
    text = client.get(clone).text
    assert "from run demo" in text and 'value="demo"' in text
    missing = client.get("/train?from=nosuch")
    assert 400 <= missing.status_code < 500


def test_a_price_that_is_none_is_named(place):
    draft = begun(place.client, demo="1")
    answer = place.client.post(f"{draft}/plan", data={"price_per_hour": "cheap"})
    assert answer.status_code == 200 and "price_per_hour" in answer.text
    assert "no price" in answer.text
    assert "no price" not in place.client.post(f"{draft}/plan", data={"price_per_hour": "36"}).text


def test_names_and_captions_are_shown_as_text_never_as_markup(place):
    evil = "<img src=x onerror=alert(1)>"
    folder = place.workspace.datasets / "images" / "10_zorp"
    (folder / "zorp_01.txt").write_text(evil)
    client = place.client
    draft = begun(client, demo="1")
    client.post(f"{draft}/plan", data={"set.run.comment": evil, "name": "x<b>"})
    for url in (
        f"{draft}?step=2",
        f"{draft}?step=3",
        f"{draft}?step=5",
        f"{draft}/preview",
        "/datasets/10_zorp",
        "/train",
    ):
        text = client.get(url).text
        assert "<img src=x" not in text and "x<b>" not in text, url


def test_the_api_plans_starts_and_keeps_drafts(place):
    client = place.client
    choices = {"kind": "character", "profile": "demo", "datasets": ["10_zorp"], "base": "pilot-tiny", "name": "byapi"}
    plan = client.post("/api/v1/plan", json=choices).json
    assert plan["state"] == "ready" and plan["plan"]["steps"] == 300 and "--name byapi" in plan["command"]
    wrong = client.post("/api/v1/plan", json=choices | {"settings": {"network.rnk": "4"}}).json
    assert wrong["state"] == "problems" and "network.rank" in wrong["problems"][0]["remedy"]
    made = client.post("/api/v1/drafts", json=choices)
    assert made.status_code == 201
    ident = made.json["id"]
    changed = client.patch(f"/api/v1/drafts/{ident}", json={"settings": {"network.rank": "4"}}).json
    assert changed["settings"] == {"network.rank": "4"} and changed["name"] == "byapi"
    started = client.post("/api/v1/train", json=choices)
    assert (started.status_code, started.json["run"], started.json["status"]) == (201, "byapi", "queued")
    again = client.post("/api/v1/train", json=choices).json
    assert again["run"] == "byapi-2" and again["notes"]
    refused = client.post("/api/v1/train", json=choices | {"settings": {"network.rank": "0", "optimizer.eps": "7"}})
    assert refused.status_code == 400
    assert {one["where"] for one in refused.json["error"]["problems"]} == {"network.rank", "optimizer.eps"}
    assert client.delete(f"/api/v1/drafts/{ident}").status_code == 204
    assert client.get("/api/v1/drafts").json == {"drafts": []}
