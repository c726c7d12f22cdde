"""DNS names and mailboxes: their form, and their place under a registry's suffix (D11, D12, D49, G28)."""

from __future__ import annotations

import functools

from issuer.checks.registries import Registries
from quash.pki import rules


def check_name(name: str, registries: Registries | None = None) -> str:
    """The name in lower case. Raises what `rules.check_dns_name` and `Registries.check` raise.

    Its form is judged as it was written: some letters beyond ASCII have a lower case within it (G29).
    """
    rules.check_dns_name(name)
    (registries or shipped()).check(name.lower())
    return name.lower()


def check_mailbox(address: str, registries: Registries | None = None) -> str:
    """The address with its host in lower case; the host is a name like any other. Raises `email.*`, `name.*` (D49)."""
    local, _, host = address.rpartition("@")
    rules.check_mailbox(address)
    return f"{local}@{check_name(host, registries)}"


@functools.cache
def shipped() -> Registries:
    """The lists that Quash comes with."""
    return Registries()
