"""A workspace in which every operation of the API can succeed, and for each operation the request that does.

`REQUESTS` holds one function for each operation, by method and path: it makes what the request needs, anew, so that no
request depends on another, and answers with the request's parts. Used by test_api_success.py.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import run_folders as made
from model_places import with_lora
from picture_folders import make_pictures
from PIL import Image

from controlpilot import idle
from controlpilot.notices import Notices
from controlpilot.uploads import Uploads, Wanted
from controlpilot.views.drafts import Choices, Drafts
from trainpilot import captioners
from trainpilot.runs.atomic import write_json
from trainpilot.runs.jobdir import JobDir
from trainpilot.runs.process import Identity
from trainpilot.runs.rundir import RunDir
from trainpilot.workspace import Workspace

TUS = {"Tus-Resumable": "1.0.0"}
_numbers = itertools.count(1)


@dataclass
class Asked:
    """A request: the values of its path, its query, a JSON body or bytes, and further headers."""

    path: dict[str, Any] = field(default_factory=dict)
    query: dict[str, Any] = field(default_factory=dict)
    body: Any = None
    data: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class World:
    """client: of the panel, with a token. inbox: URL of a server that takes notifications."""

    workspace: Workspace
    secrets: Any
    password: str
    client: Any
    inbox: str

    def name(self, kind: str) -> str:
        return f"{kind}-{next(_numbers)}"

    def run(self) -> RunDir:
        return made.finished(self.workspace, self.name("run"), 20, samples=True)

    def stopped(self) -> RunDir:
        run = made.new(self.workspace, self.name("stopped"))
        run.begin_attempt("cpu")
        made.train(run, 1, 20)
        run.finish("stopped", "by a person", made.ExitCode.STOPPED)
        return run

    def waiting(self) -> RunDir:
        run = made.new(self.workspace, self.name("waits"))
        run.queue("a test")
        return run

    def live(self) -> RunDir:
        """A run that this very process is said to train."""
        run = made.new(self.workspace, self.name("live"))
        run.begin_attempt("cpu")
        run.events.append("start", from_step=1, of=100)
        run.state.write("train", 1, 100, force=True)
        return run

    def dataset(self) -> str:
        name = f"3_set{next(_numbers)}"
        make_pictures(self.workspace.datasets / "images" / name, 2)
        return name

    def lora(self) -> str:
        return with_lora(self.workspace, f"{self.name('lora')}.safetensors").name

    def job(self, kind: str = "download", **params: Any) -> JobDir:
        params = params or {"url": "https://example.invalid/a.safetensors", "to": self.name("to")}
        job = JobDir.create(self.workspace, kind, params)
        job.log.write_text("a line\n")
        return job

    def test(self) -> JobDir:
        answer = self.client.post("/api/v1/tests", json={"base": "pilot-tiny", "prompts": ["a zorp"]})
        assert answer.status_code == 202, answer.text
        job = JobDir.open(self.workspace.jobs / answer.json["id"], self.workspace)
        (job.path / "pictures").mkdir()
        Image.new("RGB", (8, 8)).save(job.path / "pictures" / "c00_r000.png")
        return job

    def draft(self) -> str:
        return Drafts(self.workspace).create(Choices()).id

    def upload(self, sent: bool = False) -> str:
        wanted = Wanted.model_validate({"dataset": self.name("sent"), "files": [{"path": "a.png", "size": PNG_SIZE}]})
        begun = Uploads(self.workspace).begin(wanted)
        if sent:
            answer = self.client.patch(
                f"/api/v1/uploads/{begun.id}/files/0", data=PNG, headers=TUS | CHUNK | {"Upload-Offset": "0"}
            )
            assert answer.status_code == 204, answer.text
        return begun.id

    def channel(self) -> str:
        return Notices(self.secrets).add("a test", self.inbox).id

    def trashed(self, kind: str) -> str:
        """The entry of the trash that a deletion made."""
        if kind == "run":
            return str(self.client.delete(f"/api/v1/runs/{self.run().name}").json["id"])
        return str(self.client.delete(f"/api/v1/datasets/{self.dataset()}").json["undo"])


def _png() -> bytes:
    import io

    data = io.BytesIO()
    Image.new("RGB", (64, 64), (20, 90, 160)).save(data, "PNG")
    return data.getvalue()


PNG = _png()
PNG_SIZE = len(PNG)
CHUNK = {"Content-Type": "application/offset+octet-stream"}


def _of_run(world: World, **more: Any) -> Asked:
    return Asked({"name": world.run().name}, **more)


def _sample(world: World) -> Asked:
    run = world.run()
    return Asked({"name": run.name, "file": sorted(path.name for path in run.samples.iterdir())[0]})


def _two_runs(world: World) -> Asked:
    return Asked({"name": world.run().name}, query={"other": world.run().name})


def _of_dataset(world: World, **more: Any) -> Asked:
    return Asked({"name": world.dataset()}, **more)


def _picture(world: World, **more: Any) -> Asked:
    return Asked({"name": world.dataset(), "file": "p000.png"}, **more)


EDIT = {"do": "replace", "params": {"find": "mycat", "with": "a cat"}}


def _edited(world: World, *also: str) -> Asked:
    """A dataset whose captions were edited, and what else was done since."""
    name = world.dataset()
    for do in ("edit", *also):
        sent: dict[str, Any] = EDIT if do == "edit" else {}
        answer = world.client.post(f"/api/v1/datasets/{name}/caption-tools/{do}", json=sent)
        assert answer.status_code == 200, answer.text
    return Asked({"name": name}, body={})


def _captioned(world: World) -> Asked:
    """A captioner's (empty) model where a fetched one would lie: enough for what opens none."""
    captioner = captioners.find("wd14")
    for file, *_ in captioner.NEEDS:
        path = world.workspace.models / "captioners" / captioner.MODELS[0].name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return _of_dataset(world, body={"captioner": "wd14"})


