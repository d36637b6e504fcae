"""How fast the panel answers with 2,000 runs, a million events, a log of a gigabyte and 10,000 pictures, and how large
it gets.

Makes such a workspace in a temporary folder, serves it by `controlpilot serve` in a process of its own, and asks for
every page while a stand-in run writes events, a further process keeps one core as busy as training does, and 1, 10 and
50 clients poll a live run's page as browsers do. Time is the client's, from the request to the last byte. What the
panel reads for a log is the kernel's count. Reads no network, needs no torch.

    python benchmarks/panel.py [--runs 2000] [--events 1000000] [--images 10000] [--write]
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from _figures import RESULTS, Figure, finish
from PIL import Image

from trainpilot.config.merge import Resolved
from trainpilot.config.schema import RunConfig
from trainpilot.errors import ExitCode
from trainpilot.runs.rundir import RunDir
from trainpilot.workspace import Workspace

PASSWORD = "a benchmark's password"
CLIENTS = (1, 10, 50)
POLL = 2.0  # seconds between two polls of one client, as the pages poll
GOAL_MS, GOAL_MB, GOAL_START = 300.0, 200.0, 1.5
LOG_BYTES = 1 << 30
LOG_READ_MB = 20.0  # a search looks through 16 MiB a call; nothing else reads more than 1
LIVE, LONG = "live", "long"
POLLED = (f"/runs/{LIVE}/live?part=now", f"/runs/{LIVE}/live?part=actions", f"/api/v1/runs/{LIVE}/series")
PAGES = {
    "runs": "/runs", "runs, last page": "/runs?page=9999", "runs, searched": "/runs?text=run-001&sort=loss",
    "queue": "/runs?part=queue", "live run": f"/runs/{LIVE}", "live part": f"/runs/{LIVE}/live?part=now",
    "run of many events": f"/runs/{LONG}", "its lines": f"/api/v1/runs/{LONG}/series", "its log": f"/runs/{LONG}/log",
    "log, searched": f"/api/v1/runs/{LONG}/log/search?text=nowhere", "samples": f"/runs/{LIVE}/samples",
    "configuration": f"/runs/{LIVE}/configuration?other={LONG}", "datasets": "/datasets",
    "dataset": "/datasets/10_many", "dataset, searched": "/datasets/10_many?q=number+77", "dashboard": "/",
    "training": "/train", "models": "/models", "test": "/test", "logs": "/logs",
    "services": "/services",
}  # fmt: skip


# --- a workspace of that size -----------------------------------------------------------------------------------------


def new_run(workspace: Workspace, name: str, steps: int) -> RunDir:
    config = RunConfig.model_validate(
        {
            "run": {"name": name},
            "model": {"base": "/models/base", "family": "sd15"},
            "datasets": [{"path": "/data/10_zorp"}],
            "training": {"steps": steps},
        }
    )
    return RunDir.create(workspace, Resolved(config, {}), {"steps": steps, "seconds": steps / 2})


def step_lines(first: int, last: int) -> list[str]:
    """Step events as the recorder writes them."""
    return [
        f'{{"t": {1.7e9 + step / 2}, "attempt": 1, "kind": "step", "step": {step}, "epoch": {step // 100}, '
        f'"loss": {0.1 + 0.05 * ((step * 7919) % 101) / 101:.6g}, "loss_avg": 0.12, "lr": 0.0001, "it_s": 2.0, '
        f'"images_s": 4.0, "grad_norm": 0.4}}\n'
        for step in range(first, last + 1)
    ]


def furnish(workspace: Workspace, runs: int, events: int, images: int) -> None:
    """Runs, one of them long and one live to be, pictures, and a log of a gigabyte (sparse, but for its end)."""
    first = new_run(workspace, "run-00000", 200)
    first.begin_attempt("cpu")
    first.events.append("start", from_step=1, of=200)
    first.events.close()
    with first.events.path.open("a") as file:
        file.writelines(step_lines(1, 200))
    first.finish("done", "200 steps", ExitCode.DONE)
    for number in range(1, runs - 2):
        shutil.copytree(first.path, workspace.outputs / f"run-{number:05d}", symlinks=True)
    long = new_run(workspace, LONG, events)
    long.begin_attempt("cpu")
    long.events.append("start", from_step=1, of=events)
    long.events.close()
    with long.events.path.open("a") as file:
        for begin in range(1, events + 1, 50_000):
            file.writelines(step_lines(begin, min(begin + 49_999, events)))
    long.finish("stopped", "by a person", ExitCode.STOPPED)
    with long.log.open("wb") as file:
        file.truncate(LOG_BYTES)
        file.seek(LOG_BYTES)
        file.writelines(f"line {number}\n".encode() for number in range(10_000))
    live = new_run(workspace, LIVE, 100_000)
    live.samples.mkdir()
    rng = np.random.default_rng(1)
    for step in range(100, 4100, 100):
        for number in range(4):
            picture = Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
            picture.save(live.samples / f"step-{step:08d}_p{number}.png")
    folder = workspace.datasets / "images" / "10_many"
    folder.mkdir(parents=True)
    past = time.time() - 60  # older than the panel waits for a time stamp to be believed
    for number in range(images):
        place = folder / f"{number:05d}.png"
        Image.new("RGB", (64, 64), (number % 256, number // 256, 128)).save(place)
        place.with_suffix(".txt").write_text(f"zorp, number {number}")
        os.utime(place, (past, past))


def train(root: Path) -> None:
    """In a process of its own: a run that tells two steps a second, and one core as busy as training keeps it."""
    run = RunDir.open(root / "outputs" / LIVE)
    run.begin_attempt("cpu")
    run.events.append("start", from_step=1, of=100_000)
    step, told = 0, 0.0
    square = np.random.default_rng(0).random((256, 256))
    while True:
        square = np.clip(square @ square, 0, 1)
        if time.monotonic() - told > 0.5:
            step, told = step + 1, time.monotonic()
            run.events.append("step", step=step, loss=0.1, loss_avg=0.1, lr=1e-4, it_s=2.0)
            run.state.write("train", step, 100_000, eta=1000.0)
            with run.log.open("a") as file:
                file.write(f"step {step}\n")


# --- asking -----------------------------------------------------------------------------------------------------------


@dataclass
class Client:
    """One browser: a connection that is kept, a session, and what it has in its cache."""

    port: int
    cookie: str = ""
    kept: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def ask(self, path: str, form: dict[str, str] | None = None) -> tuple[int, bytes, float]:
        """Status, body and seconds."""
        headers = {"Cookie": self.cookie, "Accept": "text/html,application/json"}
        if path in self.kept:
            headers["If-None-Match"] = self.kept[path]
        body = None
        if form is not None:
            body = urllib.parse.urlencode(form)
            headers |= {"Content-Type": "application/x-www-form-urlencoded"}
            headers |= {"Origin": f"http://127.0.0.1:{self.port}"}
        began = time.perf_counter()
        self.connection.request("POST" if form is not None else "GET", path, body, headers)
        answer = self.connection.getresponse()
        data = answer.read()
        seconds = time.perf_counter() - began
        if tag := answer.getheader("ETag"):
            self.kept[path] = tag
        for cookie in answer.headers.get_all("Set-Cookie") or []:
            self.cookie = cookie.partition(";")[0]
        return answer.status, data, seconds


def poll(port: int, cookie: str, count: int) -> None:
    """In a process of its own: `count` browsers that poll a live run's page until this process is ended."""

    def browse(number: int) -> None:
        client, after = Client(port, cookie), ""
        time.sleep(POLL * number / count)
        while True:
            began = time.monotonic()
            for path in POLLED:
                asked = f"{path}?after={after}" if path.endswith("/series") and after else path
                status, data, _ = client.ask(asked)
                if path.endswith("/series") and status == 200:
                    after = json.loads(data)["after"]
            time.sleep(max(0.0, POLL - (time.monotonic() - began)))

    threads = [threading.Thread(target=browse, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def p95(seconds: list[float]) -> float:
    """The 95th percentile by nearest rank, in milliseconds."""
    ranked = sorted(seconds)
    return 1e3 * ranked[max(0, -(-95 * len(ranked) // 100) - 1)]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def serve(root: Path, folder: Path) -> tuple[subprocess.Popen[bytes], int, float]:
    """The panel's process, its port, and the seconds until it answered."""
    port = free_port()
    environ = os.environ | {
        "PILOT_WORKSPACE": str(root),
        "PILOT_SECRETS": str(folder / "secrets"),
        "PILOT_RUN": str(folder / "run"),
        "PILOT_PASSWORD": PASSWORD,
    }
    command = [sys.executable, "-m", "controlpilot", "serve", "--alone", "--port", str(port)]
    began = time.perf_counter()
    process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while True:
        try:
            if Client(port).ask("/healthz")[0] == 200:
                return process, port, time.perf_counter() - began
        except OSError:
            if process.poll() is not None or time.perf_counter() - began > 60:
                raise SystemExit("the panel did not start") from None
            time.sleep(0.01)


def bytes_read(process: psutil.Process) -> int:
    return int(process.io_counters().read_chars)


def own(*words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, __file__, *words], stderr=subprocess.DEVNULL)


def measure(root: Path, folder: Path, rounds: int) -> tuple[list[Figure], list[dict[str, object]]]:
    """All figures and a row for each page."""
    started: list[subprocess.Popen[bytes]] = []
    try:
        started.append(own("--train", str(root)))
        panel, port, start = serve(root, folder)
        started.append(panel)
        seen = psutil.Process(panel.pid)
        client = Client(port)
        status, _, _ = client.ask("/login", {"password": PASSWORD})
        if status not in (200, 303):
            raise SystemExit(f"the login answered {status}")
        client.kept.clear()
        worst_first = warm(client)
        before = bytes_read(seen)
        for path in (f"/runs/{LONG}/log", f"/api/v1/runs/{LONG}/log?limit=1048576", PAGES["log, searched"]):
            client.ask(path)
        log_mb = (bytes_read(seen) - before) / 1e6
        rows: list[dict[str, object]] = [{"page": name} for name in PAGES]
        largest = 0.0
        for count in CLIENTS:
            polling = own("--poll", str(port), client.cookie, str(count))
            started.append(polling)
            time.sleep(POLL)
            taken: dict[str, list[float]] = {name: [] for name in PAGES}
            for _ in range(rounds):
                for name, path in PAGES.items():
                    client.kept.clear()
                    status, _, seconds = client.ask(path)
                    if status != 200:
                        raise SystemExit(f"{path} answered {status}")
                    taken[name].append(seconds)
            largest = max(largest, seen.memory_info().rss / 1e6)
            for row in rows:
                row[f"p95_ms_{count}"] = p95(taken[str(row["page"])])
            polling.terminate()
            polling.wait()
        figures = [
            Figure("panel_start_s", start, "s", "<=", GOAL_START),
            Figure("panel_first_look_ms", worst_first, "ms"),
            *(
                Figure(f"panel_p95_ms_{count}_clients", max(float(str(row[f"p95_ms_{count}"])) for row in rows), "ms",
                       "<=", GOAL_MS)
                for count in CLIENTS
            ),
            Figure("panel_memory_mb", largest, "MB", "<=", GOAL_MB),
            Figure("panel_log_read_mb", log_mb, "MB", "<=", LOG_READ_MB),
        ]  # fmt: skip
        return figures, rows
    finally:
        for process in started:
            process.kill()
            process.wait()


def warm(client: Client) -> float:
    """Ask until the index and the long run are read and all pictures measured, as they are once in a workspace's life;
    the longest answer on the way, in milliseconds."""
    longest = 0.0
    while True:
        _, listed, first = client.ask("/api/v1/runs")
        _, lines, second = client.ask(PAGES["its lines"])
        _, checked, third = client.ask("/api/v1/datasets/10_many/check")
        longest = max(longest, first, second, third)
        known = json.loads(checked)
        if not json.loads(listed)["unread"] and json.loads(lines)["complete"] and known["measured"] == known["of"]:
            break
        time.sleep(0.5)
    for path in PAGES.values():
        _, _, seconds = client.ask(path)
        longest = max(longest, seconds)
    return 1e3 * longest


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--events", type=int, default=1_000_000, help="steps told by the longest run")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=20, help="times each page is asked for, by number of clients")
    parser.add_argument("--write", action="store_true", help="write results/panel_cpu.json")
    parser.add_argument("--train", metavar="ROOT", help=argparse.SUPPRESS)
    parser.add_argument("--poll", nargs=3, metavar=("PORT", "COOKIE", "COUNT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.train:
        train(Path(given.train))
    if given.poll:
        poll(int(given.poll[0]), given.poll[1], int(given.poll[2]))
        return 0
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory(prefix="panel-") as place:
        os.environ["PILOT_LOCKS"] = str(Path(place) / "locks")
        workspace = Workspace(Path(place) / "workspace")
        workspace.root.mkdir()
        print(f"making {given.runs:,} runs, {given.events:,} events, {given.images:,} pictures", flush=True)
        furnish(workspace, given.runs, given.events, given.images)
        figures, rows = measure(workspace.root, Path(place), given.rounds)
    sizes = {"runs": given.runs, "events": given.events, "images": given.images, "log_bytes": LOG_BYTES}
    return finish(
        "panel", figures, rows, out=RESULTS / "panel_cpu.json" if given.write else None, load=os.getloadavg(), **sizes
    )


if __name__ == "__main__":
    sys.exit(main())
