"""Downloads against a real server: resumed, checked, refused; tokens to their own host; nothing inside is reached."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
from pathlib import Path

import pytest
from file_server import Page, serving

from trainpilot import cli
from trainpilot.errors import ExitCode, PilotError, Problems
from trainpilot.jobs.download import safe_name
from trainpilot.models import fetch, web
from trainpilot.runs.events import history
from trainpilot.runs.jobdir import JobDir
from trainpilot.runs.state import read_state
from trainpilot.workspace import Workspace

TOKEN = "hf_" + "abcdefgh" * 4


def weights(size: int = 300_000) -> bytes:
    """A real .safetensors file of that many bytes of weights."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(i * 7 % 251 for i in range(size))


@pytest.fixture
def site(monkeypatch):
    with serving() as found:
        monkeypatch.setenv(web.LOCAL_FOR_TESTS, found.place)
        monkeypatch.setenv(web.HUB_VARIABLE, found.url)
        monkeypatch.setattr(fetch, "WAITS", (0.01,))
        for name in ("HF_TOKEN", "CIVITAI_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        yield found


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("PILOT_LOCKS", str(tmp_path / "locks"))
    return Workspace(tmp_path / "workspace")


def download(workspace: Workspace, **params: object) -> tuple[JobDir, int]:
    job = JobDir.create(workspace, "download", params)
    return job, cli.main(["run", str(job.path)])


def reason(job: JobDir) -> str:
    assert job.job is not None
    return job.job.reason


def left_behind(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if ".part" in path.name)


def test_a_file_comes_whole_and_says_what_it_is(site, place):
    site.pages["/files/zorp.safetensors"] = Page(weights(), etag='"1"')
    job, code = download(place, url=f"{site.url}/files/zorp.safetensors", to="loras")
    assert code == ExitCode.DONE, reason(job)
    arrived = place.models / "loras" / "zorp.safetensors"
    assert arrived.read_bytes() == weights() and left_behind(place.models) == []
    (event,) = [event for event in history(job.path / "events.jsonl") if event["kind"] == "file"]
    assert event["sha256"] == hashlib.sha256(weights()).hexdigest()
    state = read_state(job.path / "state.json")
    assert state is not None and (state["phase"], state["step"], state["of"]) == (
        "download",
        len(weights()),
        len(weights()),
    )


def test_a_cut_download_goes_on_where_it_was(site, place):
    body = weights()
    site.pages["/a.safetensors"] = Page(body, etag='"1"', cuts=[100_000, 50_000])
    job, code = download(place, url=f"{site.url}/a.safetensors")
    assert code == ExitCode.DONE, reason(job)
    assert (place.models / "a.safetensors").read_bytes() == body
    asked = [headers for headers in site.asked("/a.safetensors") if headers.get("range") != "bytes=0-0"]
    assert [headers.get("range") for headers in asked] == [None, "bytes=100000-", "bytes=150000-"]
    assert asked[1]["if-range"] == '"1"'


def test_a_file_that_changed_meanwhile_is_not_glued_together(site, place):
    page = site.pages["/a.safetensors"] = Page(weights(200_000), etag='"old"')
    other = weights(250_000)

    class Changing(list):
        def pop(self, at):
            page.body, page.etag = other, '"new"'
            return super().pop(at)

    page.cuts = Changing([100_000])
    job, code = download(place, url=f"{site.url}/a.safetensors")
    assert code == ExitCode.DONE, reason(job)
    assert (place.models / "a.safetensors").read_bytes() == other


def test_a_server_without_ranges_begins_again(site, place):
    site.pages["/a.safetensors"] = Page(weights(), ranges=False, cuts=[10, 150_000])
    job, code = download(place, url=f"{site.url}/a.safetensors", name="a.safetensors")
    assert code == ExitCode.DONE, reason(job)
    assert (place.models / "a.safetensors").read_bytes() == weights()


@pytest.mark.parametrize(
    ("status", "headers", "words"),
    [
        (401, {"X-Error-Code": "GatedRepo"}, ["gated", "/owner/model", "accept the licence", "token"]),
        (403, {"X-Error-Code": "GatedRepo"}, ["gated", "/owner/model", "accept the licence"]),
        (401, {"X-Error-Code": "RepoNotFound"}, ["no such repository, or a private one"]),
        (404, {"X-Error-Code": "RepoNotFound"}, ["404: there is no such repository"]),
        (404, {"X-Error-Code": "RevisionNotFound"}, ["no such revision"]),
    ],
)
def test_refusals_of_the_hub_are_told_apart(site, place, status, headers, words):
    site.pages["/api/models/owner/model/revision/main"] = Page(always=(status, headers))
    job, code = download(place, repo="owner/model")
    assert code == ExitCode.BAD_INPUT
    assert all(word in reason(job) for word in words), reason(job)


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "wants a login"), (403, "refuses this file"), (404, "no such file"), (451, "legal"), (418, "status 418")],
)
def test_refusals_of_a_plain_server_are_told_apart(site, place, monkeypatch, status, words):
    monkeypatch.delenv(web.HUB_VARIABLE)
    site.pages["/a.safetensors"] = Page(always=(status, {}))
    job, code = download(place, url=f"{site.url}/a.safetensors", name="a.safetensors")
    assert code == ExitCode.BAD_INPUT and (f"{status}" in reason(job)) and words in reason(job), reason(job)