def _finished_job(world: World) -> Asked:
    job = world.job()
    job.begin_attempt("net")
    job.finish("failed", "a test", made.ExitCode.FAILED)
    return Asked({"ident": job.path.name})


def _service_log(world: World, **more: Any) -> Asked:
    log = world.workspace.logs / "services" / "comfyui.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("started\n")
    run = world.run()
    run.log.write_text("started\n")
    return Asked({"kind": "run", "name": run.name}, **more)


def _created(world: World) -> Asked:
    named = base64.b64encode(b"a.png").decode()
    headers = TUS | {"Upload-Length": str(PNG_SIZE), "Upload-Metadata": f"filename {named}"}
    return Asked({"ident": world.upload()}, headers=headers)


def _chosen(world: World) -> dict[str, Any]:
    return {
        "kind": "character", "profile": "demo", "base": "pilot-tiny", "datasets": ["10_zorp"],
        "name": world.name("chosen"), "settings": {},
    }  # fmt: skip


def _pod_key(world: World) -> dict[str, Any]:
    return {"password": world.password, "action": "command", "command": ["/bin/true"]}


def _stoppable_pod(world: World) -> Asked:
    """A pod that something stops, with a courier at work: this process stands for it."""
    assert world.client.put("/api/v1/pod/stop", json=_pod_key(world)).status_code == 200
    write_json(world.workspace.jobs / idle.FILE, {"process": Identity.own().as_dict()})
    return Asked()


