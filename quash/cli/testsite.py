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
from quash.cli.issue import finished
from quash.errors import Kind, QuashError
from quash.runtime.clock import SystemClock

_LOOK, _AGAIN = 3600.0, 30.0  # seconds between looks, and after one that failed


class _Client:
    """An `Authority`: both APIs, asked as one operator. Threads, since the client blocks."""

    def __init__(self, deployment: Context, operator: str) -> None:
        self._issuing = Api(deployment, deployment.config.issuer, operator)
        self._admin = Api(deployment, deployment.config.admin, operator)
        self._patience = deployment.config.issuance.visible_timeout + 30.0

    async def order(self, profile: str, csr: str) -> str:
        order = await asyncio.to_thread(self._order, profile, csr)
        return str(order["certificate"] + order["chain"])

    def _order(self, profile: str, csr: str) -> dict[str, str]:
        order = self._issuing.post("/v1/orders", {"profile": profile, "csr": csr}, timeout=self._patience)
        return finished(self._issuing, order, self._patience)

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
    async with sites.serving(wanted.host, wanted.port) as port:
        shown: tuple[str, ...] = ()
        while True:
            pause = await _look(certificates)
            sites.load()
            if sites.hosts != shown:
                shown = sites.hosts
                print(f"serving on {wanted.host}:{port}: {' '.join(shown)}", flush=True)
            await asyncio.sleep(pause)


async def _look(certificates: TestCertificates) -> float:
    """Seconds until the next look: what fails is tried again soon, and what there is goes on being served."""
    try:
        await certificates.step()
    except QuashError as error:
        print(f"warning: {error.code}: {error.message}", file=sys.stderr, flush=True)
        return _AGAIN
    return _LOOK
