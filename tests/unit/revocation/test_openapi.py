"""The OpenAPI document: whole, consistent, and of every route."""

from __future__ import annotations

import re
from typing import Any

import pytest
from aiohttp import web

from issuer.revocation import openapi
from issuer.revocation.main import add_routes
from quash.runtime.clock import FakeClock
from quash.runtime.config import Config


@pytest.fixture(name="shown")
def document_of_all_routes() -> dict[str, Any]:
    app = web.Application()
    add_routes(app, None, Config(), FakeClock(), None)  # type: ignore[arg-type]
    return openapi.document(app)


def test_every_post_says_what_it_takes(shown: dict[str, Any]) -> None:
    """A route that is added without a row in `BODIES` fails here, and so does a row without a route."""
    posts = {path for path, operations in shown["paths"].items() if "post" in operations}
    assert posts == set(openapi.BODIES)
    for path, body in openapi.BODIES.items():
        assert ("requestBody" in shown["paths"][path]["post"]) == (body is not None)


def test_references_and_names_are_sound(shown: dict[str, Any]) -> None:
    """Every $ref has its schema, every path parameter is declared, and no two operations share an id."""
    references = set(re.findall(r"#/components/schemas/([^'\"]+)", repr(shown)))
    assert references
    assert references <= set(shown["components"]["schemas"])
    ids = [each["operationId"] for operations in shown["paths"].values() for each in operations.values()]
    assert len(ids) == len(set(ids))
    for path, operations in shown["paths"].items():
        for operation in operations.values():
            named = {each["name"] for each in operation["parameters"] if each["in"] == "path"}
            assert named == set(re.findall(r"\{(\w+)\}", path))
            assert operation["summary"]


def test_unknown_names_are_refused_by_the_schemas_too(shown: dict[str, Any]) -> None:
    """What `extra="forbid"` means stands in the document; two bodies of one name do not hide each other."""
    bodies = [
        shown["components"]["schemas"][
            operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        ]
        for operations in shown["paths"].values()
        for operation in operations.values()
        if "application/json" in operation.get("requestBody", {}).get("content", {})
    ]
    assert len(bodies) == sum(body is not None for body in openapi.BODIES.values())
    assert all(body["additionalProperties"] is False for body in bodies)
    notes = [
        shown["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        for path in ("/v1/cases/{id}/notes", "/v1/blocked-keys/{spki_sha256}/notes")
    ]
    assert notes[0] != notes[1]
