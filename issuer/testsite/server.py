"""The test sites over TLS: one port, the certificate by the name that a client asks for."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from issuer.testsite.sites import Site, TestCertificates
from quash.runtime.server_name import hide_versions

_PAGE = "This site shows the {kind} test certificate of {root}.\n"


class Sites:
    """Serves what `certificates` keeps. A site without a certificate to show refuses the handshake."""

    def __init__(self, certificates: TestCertificates) -> None:
        self._certificates = certificates
        self._contexts: dict[str, ssl.SSLContext] = {}

    @property
    def hosts(self) -> tuple[str, ...]:
        """The sites that are served now."""
        return tuple(self._contexts)

    def load(self) -> None:
        """Takes up new certificates; connections that are open keep theirs."""
        shown = [site for site in self._certificates.sites if self._certificates.shown(site)]
        self._contexts = {site.host: self._context(site) for site in shown}

    @asynccontextmanager
    async def serving(self, listen: socket.socket) -> AsyncIterator[None]:
        """Serves on a listening socket inside the block, which closes it."""
        hide_versions()
        app = web.Application()
        app.router.add_get("/", self._page)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=2)
        await runner.setup()
        try:
            await web.SockSite(runner, listen, ssl_context=self._front()).start()
            yield
        finally:
            await runner.cleanup()

    def _front(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.sni_callback = self._choose
        return context

    def _choose(self, connection: ssl.SSLObject, name: str | None, _front: ssl.SSLContext) -> int | None:
        found = self._contexts.get((name or "").lower())
        if found is None:
            return int(ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME)
        connection.context = found
        return None

    def _context(self, site: Site) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._certificates.file(site))
        return context

    async def _page(self, request: web.Request) -> web.Response:
        name = request.host.partition(":")[0].lower()
        site = next((each for each in self._certificates.sites if each.host == name), None)
        if site is None or name not in self._contexts:
            return web.Response(status=421, text="there is no such site here\n")
        return web.Response(text=_PAGE.format(kind=site.kind, root=site.root))
