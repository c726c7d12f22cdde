"""What the CA signer demands of a TBSCertList: it is of this issuer and scope, it is new, and it is of today."""

from __future__ import annotations

from typing import Literal

from issuer.signer.certificate_checks import Authority
from quash.errors import Kind, QuashError
from quash.pki.crl import NUMBER_LIMIT, Crl, certificate_list, read_crl
from quash.pki.rules import check_crl_validity
from quash.store.crls import Scope

MAX_CLOCK_STEP = 300
"""Seconds between the CRL's thisUpdate and the signer's clock, either way: a large CRL takes a while to make."""

# B15: a shard of subscriber certificates may not claim to be one of CA certificates; the root issues both kinds.
_MAY_COVER: dict[str, frozenset[Literal["user", "ca"] | None]] = {
    "root": frozenset({None, "ca"}),
    "sub-ca": frozenset({None, "user"}),
    "imported": frozenset({None, "user"}),
}


def read_tbs_crl(tbs: bytes, authority: Authority) -> Crl:
    """Reads a TBSCertList of the issuer's algorithm, by the strict reader of whole CRLs. Raises `crl.malformed`."""
    # The reader wants a signature, and the algorithm beside it to be the one inside (B1): ours.
    none = b"\x01" * (authority.algorithm.raw_size or 1)
    return read_crl(certificate_list(tbs, authority.algorithm, none))


def check_crl(crl: Crl, authority: Authority, scope: Scope, last_number: int | None, now: int) -> None:
    """Raises a `crl.*` error unless this is the scope's next CRL. `last_number`: the greatest ever signed for it."""
    if crl.issuer != authority.issuer.subject:
        raise _refuse("issuer", "its issuer is another one (B1)")
    if crl.authority_key_id != authority.key_id:
        raise _refuse("issuer", "its authority key identifier is another one (B7)")
    if not (last_number or 0) < crl.number < NUMBER_LIMIT:
        raise _refuse("number", f"its number {crl.number} is not above {last_number or 0}, the last one signed (B7)")
    wanted = (scope.url, True) if scope.idp else (None, False)
    if (crl.idp_url, crl.idp_critical) != wanted or crl.only not in _MAY_COVER[authority.issuer.kind]:
        raise _refuse("scope", f"its distribution point is not that of scope {scope.scope} (B14, B15)")
    if abs(crl.this_update - now) > MAX_CLOCK_STEP:
        raise _refuse("this_update", "its thisUpdate is not now; check the clocks and build it again")
    check_crl_validity(crl.this_update, crl.next_update, subscribers=authority.issuer.kind != "root")


def _refuse(what: str, message: str) -> QuashError:
    return QuashError(f"crl.{what}", f"the CRL was not signed: {message}", Kind.REFUSED)
