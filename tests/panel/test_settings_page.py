"""The Settings tab and its API: password, tokens, sessions, preferences, and notifications to a real server."""

from __future__ import annotations

import logging

import pytest
from listening import listening

from controlpilot.auth.guard import COOKIE
from controlpilot.views.settings import preferences

SECRET = "topic-nobody-may-see"


def test_the_page_shows_everything_that_can_be_set(panel) -> None:
    page = panel.client.get("/settings")
    assert page.status_code == 200
    for words in ("Price of an hour", "Who is told", "What stops this pod", "New password", "this one", "Make a token"):
        assert words in page.text


def test_preferences_are_kept_in_the_workspace(panel) -> None:
    saved = panel.client.post("/settings/money", data={"price_per_hour": "0,42", "idle_minutes": ""})
    assert saved.status_code == 303
    assert panel.client.post("/settings/notify-when", data={"tell_when": ["failed"]}).status_code == 303
    kept = preferences(panel.workspace)
    assert (kept.price_per_hour, kept.tell_when, kept.idle_minutes) == (0.42, ["failed"], None)
    assert panel.client.get("/api/v1/settings").json["price_per_hour"] == 0.42
    wrong = panel.client.post("/settings/money", data={"price_per_hour": "much"}, headers={"HX-Request": "true"})
    assert wrong.status_code == 400 and wrong.json["error"]["where"] == "price_per_hour"
    assert panel.client.put("/api/v1/settings", json={"price_per_hour": -1}).status_code == 400
    (panel.workspace.root / "config" / "settings.toml").write_text("broken = [")
    assert "Mend or remove it" in panel.client.get("/settings").text


def test_the_password_is_changed_by_who_knows_it(panel) -> None:
    client = panel.client
    wrong = client.post("/settings/password", data={"old": "guess", "new": "a new password", "again": "a new password"})
    differs = client.post("/settings/password", data={"old": panel.password, "new": "one thing", "again": "another"})
    assert wrong.status_code == differs.status_code == 400 and client.get("/settings").status_code == 200
    data = {"old": panel.password, "new": "a new password", "again": "a new password"}
    assert client.post("/settings/password", data=data).status_code == 303
    assert client.get("/api/v1/settings").status_code == 401
    assert panel.anonymous.post("/login", data={"password": "a new password"}).status_code == 303


def test_guessing_the_password_here_is_slowed_down_too(panel, monkeypatch) -> None:
    # However slow the machine is: no attempt comes back meanwhile.
    monkeypatch.setattr(panel.desk.door.password_throttle, "_steady", lambda: panel.desk.door.password_throttle._at)
    answers = [
        panel.client.post("/api/v1/password", json={"old": f"guess {n}", "new": "a new password"}).status_code
        for n in range(8)
    ]
    assert answers == [400] * 6 + [429] * 2


def test_a_token_is_shown_once_and_can_be_revoked(panel) -> None:
    made = panel.client.post("/settings/tokens", data={"name": "<b>nightly</b>"})
    token = panel.desk.door.tokens.all()[0]
    value = made.text.split('data-copy="')[1].split('"')[0]
    assert value.startswith(f"pilot_{token.id}_") and "<b>nightly" not in made.text
    assert value not in panel.client.get("/settings").text
    bearer = {"Authorization": f"Bearer {value}"}
    assert panel.anonymous.get("/api/v1/tokens", headers=bearer).json[0]["name"] == "<b>nightly</b>"
    assert panel.client.post(f"/settings/tokens/{token.id}/revoke").status_code == 303
    assert panel.anonymous.get("/api/v1/tokens", headers=bearer).status_code == 401
    assert panel.client.delete(f"/api/v1/tokens/{token.id}").status_code == 404


def test_all_others_can_be_logged_out(panel) -> None:
    mine, other = panel.client, panel.client
    assert len(mine.get("/api/v1/sessions").json) == 2
    assert mine.post("/settings/sessions/end").status_code == 303
    assert mine.get("/api/v1/sessions").json[0]["present"] is True
    assert other.get("/api/v1/sessions").status_code == 401
    assert mine.get_cookie(COOKIE) is not None


def test_a_notification_arrives_and_its_address_is_never_shown_again(panel, caplog) -> None:
    caplog.set_level(logging.INFO)  # as controlpilot serve logs
    with listening() as (address, received):
        url = address.replace("http://", "json://") + f"/{SECRET}"
        made = panel.client.post("/api/v1/notifications", json={"name": "phone", "url": url})
        assert made.status_code == 201 and made.json["kind"] == "json"
        assert panel.client.post(f"/settings/notifications/{made.json['id']}/test").status_code == 200
        assert len(received) == 1 and SECRET in received[0][0]
    for path in ("/settings", "/api/v1/notifications"):
        assert "phone" in panel.client.get(path).text and SECRET not in panel.client.get(path).text
    kept = panel.settings.secrets / "notifications.json"
    assert kept.stat().st_mode & 0o777 == 0o600 and SECRET in kept.read_text()
    refused = panel.client.post(f"/api/v1/notifications/{made.json['id']}/test")
    assert refused.status_code == 409, "nobody listens any more"
    assert SECRET not in refused.text and SECRET not in caplog.text
    assert panel.client.post(f"/settings/notifications/{made.json['id']}/remove").status_code == 303
    assert panel.client.get("/api/v1/notifications").json == []


@pytest.mark.parametrize("url", [f"nonsense://{SECRET}", SECRET, "x" * 3000])
def test_an_address_that_cannot_be_one_is_refused_and_not_repeated(panel, url: str) -> None:
    refused = panel.client.post("/settings/notifications", data={"name": "x", "url": url})
    assert refused.status_code == 400 and SECRET not in refused.text
