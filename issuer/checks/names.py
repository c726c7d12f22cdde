"""DNS names: their form, and their place under a registry's suffix (D11, D12, G28)."""

from __future__ import annotations

import functools

from publicsuffixlist import PublicSuffixList

from quash.errors import Kind, QuashError
from quash.pki.rules import check_dns_name


def check_name(name: str) -> None:
    """Raises what `check_dns_name` raises, `name.no_public_suffix` and `name.public_suffix`. `name` is lower-case."""
    check_dns_name(name)
    suffix = _icann_suffixes().publicsuffix(name)
    if suffix is None:
        raise QuashError(
            "name.no_public_suffix", f"{name} is under no registry's suffix: it may be an internal name", Kind.REFUSED
        )
    if suffix == name:
        raise QuashError("name.public_suffix", f"{name} belongs to its registry (D12)", Kind.REFUSED)


@functools.cache
def _icann_suffixes() -> PublicSuffixList:
    """The ICANN section of the list that the package carries; a name under none of its rules is internal (D11)."""
    return PublicSuffixList(only_icann=True, accept_unknown=False)