REQUESTS: dict[str, Callable[[World], Asked]] = {
    "GET /datasets": lambda world: Asked(),
    "GET /datasets/{name}": _of_dataset,
    "PATCH /datasets/{name}": lambda world: _of_dataset(world, body={"repeats": 7}),
    "DELETE /datasets/{name}": _of_dataset,
    "PUT /datasets/{name}/captions/{file}": lambda world: _picture(world, body={"text": "a red house"}),
    "GET /datasets/{name}/caption-tools": _of_dataset,
    "POST /datasets/{name}/caption-tools/preview": lambda world: _of_dataset(world, body=EDIT),
    "POST /datasets/{name}/caption-tools/edit": lambda world: _of_dataset(world, body=EDIT),
    "POST /datasets/{name}/caption-tools/undo": _edited,
    "POST /datasets/{name}/caption-tools/redo": lambda world: _edited(world, "undo"),
    "POST /datasets/{name}/caption-tools/sets": lambda world: _of_dataset(world, body={"name": "first"}),
    "POST /datasets/{name}/caption-tools/write": _captioned,
    "GET /datasets/{name}/check": lambda world: _of_dataset(world, query={"trigger": "mycat"}),
    "GET /datasets/{name}/pictures": lambda world: _of_dataset(world, query={"page": 1, "only": "captioned"}),
    "DELETE /datasets/{name}/pictures/{file}": _picture,
    "GET /drafts": lambda world: Asked(),
    "POST /drafts": lambda world: Asked(body={"name": "hero"}),
    "GET /drafts/{ident}": lambda world: Asked({"ident": world.draft()}),
    "PATCH /drafts/{ident}": lambda world: Asked({"ident": world.draft()}, body={"profile": "standard"}),
    "DELETE /drafts/{ident}": lambda world: Asked({"ident": world.draft()}),
    "GET /endings": lambda world: Asked(),
    "GET /jobs": lambda world: Asked(query={"kind": "download"}),
    "POST /jobs": lambda world: Asked(
        body={"kind": "download", "params": {"url": "https://example.invalid/b.safetensors", "to": world.name("to")}}
    ),
    "GET /jobs/{ident}": lambda world: Asked({"ident": world.job().path.name}),
    "DELETE /jobs/{ident}": _finished_job,
    "POST /jobs/{ident}/cancel": lambda world: Asked({"ident": world.job().path.name}),
    "GET /jobs/{ident}/log": lambda world: Asked({"ident": world.job().path.name}),
    "POST /jobs/{ident}/resume": _finished_job,
    "GET /logs": lambda world: Asked(),
    "GET /logs/{kind}/{name}": _service_log,
    "GET /logs/{kind}/{name}/search": lambda world: _service_log(world, query={"text": "start"}),
    "GET /models": lambda world: Asked(),
    "GET /models/catalogue": lambda world: Asked(),
    "POST /models/downloads": lambda world: Asked(
        body={"url": f"https://example.invalid/{world.name('file')}.safetensors", "to": world.name("to")}
    ),
    "GET /models/loras": lambda world: Asked(query={"search": "lora"}),
    "GET /models/loras/{name}": lambda world: Asked({"name": world.lora()}),
    "DELETE /models/loras/{name}": lambda world: Asked({"name": world.lora()}),
    "GET /models/tokens": lambda world: Asked(),
    "PUT /models/tokens/{name}": lambda world: Asked({"name": "HF_TOKEN"}, body={"value": "hf_" + "a" * 30}),
    "GET /notifications": lambda world: Asked(),
    "POST /notifications": lambda world: Asked(body={"name": "phone", "url": world.inbox}),
    "DELETE /notifications/{ident}": lambda world: Asked({"ident": world.channel()}),
    "POST /notifications/{ident}/test": lambda world: Asked({"ident": world.channel()}),
    "GET /openapi.json": lambda world: Asked(),
    "POST /password": lambda world: Asked(body={"old": world.password, "new": world.password}),
    "POST /plan": lambda world: Asked(body=_chosen(world)),
    "GET /pod": lambda world: Asked(),
    "POST /pod/forget-keys": lambda world: Asked(body={"password": world.password}),
    "POST /pod/stay": lambda world: Asked(),
    "PUT /pod/stop": lambda world: Asked(body=_pod_key(world)),
    "POST /pod/stop": _stoppable_pod,
    "GET /queue": lambda world: Asked(),
    "POST /queue": lambda world: Asked(body={"do": "pause", "run": world.waiting().name}),
    "DELETE /queue/{name}": lambda world: Asked({"name": world.waiting().name}),
    "GET /runs": lambda world: Asked(query={"show": "all", "size": 5}),
    "POST /runs/trash/{ident}/restore": lambda world: Asked({"ident": world.trashed("run")}),
    "GET /runs/{name}": _of_run,
    "PATCH /runs/{name}": lambda world: _of_run(world, body={"star": True, "tags": ["good"]}),
    "DELETE /runs/{name}": _of_run,
    "GET /runs/{name}/checkpoints": _of_run,
    "GET /runs/{name}/configuration": _of_run,
    "GET /runs/{name}/difference": _two_runs,
    "GET /runs/{name}/log": _of_run,
    "GET /runs/{name}/log/search": lambda world: _of_run(world, query={"text": "step"}),
    "POST /runs/{name}/requests/{kind}": lambda world: Asked({"name": world.live().name, "kind": "save"}),
    "POST /runs/{name}/resume": lambda world: Asked({"name": world.stopped().name}, body={"changes": []}),
    "GET /runs/{name}/samples": _of_run,
    "GET /runs/{name}/samples/{file}": _sample,
    "GET /runs/{name}/series": lambda world: _of_run(world, query={"buckets": 20}),
    "GET /services": lambda world: Asked(),
    "GET /services/{name}": lambda world: Asked({"name": "tensorboard"}),
    "PUT /services/{name}/autostart": lambda world: Asked({"name": "tensorboard"}, body={"autostart": False}),
    "POST /services/{name}/install": lambda world: Asked({"name": "comfyui"}, body={"do": "install"}),
    "GET /services/{name}/log": lambda world: Asked({"name": "tensorboard"}),
    "POST /services/{name}/state": lambda world: Asked({"name": "tensorboard"}, body={"do": "start"}),
    "GET /sessions": lambda world: Asked(),
    "DELETE /sessions": lambda world: Asked(),
    "GET /settings": lambda world: Asked(),
    "PUT /settings": lambda world: Asked(body={"price_per_hour": 0.4}),
    "GET /settings/schema": lambda world: Asked(),
    "GET /telemetry": lambda world: Asked(),
    "GET /telemetry/history": lambda world: Asked(query={"seconds": 900}),
    "GET /tests": lambda world: Asked(),
    "POST /tests": lambda world: Asked(body={"base": "pilot-tiny", "prompts": ["a zorp on a hill"]}),
    "GET /tests/choices": lambda world: Asked(),
    "GET /tests/{ident}": lambda world: Asked({"ident": world.test().path.name}),
    "GET /tests/{ident}/pictures/{file}": lambda world: Asked(
        {"ident": world.test().path.name, "file": "c00_r000.png"}
    ),
    "GET /tokens": lambda world: Asked(),
    "POST /tokens": lambda world: Asked(body={"name": "nightly"}),
    "DELETE /tokens/{ident}": lambda world: Asked(
        {"ident": world.client.post("/api/v1/tokens", json={"name": "old"}).json["id"]}
    ),
    "POST /train": lambda world: Asked(body=_chosen(world)),
    "GET /trash": lambda world: Asked(),
    "POST /trash/{ident}/restore": lambda world: Asked({"ident": world.trashed("dataset")}),
    "GET /uploads": lambda world: Asked(),
    "POST /uploads": lambda world: Asked(
        body={"dataset": world.name("begun"), "files": [{"path": "a.png", "size": PNG_SIZE}]}
    ),
    "GET /uploads/{ident}": lambda world: Asked({"ident": world.upload()}),
    "DELETE /uploads/{ident}": lambda world: Asked({"ident": world.upload()}),
    "GET /uploads/{ident}/files": lambda world: Asked({"ident": world.upload()}),
    "POST /uploads/{ident}/files": _created,
    "GET /uploads/{ident}/files/{number}": lambda world: Asked({"ident": world.upload(), "number": 0}),
    "PATCH /uploads/{ident}/files/{number}": lambda world: Asked(
        {"ident": world.upload(), "number": 0}, data=PNG, headers=TUS | CHUNK | {"Upload-Offset": "0"}
    ),
    "POST /uploads/{ident}/finish": lambda world: Asked({"ident": world.upload(sent=True)}),
}
