"""Every role against every route of a private API, over real mutual TLS."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

from quash.store.operators import RESELLER, ROLES
from tests.support.edge import Client

STAFF = frozenset(ROLES)
ALL = STAFF | {RESELLER}
Routes = Mapping[tuple[str, str], Set[str]]
_PARTS = {
    "act_id": "1",
    "issuer": "alpha",
    "serial": "1",
    "name": "nobody",
    "spki_sha256": "0" * 64,
    "sha256": "0" * 64,
}


async def check_roles(app: Any, api: Client, routes: Routes, *, id: str = "1") -> None:  # noqa: A002 - a path's part
    """`routes`: (method, path) -> who may. Router, OpenAPI document and `routes` name the same; a role that may not is
    told so before anything else is looked at, one that may gets further. Each role is an operator's name.
    """
    routed = {
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.method != "HEAD" and route.resource is not None
    }
    paths = (await api.get("/v1/openapi.json", as_="viewer")).body["paths"]
    described = {(method.upper(), path) for path, operations in paths.items() for method in operations}
    assert routed == set(routes)
    assert described == set(routes)
    for (method, path), allowed in routes.items():
        assert allowed <= ALL
        url = path.format(id=id, **_PARTS)
        for role in sorted(ALL):
            said = await api.ask(method, url, as_=role, json={} if method == "POST" else None)
            refused = said.status == 403 and said.code == "operator.role"
            assert refused == (role not in allowed), (method, path, role, said.status)
