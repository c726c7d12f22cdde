"""`quash testsite`: valid, revoked and expired certificates of each root over TLS, kept up by itself (F13)."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys

from issuer.testsite.server import Sites
from issuer.testsite.sites import TestCertificates
from quash.cli.client import Api
from quash.cli.common import (
    DEFAULT_CONFIG,
    DEFAULT_STATE,
    ConfigOption,
    Context,
    SetOption,
    StateOption,
    context,
    reports_errors,
)
from quash.errors import Kind, QuashError
from quash.runtime.clock import SystemClock
from quash.runtime.supervisor import inherited_or_own


class _Client:
    """An `Authority`: both APIs, asked as one operator. Threads, since the client blocks."""

    def __init__(self, deployment: Context, operator: str) -> None:
        self._issuing = Api(deployment, deployment.config.issuer, operator)
        self._admin = Api(deployment, deployment.config.admin, operator)
        self._patience = deployment.config.issuance.visible_timeout + 30.0

    async def order(self, profile: str, csr: str) -> str:
        body = {"profile": profile, "csr": csr}
        order = await asyncio.to_thread(self._issuing.post, "/v1/orders", body, timeout=self._patience)
        return str(order["id"])

    async def collect(self, order: str) -> str | None:
        found = await asyncio.to_thread(self._issuing.get, f"/v1/orders/{order}")
        if found["state"] == "refused":
            raise QuashError(found["code"] or "order.refused", found["detail"], Kind.REFUSED)
        return None if found["certificate"] is None else str(found["certificate"] + found["chain"])

    async def revoke(self, certificate: str) -> None:
        body = {"certificate": certificate, "reason": "cessationOfOperation"}
        await asyncio.to_thread(self._admin.post, "/v1/revocations", body)


@reports_errors
def serve_sites(
    config: ConfigOption = DEFAULT_CONFIG, state: StateOption = DEFAULT_STATE, set_: SetOption = None
) -> None:
    """Serves the sites of `testsite.sites` until told to stop; orders, revokes and renews as `testsite.operator`."""
    deployment = context(config, state, set_)
    if not deployment.config.testsite.sites:
        raise QuashError("testsite.none", "testsite.sites is empty: name a root, a profile and a domain", Kind.INPUT)
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(_serve(deployment))


async def _serve(deployment: Context) -> None:
    task, wanted = asyncio.current_task(), deployment.config.testsite
    for each in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(each, task.cancel if task else lambda: None)
    authority = _Client(deployment, wanted.operator)
    certificates = TestCertificates(wanted, deployment.state, authority, SystemClock())
    sites = Sites(certificates)
    listen = inherited_or_own(wanted.host, wanted.port)
    host, port, *_ = listen.getsockname()
    async with sites.serving(listen):
        shown: tuple[str, ...] = ()
        while True:
            await certificates.step()
            for site, error in certificates.problems.items():
                print(f"warning: {site}: {error}", file=sys.stderr, flush=True)
            sites.load()
            if sites.hosts != shown:
                shown = sites.hosts
                print(f"serving on {host}:{port}: {' '.join(shown)}", flush=True)
            await asyncio.sleep(certificates.pause)
