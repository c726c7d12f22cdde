"""Who may ask what of the issuing API."""

from __future__ import annotations

from pathlib import Path

from issuer import openapi
from issuer.api import application, listening
from issuer.issuance import validation_api
from issuer.issuance.api import add_routes
from issuer.issuance.openapi import API
from tests.support.edge import Client, Edge
from tests.support.issuing import World
from tests.support.role_matrix import ALL, check_roles

# Every route and who may ask it; a route that is not here fails the test.
ROUTES = {
    ("POST", "/v1/orders"): {"operator", "officer", "reseller"},
    ("GET", "/v1/orders"): {"officer", "reseller"},
    ("GET", "/v1/orders/{id}"): ALL,
    ("POST", "/v1/orders/{id}/decision"): {"officer"},
    ("POST", "/v1/validations"): {"officer"},
    ("POST", "/v1/validations/withdrawals"): {"officer"},
    ("GET", "/v1/validations"): {"officer", "auditor"},
    ("GET", "/v1/openapi.json"): ALL,
}


async def test_every_role_against_every_route(world: World, tmp_path: Path) -> None:
    edge = await Edge(tmp_path / "state", world.owner).set_up()
    await edge.add_operator("reseller", "reseller", account="acme")
    issuance = world.issuance()
    app = application(world.pool, world.clock)
    add_routes(app, world.pool, world.config, issuance)
    validation_api.add_routes(app, world.pool, issuance)
    openapi.add_route(app, API)
    async with listening(app, edge.tls, "127.0.0.1", 0) as port:
        await check_roles(app, Client(edge, port), ROUTES, id="0" * 8 + "-0000" * 3 + "-" + "0" * 12)
