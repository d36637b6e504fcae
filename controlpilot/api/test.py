"""Tests of LoRAs: pictures at several strengths and seeds, side by side."""

from __future__ import annotations

from controlpilot.api import Raw, Resource
from controlpilot.desk import desk
from controlpilot.views import jobs
from controlpilot.views import test as view
from controlpilot.views.jobs import JobList, JobRow
from controlpilot.views.test import Choices, TestRequest, TestResult

resource = Resource("tests", "Tests of LoRAs")
blueprint = resource.blueprint


@resource.get("/tests")
def listing() -> JobList:
    """The tests, the newest first"""
    return jobs.listing(desk().workspace, view.KIND)


@resource.get("/tests/choices")
def choices() -> Choices:
    """What can be tested, and on which base models"""
    return view.choices(desk().workspace)


@resource.post("/tests", status=202)
def start(body: TestRequest) -> JobRow:
    """Put a test into the queue; it gives way to training"""
    return view.start(desk().workspace, body)


@resource.get("/tests/<ident>")
def result(ident: str) -> TestResult:
    """A test with its pictures as far as they are made"""
    return view.result(desk().workspace, ident)


@resource.get("/tests/<ident>/pictures/<file>", content="image/png")
def picture(ident: str, file: str) -> Raw:
    """One picture"""
    path = view.picture_file(desk().workspace, ident, file)
    return Raw(path.read_bytes(), mimetype="image/png")
