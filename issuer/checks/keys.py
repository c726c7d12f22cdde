"""Every check of a public key that needs no database: rules, weak keys, blocklists, a service that knows more.

D40-D45, G9, and of G10 the black list and the weak keys. A refusal names its check: `key.<rule>`, `key.weak.<check>`,
`key.listed`, `key.pwned`.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Final, Self

import aiohttp

from issuer.checks.blocklist import Blocklist
from issuer.checks.workers import PRIVATE, Runner, Threaded
from quash.errors import Kind, QuashError
from quash.runtime.config import Checks, PwnedKeys
from quash.runtime.log import logger

KeyCheck = Callable[[bytes], Awaitable[None]]
"""Raises the refusal of a DER SPKI, if there is one."""

_REMEMBERED: Final = 10_000


class KeyChecks:
    """A `KeyCheck` by the configuration. Use as an async context manager; raises `blocklist.unreadable` on entry."""

    def __init__(self, config: Checks, runner: Runner) -> None:
        self._config = config
        self._runner = runner
        self._blocklists: Sequence[tuple[str, Blocklist]] = ()
        self._good: OrderedDict[bytes, None] = OrderedDict()
        self._service: PwnedKeysClient | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        lists = self._config.blocklists
        self._blocklists = [(each.name, Blocklist(each.file, each.kind)) for each in lists]
        if self._config.pwnedkeys.url:
            self._service = await self._stack.enter_async_context(PwnedKeysClient(self._config.pwnedkeys))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def __call__(self, spki: bytes, *, private: bool = False) -> None:
        """See `KeyCheck`; `private`: of a private PKI.

        An order's key is asked for twice or more: arithmetic that let it pass is not done again.
        """
        digest = hashlib.sha256(spki).digest()
        if digest not in self._good:
            await self._runner.run("key", PRIVATE if private else "", spki)
            self._good[digest] = None
            if len(self._good) > _REMEMBERED:
                self._good.popitem(last=False)
        self._blocklists = [(name, each.current()) for name, each in self._blocklists]
        for name, blocklist in self._blocklists:
            if spki in blocklist:
                raise QuashError("key.listed", f"the blocklist {name} has this key: make a new one (D45)", Kind.REFUSED)
        if self._service is not None:
            await self._service.check(digest)


async def check_once(config: Checks, spki: bytes, *, private: bool = False, ask: bool = True) -> None:
    """What an order's key goes through, for a key that comes alone: a CA's or an OCSP signer's (D42, D45, G9).

    `private`: of a private PKI. `ask`: also the service of the configuration, where it has one.
    """
    checks = config if ask else config.model_copy(update={"pwnedkeys": PwnedKeys()})
    async with KeyChecks(checks, Threaded()) as check:
        await check(spki, private=private)


class PwnedKeysClient:
    """Asks a service like pwnedkeys.com: 200 for the SHA-256 of an SPKI says compromised, 404 says not known (G9)."""

    def __init__(self, config: PwnedKeys) -> None:
        self._config = config

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self._config.timeout))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def check(self, spki_sha256: bytes) -> None:
        """Raises `key.pwned`; without a clear answer `key.unchecked`, unless the configuration lets such keys pass."""
        try:
            url = f"{self._config.url.rstrip('/')}/{spki_sha256.hex()}"
            async with self._session.get(url, allow_redirects=False) as response:
                status: int | str = response.status
        except (aiohttp.ClientError, TimeoutError) as error:
            status = type(error).__name__
        if status == 200:
            raise QuashError("key.pwned", "the private key is public: make a new one (D45)", Kind.REFUSED)
        if status == 404:
            return
        if self._config.fail_closed:
            raise QuashError(
                "key.unchecked", f"the service for compromised keys says {status}: try again", Kind.UNAVAILABLE
            )
        logger().warning("key.unchecked", answer=status)
