"""The server's OpenAPI document, made of the types that its requests are read as."""

from __future__ import annotations

import re
from typing import Any

from pydantic.json_schema import models_json_schema

import sublayer
from sublayer.serving.bodies import kinds
from sublayer.serving.routes import PATHS, Path

COMMON = {
    "400": "The request is wrong; the message says what.",
    "401": "An API key is needed.",
    "403": "The API key is wrong, or the request comes from another page.",
    "404": "There is no such model.",
    "408": "The request did not come in time.",
    "413": "The request is too large.",
    "415": "The body is of another type.",
    "429": "Too many requests wait; Retry-After says when to come again.",
    "503": "The server loads its models, or stops; Retry-After says when to come again.",
    "504": "The answer took too long.",
}


def document() -> dict[str, Any]:
    """The document as plain data."""
    asked = [path.asks for path in PATHS if path.asks is not None]
    _, schemas = models_json_schema(
        [(kind, "validation") for kind in asked], ref_template="#/components/schemas/{model}"
    )
    paths: dict[str, dict[str, Any]] = {}
    for path in PATHS:
        paths.setdefault(path.path.replace(":path}", "}"), {})[path.method.lower()] = _operation(path)
    return {
        "openapi": "3.1.0",
        "info": {"title": "sublayer", "version": sublayer.__version__},
        "paths": paths,
        "components": {
            "schemas": schemas.get("$defs", {}),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _operation(path: Path) -> dict[str, Any]:
    about = (path.answer.__doc__ or "").strip().partition("\n")[0]
    made: dict[str, Any] = {
        "operationId": path.answer.__name__,
        "summary": about or path.path,
        "responses": {
            "200": {"description": "The answer."},
            **{status: {"description": words} for status, words in COMMON.items()},
        },
    }
    names = re.findall(r"\{(\w+)", path.path)
    if names:
        made["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    if path.asks is not None:
        schema = {"schema": {"$ref": f"#/components/schemas/{path.asks.__name__}"}}
        made["requestBody"] = {"required": True, "content": dict.fromkeys(kinds(forms=path.forms), schema)}
    return made
