"""Publishing from the panel: a form, a job that goes to a Hub on this machine, and where the LoRA is then."""

from __future__ import annotations

import pytest
import run_folders as made
from hub_server import serving
from huggingface_hub import constants
from model_places import lora_bytes

from controlpilot.hub_tokens import HubTokens
from controlpilot.views import publish
from trainpilot.cli import main
from trainpilot.models import web

TOKEN = "hf_" + "publish9" * 4
PAGE = "/models/loras/hero.safetensors/publish"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.setenv("PILOT_LOCKS", str(tmp_path / "locks"))
    with serving(TOKEN) as found:
        monkeypatch.setenv(web.HUB_VARIABLE, found.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield found


def test_a_lora_is_published_and_its_address_shown(panel, hub, monkeypatch) -> None:
    made.finished(panel.workspace, "hero", 20, samples=True).result.write_bytes(lora_bytes())
    client = panel.client
    assert "No Hugging Face token is known" in client.get(PAGE).text
    HubTokens(panel.settings.secrets).save("HF_TOKEN", TOKEN)
    assert "No Hugging Face token" not in client.get(PAGE).text
    wrong = client.post(PAGE, data={"repo": "no owner", "trigger": "zorp"})
    assert wrong.status_code == 400 and "owner/name" in wrong.text and 'value="zorp"' in wrong.text

    assert client.post(PAGE, data={"repo": "me/hero", "private": "1", "trigger": "zorp"}).status_code == 303
    (told,) = publish.publications(panel.workspace, "hero.safetensors")
    assert (told.job.status, told.private, told.url) == ("queued", True, "")
    again = client.post(PAGE, data={"repo": "me/hero"})
    assert again.status_code == 409 and "one upload at a time" in again.text

    monkeypatch.setenv("HF_TOKEN", TOKEN)  # what the courier hands over
    assert main(["run", str(panel.workspace.jobs / told.job.id)]) == 0
    assert hub.repos["me/hero"].private and "hero.safetensors" in hub.repos["me/hero"].files
    assert client.get(f"{PAGE}?part=said").headers["HX-Refresh"] == "true"
    (told,) = publish.publications(panel.workspace, "hero.safetensors")
    assert told.url and told.url in client.get(PAGE).text


def test_a_lora_that_is_not_there_is_not_published(panel) -> None:
    assert panel.client.get("/models/loras/none.safetensors/publish").status_code == 404
    assert panel.client.post("/models/loras/none.safetensors/publish", data={"repo": "me/x"}).status_code == 404