def test_a_busy_server_is_waited_for(site, place):
    page = Page(weights(), statuses=[(429, {"Retry-After": "0"}), (503, {"Retry-After": "0"}), (502, {})])
    site.pages["/a.safetensors"] = page
    job, code = download(place, url=f"{site.url}/a.safetensors", name="a.safetensors")
    assert code == ExitCode.DONE, reason(job)
    notices = " ".join(str(e.get("text")) for e in history(job.path / "events.jsonl"))
    assert "asks to wait (429)" in notices and "trouble (502)" in notices


def test_a_server_that_never_gives_a_byte_is_given_up_for_now(site, place):
    site.pages["/a.safetensors"] = Page(weights(), always=(502, {}))
    job, code = download(place, url=f"{site.url}/a.safetensors", name="a.safetensors")
    assert code == ExitCode.FAILED and "without a new byte" in reason(job)


def test_a_part_that_is_whole_or_foreign_is_noticed_at_416(site, place):
    body = weights()
    site.pages["/a.safetensors"] = Page(body)
    url = f"{site.url}/a.safetensors"
    place.models.mkdir(parents=True)
    part, note = place.models / ".a.safetensors.part", place.models / ".a.safetensors.part.json"
    part.write_bytes(body)
    note.write_text(json.dumps({"url": url}))
    assert download(place, url=url, name="a.safetensors")[1] == ExitCode.DONE
    assert (place.models / "a.safetensors").read_bytes() == body
    (place.models / "a.safetensors").unlink()
    part.write_bytes(body + b"more than there is")
    note.write_text(json.dumps({"url": url}))
    assert download(place, url=url, name="a.safetensors")[1] == ExitCode.DONE
    assert (place.models / "a.safetensors").read_bytes() == body


def test_a_damaged_file_never_gets_its_name(site, place):
    site.pages["/a.safetensors"] = Page(weights())
    job, code = download(place, url=f"{site.url}/a.safetensors", sha256="0" * 64, name="a.safetensors")
    assert code == ExitCode.FAILED and "sha256" in reason(job)
    assert not (place.models / "a.safetensors").exists()
    assert (place.models / ".a.safetensors.part").stat().st_size == 0


def test_a_page_that_calls_itself_a_model_is_found_out(site, place):
    site.pages["/a.safetensors"] = Page(b"<html>please log in</html>")
    job, code = download(place, url=f"{site.url}/a.safetensors", name="a.safetensors")
    assert code == ExitCode.BAD_INPUT and "header" in reason(job)


def test_a_file_that_exists_is_never_replaced(site, place):
    place.models.mkdir(parents=True)
    (place.models / "a.safetensors").write_text("mine")
    site.pages["/a.safetensors"] = Page(weights())
    job, code = download(place, url=f"{site.url}/a.safetensors", name="a.safetensors")
    assert code == ExitCode.BAD_INPUT and "is there already" in reason(job)
    assert (place.models / "a.safetensors").read_text() == "mine"


def test_a_repository_comes_at_one_commit_without_its_pickles(site, place):
    files = {
        "model_index.json": b"{}",
        "unet/model.safetensors": weights(),
        "unet/model.bin": b"pickle",
        ".gitattributes": b"",
    }
    commit = site.repository("owner/tiny", files)
    job, code = download(place, repo="owner/tiny", files=["*.json", "unet/*.safetensors"])
    assert code == ExitCode.DONE, reason(job)
    target = place.models / "tiny"
    assert sorted(str(p.relative_to(target)) for p in target.rglob("*") if p.is_file()) == [
        "model_index.json",
        "unet/model.safetensors",
    ]
    assert commit[:12] in reason(job)
    # Again: nothing is fetched twice.
    before = len(site.asked(f"/owner/tiny/resolve/{commit}/unet/model.safetensors"))
    _, code = download(place, repo="owner/tiny", files=["*.json", "unet/*.safetensors"])
    assert code == ExitCode.DONE
    assert len(site.asked(f"/owner/tiny/resolve/{commit}/unet/model.safetensors")) == before


