"""OpenAPI 3.1 documents of the private APIs: paths from the router, bodies from the models that check them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Final

from aiohttp import web
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from issuer import idempotency
from issuer.api import answer, require

PATH: Final = "/v1/openapi.json"
_SCHEMAS: Final = "#/components/schemas/{model}"
_OCTETS: Final = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_TEXT: Final = {"type": "string", "minLength": 1}
_IDEMPOTENCY: Final[dict[str, Any]] = {
    "name": idempotency.HEADER,
    "in": "header",
    "description": "the change is done once, and answered again as it was, for a day",
    "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
}
_IF_MATCH: Final[dict[str, Any]] = {
    "name": "If-Match",
    "in": "header",
    "description": "the ETag of the case as it was shown; another state is refused",
    "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
}
_PROBLEM: Final[dict[str, Any]] = {
    "description": "RFC 9457; `code` is stable, `kind` says whose fault it is",
    "content": {
        "application/problem+json": {
            "schema": {
                "type": "object",
                "required": ["type", "title", "status", "detail", "code", "kind"],
                "properties": {
                    **{name: {"type": "string"} for name in ("type", "title", "detail", "code", "kind")},
                    "status": {"type": "integer"},
                    "order": {"type": "string", "description": "id of the order that was stored, refused for this"},
                },
            }
        }
    },
}


@dataclass(frozen=True, slots=True)
class Api:
    """What a router does not say of an API. `readers`: roles that may see the document."""

    title: str
    readers: Sequence[str]
    bodies: Mapping[str, type[BaseModel] | None]
    """What each POST takes; None: nothing."""
    queries: Mapping[str, type[BaseModel]]
    """What the query of a GET may say."""
    path_parts: Mapping[str, dict[str, Any]]
    """Parts of paths that are not any text."""
    files: Collection[tuple[str, str]] = ()
    """(method, path) of answers and bodies that are files."""
    matched: str | None = None
    """Paths that begin so take If-Match."""


def add_route(app: web.Application, api: Api) -> None:
    """Serves the document of all routes that were added before, and of itself."""

    async def openapi(request: web.Request) -> web.Response:
        """This document."""
        require(request, *api.readers)
        return answer(shown)

    app.router.add_get(PATH, openapi)
    shown = document(app, api)


def document(app: web.Application, api: Api) -> dict[str, Any]:
    """The OpenAPI document of an application's routes."""
    models = sorted({body for body in api.bodies.values() if body is not None}, key=_title)
    refs, schemas = models_json_schema([(model, "validation") for model in models], ref_template=_SCHEMAS)
    paths: dict[str, dict[str, Any]] = {}
    for route in app.router.routes():
        if route.resource is None or route.method == "HEAD":
            continue
        path = route.resource.canonical
        paths.setdefault(path, {})[route.method.lower()] = _operation(api, route, path, refs)
    return {
        "openapi": "3.1.0",
        "info": {"title": api.title, "version": metadata.version("quash")},
        "paths": paths,
        "components": {
            "schemas": schemas.get("$defs", {}),
            "securitySchemes": {"operator": {"type": "mutualTLS"}},
        },
        "security": [{"operator": []}],
    }


def _operation(api: Api, route: web.AbstractRoute, path: str, refs: Mapping[Any, Any]) -> dict[str, Any]:
    said = (route.handler.__doc__ or "").strip()
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    operation: dict[str, Any] = {
        "operationId": "_".join([route.method.lower(), *path.replace("{", "").replace("}", "").split("/")[2:]]),
        "summary": said or route.handler.__name__.replace("_", " "),
        "parameters": [
            *_path_parts(api, names),
            *_query(api, path if route.method == "GET" else ""),
            *_headers(api, route, path),
        ],
        "responses": {"2XX": {"description": "JSON", "content": {"application/json": {}}}, "default": _PROBLEM},
    }
    if ("put", path) in api.files and route.method == "PUT":
        operation["requestBody"] = {"required": True, "content": _OCTETS}
    if ("get", path) in api.files and route.method == "GET":
        operation["responses"]["2XX"] = {"description": "the file", "content": _OCTETS}
    body = api.bodies.get(path) if route.method == "POST" else None
    if body is not None:
        schema = refs[(body, "validation")]
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return operation


def _path_parts(api: Api, names: Sequence[str]) -> list[dict[str, Any]]:
    return [{"name": name, "in": "path", "required": True, "schema": api.path_parts.get(name, _TEXT)} for name in names]


def _query(api: Api, path: str) -> list[dict[str, Any]]:
    if path not in api.queries:
        return []
    said = api.queries[path].model_json_schema()
    return [
        {"name": name, "in": "query", "schema": schema.get("anyOf", [schema])[0]}  # the other one is null: left out
        for name, schema in said["properties"].items()
    ]


def _headers(api: Api, route: web.AbstractRoute, path: str) -> list[dict[str, Any]]:
    if route.method != "POST":
        return []
    named = [] if path in idempotency.BY_NATURE else [_IDEMPOTENCY]
    return [*named, *([_IF_MATCH] if api.matched and path.startswith(api.matched) else [])]


def _title(model: type[BaseModel]) -> str:
    return f"{model.__module__}.{model.__qualname__}"
