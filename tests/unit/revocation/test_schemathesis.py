"""The running admin API against its own document, by schemathesis: no input makes it fail or say what it must not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from issuer import idempotency
from issuer.api import application, listening
from issuer.revocation.main import add_routes
from issuer.revocation.visible import Watches
from quash.runtime.clock import FakeClock
from tests.support.edge import Client, Edge
from tests.support.revoking import World, key_hash

CHECKS = [
    not_a_server_error,
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
]
EXAMPLES = [1, pytest.param(200, marks=pytest.mark.long)]


@pytest.fixture
async def edge(world: World, tmp_path: Path) -> Edge:
    return await Edge(tmp_path, world.owner).set_up()


@pytest.fixture
async def api(world: World, database: Any, edge: Edge, clock: FakeClock) -> AsyncIterator[Client]:
    async with Watches(world.pool, database.config, clock) as watches:
        app = application(world.pool, clock)
        add_routes(app, world.pool, database.config, clock, watches)
        app.middlewares.append(idempotency.middleware(world.pool, clock))
        async with listening(app, edge.tls, "127.0.0.1", 0) as port:
            yield Client(edge, port)


@pytest.mark.parametrize("examples", EXAMPLES)
async def test_every_operation(world: World, edge: Edge, api: Client, examples: int) -> None:
    """As an officer, with what the document allows and with what it does not, over real mutual TLS."""
    await world.certificate(spki=key_hash())
    document = (await api.get("/v1/openapi.json")).body
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=f"https://127.0.0.1:{api.port}")
    schema.config.generation.update(modes=[GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
    operations = [each.ok() for each in schema.get_all_operations()]
    assert len(operations) == sum(len(each) for each in document["paths"].values())
    folder = edge.operators
    tls = {"verify": str(folder / "ca.pem"), "cert": (str(folder / "officer.pem"), str(folder / "officer.key"))}
    with requests.Session() as session:
        for operation in operations:
            await asyncio.to_thread(ask, operation, examples, {"session": session, **tls})


def ask(operation: Any, examples: int, how: dict[str, Any]) -> None:
    """One operation, so many examples; raises what the checks find."""

    @given(case=operation.as_strategy())
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        derandomize=examples < 10,
    )
    def once(case: Any) -> None:
        response = case.call(**how)
        case.validate_response(response, checks=CHECKS)

    once()
