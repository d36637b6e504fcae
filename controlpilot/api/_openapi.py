"""The description of the API, made from the declared operations. Used by /api/v1/openapi.json and the command line."""

from __future__ import annotations

import re
from typing import Any

from flask import Flask
from pydantic import BaseModel, ConfigDict, TypeAdapter

from controlpilot.api import Operation, Resource
from trainpilot import __version__

KINDS = {"int": {"type": "integer"}, "float": {"type": "number"}, "path": {"type": "string"}}
ARGUMENT = re.compile(r"<(?:(\w+)(?:\([^)]*\))?:)?(\w+)>")
REASONS = {
    200: "Done.",
    201: "Made.",
    202: "Accepted: a job does it.",
    204: "Done; there is nothing to say.",
    206: "A part of the content.",
    302: "Elsewhere.",
    303: "Elsewhere.",
    304: "Not changed.",
    400: "The request is wrong; the answer says where.",
    401: "Log in, or send a valid token.",
    403: "Changes come from this panel's own pages or with a token.",
    404: "There is no such thing.",
    409: "The present state does not allow it.",
    410: "It was there once.",
    412: "Another version of the protocol is wanted.",
    413: "Too much at once.",
    415: "Send JSON.",
    416: "There is no such range.",
    422: "The content cannot be used.",
    429: "Too many attempts; Retry-After says how long to wait.",
    503: "What is needed for this does not run.",
    507: "The disk is too full.",
}


class ErrorFacts(BaseModel):
    """Where it went wrong, what was given, what is allowed, what to do; `problems` where there are several."""

    model_config = ConfigDict(extra="allow")
    where: str
    given: str
    allowed: str
    remedy: str
    message: str


class ErrorAnswer(BaseModel):
    """The one shape of every error."""

    error: ErrorFacts


def describe(app: Flask, base: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document of everything below `base`."""
    resources = [found for name in sorted(app.blueprints) if (found := _resource(app, name)) is not None]
    operations = [one for resource in resources for one in resource.operations]
    adapters: list[tuple[Any, Any, TypeAdapter[Any]]] = [("error", "serialization", TypeAdapter(ErrorAnswer))]
    for one in operations:
        if one.answers is not None:
            adapters.append((f"{one.id} answer", "serialization", one.answers))
        if one.body is not None:
            adapters.append((f"{one.id} body", "validation", TypeAdapter(one.body)))
    schemas, rest = TypeAdapter.json_schemas(adapters, ref_template="#/components/schemas/{model}")
    paths: dict[str, Any] = {}
    for one in operations:
        path = ARGUMENT.sub(r"{\2}", one.rule)
        paths.setdefault(path, {})[one.method.lower()] = _operation(one, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "LoRA Pilot",
            "version": __version__,
            "description": "What the panel does, for programs. Send a token as Authorization: Bearer.",
        },
        "servers": [{"url": base}],
        "security": [{"token": []}, {"session": []}],
        "tags": [{"name": resource.name, "description": resource.help} for resource in resources],
        "paths": dict(sorted(paths.items())),
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": "pilot_session"},
            },
            "schemas": rest.get("$defs", {}),
        },
    }


def statuses(one: Operation) -> list[int]:
    """Every status an operation may answer with."""
    found = {one.status, 400, 401, 429, *one.refuses}
    if one.method != "GET":
        found.add(403)
    if one.arguments:
        found.add(404)
    if one.body is not None:
        found |= {413, 415}
    return sorted(found)


def _resource(app: Flask, name: str) -> Resource | None:
    return getattr(app.blueprints[name], "resource", None)


def _operation(one: Operation, schemas: dict[Any, Any]) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status in statuses(one):
        content: dict[str, Any] = {}
        if status >= 400:
            content = {"application/json": {"schema": schemas["error", "serialization"]}}
        elif one.answers is not None:
            content = {"application/json": {"schema": schemas[f"{one.id} answer", "serialization"]}}
        elif status in (one.status, 206) and status != 204:
            content = {one.content: {"schema": {"type": "string", "format": "binary"}}}
        responses[str(status)] = {"description": REASONS.get(status, "See the answer."), **_with(content=content)}
    made: dict[str, Any] = {
        "operationId": one.id,
        "tags": [one.resource.name],
        "summary": one.summary,
        **_with(description=one.description, parameters=_parameters(one)),
        "responses": responses,
    }
    if one.body is not None:
        schema = schemas[f"{one.id} body", "validation"]
        made["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return made


def _with(**found: Any) -> dict[str, Any]:
    return {name: value for name, value in found.items() if value}


def _parameters(one: Operation) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    for kind, name in ARGUMENT.findall(one.rule):
        schema = KINDS.get(kind, {"type": "string", "minLength": 1})
        made.append({"name": name, "in": "path", "required": True, "schema": schema})
    if one.query is not None:
        whole = one.query.model_json_schema()
        defined = whole.get("$defs", {})
        for name, schema in whole.get("properties", {}).items():
            made.append(
                {
                    "name": name,
                    "in": "query",
                    "required": name in whole.get("required", ()),
                    "schema": _inlined(schema, defined),
                    **_with(description=schema.get("description", "")),
                }
            )
    return made


def _inlined(schema: Any, defined: dict[str, Any]) -> Any:
    """A schema without references: those of a query model point into a document that is not sent."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            return _inlined(defined[schema["$ref"].rsplit("/", 1)[1]], defined)
        return {name: _inlined(value, defined) for name, value in schema.items()}
    return [_inlined(one, defined) for one in schema] if isinstance(schema, list) else schema