def test_a_small_file_is_compared_with_its_git_hash(site, place):
    commit = site.repository("owner/tiny", {"model_index.json": b'{"a": 1}'})
    site.pages[f"/owner/tiny/resolve/{commit}/model_index.json"].body = b'{"a": 2}'
    job, code = download(place, repo="owner/tiny")
    assert code == ExitCode.FAILED and "git hash" in reason(job)


@pytest.mark.parametrize(
    "path", ["../../evil.json", "/etc/evil.json", "a/../../evil.json", "a\\..\\evil.json", ".ssh/x.json"]
)
def test_a_hostile_repository_writes_nothing_outside(site, place, path):
    site.repository("owner/evil", {path: b"{}"})
    job, code = download(place, repo="owner/evil")
    assert code == ExitCode.BAD_INPUT and "not safe" in reason(job)
    assert not list(place.models.parent.parent.rglob("evil.json"))


def test_a_link_out_of_models_is_not_followed(site, place, tmp_path):
    site.pages["/a.safetensors"] = Page(weights())
    outside = tmp_path / "outside"
    outside.mkdir()
    place.models.mkdir(parents=True)
    (place.models / "far").symlink_to(outside)
    job, code = download(place, url=f"{site.url}/a.safetensors", to="far", name="a.safetensors")
    assert code == ExitCode.BAD_INPUT and "a link out of" in reason(job)
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ('attachment; filename="../../../etc/passwd.safetensors"', "passwd.safetensors"),
        ('attachment; filename="..\\\\..\\\\x.safetensors"', "x.safetensors"),
        ("attachment; filename*=UTF-8''%2e%2e%2f%00evil%0a.safetensors", "evil_.safetensors"),
        ('attachment; filename=".bashrc.safetensors"', "bashrc.safetensors"),
    ],
)
def test_a_hostile_file_name_is_only_a_name(site, place, header, name):
    site.pages["/get"] = Page(weights(), {"Content-Disposition": header})
    job, code = download(place, url=f"{site.url}/get")
    assert code == ExitCode.DONE, reason(job)
    assert [p.name for p in place.models.rglob("*.safetensors")] == [name]


def test_names_stay_short_and_plain():
    assert safe_name("a" * 400 + ".safetensors").endswith("a.safetensors")
    assert len(safe_name("ä" * 400 + ".safetensors").encode()) <= 150
    assert safe_name("../..") == "" and safe_name("\x1b[31mred.safetensors") == "[31mred.safetensors"


def test_a_token_goes_to_its_own_host_and_nowhere_else(site, place, monkeypatch):
    with serving() as other:
        monkeypatch.setenv(web.LOCAL_FOR_TESTS, f"{site.place},{other.place}")
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        commit = site.repository("owner/gated", {"m.safetensors": weights()})
        path = f"/owner/gated/resolve/{commit}/m.safetensors"
        site.pages[path] = Page(location=f"{other.url}/cdn", token=TOKEN)
        other.pages["/cdn"] = Page(weights())
        job, code = download(place, repo="owner/gated")
        assert code == ExitCode.DONE, reason(job)
        assert all(headers["authorization"] == f"Bearer {TOKEN}" for headers in site.asked(path))
        assert other.asked("/cdn") and all("authorization" not in headers for headers in other.asked("/cdn"))
    written = [p for p in job.path.rglob("*") if p.is_file()]
    assert len(written) > 4 and all(TOKEN.encode() not in p.read_bytes() for p in written)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://example.org/a.safetensors",
        "gopher://x",
        "//example.org/x",
        "http://",
        "javascript:1",
    ],
)
def test_other_schemes_are_refused_at_once(place, url):
    with pytest.raises(Problems, match="http"):
        JobDir.create(place, "download", {"url": url})
    assert not list(place.jobs.glob("*")) if place.jobs.exists() else True


@pytest.mark.parametrize("part", ["?token=abcdef123456", "?X-Amz-Signature=abc", "?api_key=1"])
def test_an_address_with_a_secret_is_not_kept(place, part):
    with pytest.raises(Problems, match="without"):
        JobDir.create(place, "download", {"url": f"https://example.org/a.safetensors{part}"})
    with pytest.raises(Problems, match="name or password"):
        JobDir.create(place, "download", {"url": "https://me:secret@example.org/a.safetensors"})


INSIDE = [
    "127.0.0.1",
    "[::1]",
    "169.254.169.254",
    "[fd00:ec2::254]",
    "[::ffff:169.254.169.254]",
    "10.0.0.1",
    "0.0.0.0",
    "2130706433",
    "[64:ff9b::7f00:1]",
]


@pytest.mark.parametrize("host", INSIDE)
def test_addresses_inside_are_refused(place, host):
    with pytest.raises(PilotError, match=r"inside this machine or its network|cannot be found"):
        web.Web().get(f"http://{host}/a.safetensors")


