"""The JSON API: one module for each resource, found by a scan. This is how an operation is declared:

    resource = Resource("runs", "Training runs")
    blueprint = resource.blueprint

    @resource.get("/runs/<name>/log", refuses=(409,))
    def log(name: str, query: LogQuery) -> LogPart:
        \"\"\"A part of a run's log.\"\"\"
        return views.log(desk().workspace, name, query.after)

    @resource.post("/runs", status=201)
    def create(body: NewRun) -> Created: ...

Arguments are named: those of the path; `query`, a pydantic model of the query string; `body`, one of the JSON body.
The annotation of the return value is the answer: a model, a list of models, a dict; None for 204; `Raw` for bytes
(with `content="image/png"`). Refusals are PilotErrors; 400, 401, 403 (changes), 404 (where the path has arguments),
413, 415 (where there is a body) and 429 are always documented, others are named in `refuses`. Nothing undocumented
may leave: an undeclared status of a refusal is an error of ours, found by the test that runs schemathesis.

Own code, because the libraries that offer this cost half of the panel's start-up and have their own error shapes.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, request
from pydantic import BaseModel, TypeAdapter, ValidationError
from werkzeug.exceptions import UnsupportedMediaType

from controlpilot.problems import problems_of
from trainpilot.errors import PilotError

Raw = Response  # annotation of an operation that answers with something else than JSON
Function = typing.TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Operation:
    """One operation as OpenAPI describes it. `answers` is None for 204 and for raw content."""

    resource: Resource
    method: str
    rule: str  # Flask's, below /api/v1
    name: str
    summary: str
    description: str
    status: int
    content: str
    refuses: tuple[int, ...]
    query: type[BaseModel] | None
    body: Any | None
    answers: TypeAdapter[Any] | None
    arguments: dict[str, Any]

    @property
    def id(self) -> str:
        return f"{self.resource.name}.{self.name}"


class Resource:
    """The operations of one module. name: also the tag in OpenAPI; help: one line about it."""

    def __init__(self, name: str, help: str) -> None:
        self.name = name
        self.help = help
        self.operations: list[Operation] = []
        self.blueprint = Blueprint(f"api_{name}", f"controlpilot.api.{name}")
        self.blueprint.resource = self  # type: ignore[attr-defined]

    def get(self, rule: str, **rest: Any) -> Callable[[Function], Function]:
        return self._operation("GET", rule, **rest)

    def post(self, rule: str, **rest: Any) -> Callable[[Function], Function]:
        return self._operation("POST", rule, **rest)

    def put(self, rule: str, **rest: Any) -> Callable[[Function], Function]:
        return self._operation("PUT", rule, **rest)

    def patch(self, rule: str, **rest: Any) -> Callable[[Function], Function]:
        return self._operation("PATCH", rule, **rest)

    def delete(self, rule: str, **rest: Any) -> Callable[[Function], Function]:
        return self._operation("DELETE", rule, **rest)

    def _operation(
        self, method: str, rule: str, status: int | None = None, refuses: tuple[int, ...] = (), content: str = ""
    ) -> Callable[[Function], Function]:
        """status: of success, else 200, or 204 where nothing is returned; content: media type of a `Raw` answer."""

        def declare(function: Function) -> Function:
            kinds = typing.get_type_hints(function)
            returned = kinds.pop("return")
            query, body = kinds.pop("query", None), kinds.pop("body", None)
            empty = returned is type(None)
            raw = inspect.isclass(returned) and issubclass(returned, Response)
            answers = None if empty or raw else TypeAdapter(returned)
            success = status or (204 if empty else 200)
            summary, _, more = (inspect.getdoc(function) or "").partition("\n")
            operation = Operation(
                self, method, rule, function.__name__, summary.rstrip("."), more.strip(), success,
                content or "application/octet-stream" if raw else "application/json",
                refuses, query, body, answers, kinds,
            )  # fmt: skip
            self.operations.append(operation)
            taken = TypeAdapter(body) if body is not None else None

            @functools.wraps(function)
            def answer(**arguments: Any) -> Response:
                if query is not None:
                    arguments["query"] = _query(query)
                if taken is not None:
                    arguments["body"] = _body(taken)
                result = function(**arguments)
                if isinstance(result, Response):
                    return result
                if answers is None:
                    return Response(status=success)
                return Response(answers.dump_json(result, by_alias=True), success, mimetype="application/json")

            self.blueprint.add_url_rule(rule, function.__name__, answer, methods=[method])
            return function

        return declare


def _query(model: type[BaseModel]) -> BaseModel:
    given: dict[str, Any] = {}
    for name, values in request.args.lists():
        field = model.model_fields.get(name)
        many = field is not None and typing.get_origin(field.annotation) in (list, set, tuple)
        if len(values) > 1 and not many:
            raise PilotError(f"query.{name}", f"{len(values)} values", "one value", "Send it once.")
        given[name] = values if many else values[0]
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise problems_of(error, "query") from error


def _body(kind: TypeAdapter[Any]) -> Any:
    if request.mimetype != "application/json":
        raise UnsupportedMediaType(f"Content-Type: {request.mimetype or 'none'}")
    try:
        return kind.validate_json(request.get_data())
    except ValidationError as error:
        raise problems_of(error, "body") from error
