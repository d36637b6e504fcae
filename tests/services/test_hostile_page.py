"""A page of one service, in Chromium with every login: it reads and changes nothing of another service or the panel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser

from controlpilot.gateway import JS_MODULE
from tests.services.conftest import Pod
from tests.services.gate import NGINX

pytestmark = [
    pytest.mark.skipif(not Path(NGINX).exists() or not JS_MODULE.exists(), reason="needs nginx with its module"),
]


@pytest.fixture(scope="module")
def page(pod: Pod, chromium: Browser) -> Iterator[object]:
    """A window logged in to the panel, ComfyUI and JupyterLab, and standing on ComfyUI's origin."""
    page = chromium.new_page()
    page.goto(pod.gate.origin("panel") + "/login")
    page.fill("input[name=password]", pod.password)
    page.keyboard.press("Enter")
    page.wait_for_url(lambda there: "/login" not in there)
    cookie = next(one for one in page.context.cookies() if one["name"] == "pilot_session")
    assert cookie["httpOnly"]
    for service in ("jupyterlab", "comfyui"):
        ticket = quote(pod.ticket(f"pilot_session={cookie['value']}", service))
        page.goto(f"{pod.gate.origin(service)}/.pilot/enter?ticket={ticket}&next=/page")
        assert page.title() == "hostile"
    yield page
    page.context.close()


def test_a_page_of_one_service_reaches_nothing_else(pod: Pod, page: object) -> None:
    others = {name: pod.gate.origin(name) for name in ("panel", "jupyterlab")}
    script = """async (others) => {
        const found = [];
        const tried = async (what, attempt) => {
            let said = '';
            try { said = await attempt(); } catch (error) { /* refused, as it should be */ }
            if (said) found.push(what + ': ' + said);
        };
        for (const [name, origin] of Object.entries(others)) {
            const path = name === 'panel' ? '/api/v1/openapi.json' : '/echo';
            for (const method of ['GET', 'POST', 'PUT', 'DELETE']) {
                await tried(name + ' read ' + method, async () => {
                    const answer = await fetch(origin + path, { method, credentials: 'include' });
                    return answer.status + ' ' + (await answer.text()).slice(0, 40);
                });
            }
            await tried(name + ' socket', () => new Promise((done) => {
                const socket = new WebSocket(origin.replace('http', 'ws') + '/ws');
                socket.onopen = () => done('open');
                socket.onerror = () => done('');
            }));
            await tried(name + ' script', () => new Promise((done) => {
                const script = document.createElement('script');
                script.src = origin + path;
                script.onload = () => done('loaded'); script.onerror = () => done('');
                document.head.append(script);
            }));
            await tried(name + ' frame', () => new Promise((done) => {
                const frame = document.createElement('iframe');
                frame.src = origin + (name === 'panel' ? '/' : '/page');
                frame.onload = () => {
                    try { done(frame.contentDocument.body.innerText); } catch (error) { done(''); }
                };
                document.body.append(frame);
            }));
        }
        if (document.cookie.includes('pilot_')) found.push('cookie: ' + document.cookie);
        return found;
    }"""
    found = page.evaluate(script, others)  # type: ignore[attr-defined]
    assert found == []
    # It can still reach itself: what failed above failed because it was elsewhere.
    own = page.evaluate("async () => (await fetch('/echo', {method: 'POST'})).status")  # type: ignore[attr-defined]
    assert own == 200


def test_nothing_of_a_blind_request_arrives(pod: Pod, page: object) -> None:
    """no-cors requests are sent without asking: they have to end at the gateway or the panel."""
    script = """async (others) => {
        for (const origin of others) {
            await fetch(origin + '/logout', { method: 'POST', mode: 'no-cors', credentials: 'include' }).catch(() => 0);
            await fetch(origin + '/blind', { method: 'POST', mode: 'no-cors', credentials: 'include' }).catch(() => 0);
            await fetch(origin + '/blind', { mode: 'no-cors', credentials: 'include' }).catch(() => 0);
        }
    }"""
    page.evaluate(script, [pod.gate.origin("panel"), pod.gate.origin("jupyterlab")])  # type: ignore[attr-defined]
    seen = [line for line in pod.gate.log().splitlines() if "/blind" in line or "/logout" in line]
    assert len(seen) == 6 and all(" 403 " in line or " 404 " in line for line in seen), seen
    page.goto(pod.gate.origin("panel") + "/")  # type: ignore[attr-defined]
    assert "/login" not in page.url  # type: ignore[attr-defined]


def test_a_page_cannot_replace_the_panels_cookie(pod: Pod, page: object) -> None:
    page.evaluate("() => { document.cookie = 'pilot_session=evil; path=/'; }")  # type: ignore[attr-defined]
    page.goto(pod.gate.origin("panel") + "/")  # type: ignore[attr-defined]
    assert "/login" not in page.url  # type: ignore[attr-defined]