def test_a_name_that_resolves_inside_is_refused(monkeypatch):
    # The name server belongs to somebody else: of several answers, one is ours.
    answers = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 80)) for ip in ("93.184.216.34", "169.254.169.254")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers)
    with pytest.raises(PilotError, match=r"169\.254\.169\.254, inside"):
        web.Web().get("http://models.example/a.safetensors")


@pytest.mark.parametrize("goal", ["http://169.254.169.254/latest", "http://127.0.0.1:1/x", "file:///etc/passwd"])
def test_a_redirect_inside_is_refused(site, place, goal):
    site.pages["/a.safetensors"] = Page(location=goal)
    job, code = download(place, url=f"{site.url}/a.safetensors", name="a.safetensors")
    assert code == ExitCode.BAD_INPUT
    assert "inside" in reason(job) or "http://" in reason(job)


def test_redirects_in_a_circle_end(site, place):
    site.pages["/a.safetensors"] = Page(location="/a.safetensors")
    job, code = download(place, url=f"{site.url}/a.safetensors", name="a.safetensors")
    assert code == ExitCode.BAD_INPUT and "redirects" in reason(job)
    assert len(site.asked("/a.safetensors")) == web.MOST_REDIRECTS + 1


def test_a_disk_that_is_too_small_is_told_before_the_first_byte(site, place, monkeypatch):
    commit = site.repository("owner/tiny", {"m.safetensors": weights()})
    monkeypatch.setattr(fetch, "free_bytes", lambda _: fetch.RESERVE + 1000)
    job, code = download(place, repo="owner/tiny")
    assert code == ExitCode.BAD_INPUT and "GB free" in reason(job) and "resume" in reason(job)
    assert site.asked(f"/owner/tiny/resolve/{commit}/m.safetensors") == []


def test_a_disk_that_fills_up_keeps_what_arrived(site, place, monkeypatch):
    body = weights()
    site.pages["/a.safetensors"] = Page(body, etag='"1"')
    left = [10**12]
    monkeypatch.setattr(fetch, "LOOK_AT_DISK", 100_000)
    monkeypatch.setattr(fetch, "CHUNK", 1 << 16)
    monkeypatch.setattr(fetch, "free_bytes", lambda _: left.pop() if left else 0)
    job, code = download(place, url=f"{site.url}/a.safetensors", name="a.safetensors")
    assert code == ExitCode.BAD_INPUT and "0.0 GB free" in reason(job)
    kept = (place.models / ".a.safetensors.part").stat().st_size
    assert 0 < kept < len(body)
    monkeypatch.setattr(fetch, "free_bytes", lambda _: 10**12)
    assert cli.main(["run", str(job.path)]) == ExitCode.DONE
    assert (place.models / "a.safetensors").read_bytes() == body
    assert site.asked("/a.safetensors")[-1]["range"] == f"bytes={kept}-"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_really_full_disk_is_named(site, place, tmp_path, monkeypatch):
    small = tmp_path / "workspace" / "models"
    small.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "none", str(small)], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        monkeypatch.setattr(fetch, "RESERVE", -(10**9))
        site.pages["/a.safetensors"] = Page(weights())
        job, code = download(place, url=f"{site.url}/a.safetensors", name="a.safetensors")
        assert code == ExitCode.BAD_INPUT and "GB free" in reason(job)
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_stop_keeps_what_arrived(site, place, monkeypatch):
    body = weights(2_000_000)
    page = site.pages["/a.safetensors"] = Page(body, etag='"1"', pace=0.05)
    job = JobDir.create(place, "download", {"url": f"{site.url}/a.safetensors", "name": "a.safetensors"})
    part = place.models / ".a.safetensors.part"
    import threading

    from trainpilot.runs.requests import ask

    def stop_when_begun() -> None:
        while not part.exists() or part.stat().st_size < 100_000:
            threading.Event().wait(0.01)
        ask(job.path, "stop")

    thread = threading.Thread(target=stop_when_begun)
    monkeypatch.setattr(fetch, "CHUNK", 1 << 16)
    thread.start()
    assert cli.main(["run", str(job.path)]) == ExitCode.STOPPED
    thread.join()
    kept = part.stat().st_size
    assert 100_000 <= kept < len(body)
    page.pace = 0.0
    assert cli.main(["run", str(job.path)]) == ExitCode.DONE
    assert (place.models / "a.safetensors").read_bytes() == body


def test_only_one_of_two_sources_is_taken(place):
    for params in (
        {},
        {"repo": "a/b", "url": "https://example.org/x"},
        {"repo": "../x"},
        {"repo": "a/b", "to": "../x"},
    ):
        with pytest.raises(Problems):
            JobDir.create(place, "download", params)
