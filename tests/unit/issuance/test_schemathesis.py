"""The issuing API against its own document, by schemathesis: no input makes it fail or say what it must not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import requests
import schemathesis
from schemathesis.generation import GenerationMode

from issuer import idempotency, openapi
from issuer.api import application, listening
from issuer.issuance import validation_api
from issuer.issuance.api import add_routes
from issuer.issuance.openapi import API
from tests.support.edge import Client, Edge
from tests.support.issuing import World, make_csr
from tests.unit.revocation.test_schemathesis import EXAMPLES, ask


@pytest.fixture
async def edge(world: World, tmp_path: Path) -> Edge:
    edge = await Edge(tmp_path / "state", world.owner).set_up()
    await edge.add_operator("acme-1", "reseller", account="acme")
    return edge


@pytest.fixture
async def api(world: World, edge: Edge) -> AsyncIterator[Client]:
    issuance = world.issuance()
    app = application(world.pool, world.clock)
    add_routes(app, world.pool, world.config, issuance)
    validation_api.add_routes(app, world.pool, issuance)
    openapi.add_route(app, API)
    app.middlewares.append(idempotency.middleware(world.pool, world.clock))
    async with listening(app, edge.tls, "127.0.0.1", 0) as port:
        yield Client(edge, port)


@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize("role", ["officer", "acme-1"])
async def test_every_operation(world: World, edge: Edge, api: Client, examples: int, role: str) -> None:
    """As an officer and as a reseller, with what the document allows and what it does not, over real mutual TLS."""
    made = await api.post("/v1/orders", {"profile": "tls-dv", "csr": make_csr()}, as_=role)
    assert made.status == 201
    document = (await api.get(openapi.PATH, as_=role)).body
    posts = {path for path, operations in document["paths"].items() if "post" in operations}
    assert posts == set(API.bodies)
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=f"https://127.0.0.1:{api.port}")
    schema.config.generation.update(modes=[GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
    operations = [each.ok() for each in schema.get_all_operations()]
    assert len(operations) == sum(len(each) for each in document["paths"].values()) == 8
    folder = edge.operators
    tls = {"verify": str(folder / "ca.pem"), "cert": (str(folder / f"{role}.pem"), str(folder / f"{role}.key"))}
    with requests.Session() as session:
        for operation in operations:
            await asyncio.to_thread(ask, operation, examples, {"session": session, **tls})
