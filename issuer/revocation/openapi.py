"""The admin API's OpenAPI 3.1 document: paths from the router, bodies from the pydantic models that check them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from typing import Any, Final

from aiohttp import web
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from issuer.api import answer, require
from issuer.revocation import api, case_api, key_api, officer_api, signers

PATH: Final = "/v1/openapi.json"
_SCHEMAS: Final = "#/components/schemas/{model}"
_EVERYONE: Final = ("viewer", "operator", "officer", "auditor")

# What each POST takes; None: nothing.
BODIES: Final[Mapping[str, type[BaseModel] | None]] = {
    "/v1/revocations": api.RevocationBody,
    "/v1/certificates/lookup": api.CertificateBody,
    "/v1/crls/builds": api.BuildBody,
    "/v1/signers/switches": signers.SwitchBody,
    "/v1/kill-switch": officer_api.KillSwitchBody,
    "/v1/operators": officer_api.OperatorBody,
    "/v1/operators/{name}/disable": None,
    "/v1/proposals/{id}/approval": officer_api.ApprovalBody,
    "/v1/blocked-keys": key_api.BlockBody,
    "/v1/blocked-keys/imports": key_api.ImportBody,
    "/v1/blocked-keys/{spki_sha256}/notes": key_api.NoteBody,
    "/v1/key-compromises/challenges": None,
    "/v1/key-compromises": key_api.CompromiseBody,
    "/v1/cases": case_api.CaseBody,
    "/v1/cases/{id}/certificates": case_api.CertificatesBody,
    "/v1/cases/{id}/notes": case_api.NoteBody,
    "/v1/cases/{id}/evidence": case_api.EvidenceBody,
    "/v1/cases/{id}/preliminary-report": case_api.NoteBody,
    "/v1/cases/{id}/revocation": None,
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
                },
            }
        }
    },
}


def add_route(app: web.Application) -> None:
    """Serves the document of all routes that were added before, and of itself."""

    async def openapi(request: web.Request) -> web.Response:
        """This document."""
        require(request, *_EVERYONE)
        return answer(shown)

    app.router.add_get(PATH, openapi)
    shown = document(app)


def document(app: web.Application) -> dict[str, Any]:
    """The OpenAPI document of an application's routes."""
    models = sorted({body for body in BODIES.values() if body is not None}, key=_title)
    refs, schemas = models_json_schema([(model, "validation") for model in models], ref_template=_SCHEMAS)
    paths: dict[str, dict[str, Any]] = {}
    for route in app.router.routes():
        if route.resource is None or route.method == "HEAD":
            continue
        path = route.resource.canonical
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, path, refs)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Quash admin API", "version": metadata.version("quash")},
        "paths": paths,
        "components": {
            "schemas": schemas.get("$defs", {}),
            "securitySchemes": {"operator": {"type": "mutualTLS"}},
        },
        "security": [{"operator": []}],
    }


def _operation(route: web.AbstractRoute, path: str, refs: Mapping[Any, Any]) -> dict[str, Any]:
    said = (route.handler.__doc__ or "").strip()
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    operation: dict[str, Any] = {
        "operationId": "_".join([route.method.lower(), *path.replace("{", "").replace("}", "").split("/")[2:]]),
        "summary": said or route.handler.__name__.replace("_", " "),
        "parameters": [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names],
        "responses": {"2XX": {"description": "JSON", "content": {"application/json": {}}}, "default": _PROBLEM},
    }
    body = BODIES.get(path) if route.method == "POST" else None
    if body is not None:
        schema = refs[(body, "validation")]
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return operation


def _title(model: type[BaseModel]) -> str:
    return f"{model.__module__}.{model.__qualname__}"
