"""What the CA signer demands of a TBSCertList: it is of this issuer and scope, it is new, and it is of today."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

from issuer.signer.authority import Authority
from quash.errors import Kind, QuashError
from quash.pki import der
from quash.pki.crl import ENTRIES, NUMBER_LIMIT, Crl, certificate_list, read_crl
from quash.pki.rules import check_crl_validity
from quash.store.crls import Scope

MAX_CLOCK_STEP = 300
"""Seconds between the CRL's thisUpdate and the signer's clock, either way: a large CRL takes a while to make."""

_FIELDS_WITH_ENTRIES, _ENTRIES_FIELD = 7, 5

# B15: a shard of subscriber certificates may not claim to be one of CA certificates; the root issues both kinds.
_MAY_COVER: dict[str, frozenset[Literal["user", "ca"] | None]] = {
    "root": frozenset({None, "ca"}),
    "sub-ca": frozenset({None, "user"}),
    "imported": frozenset({None, "user"}),
    "private": frozenset({None, "user"}),
}


@dataclass(slots=True)
class Matched:
    """The joined entries of a scope that were matched last, as length and hash: only what follows them is matched."""

    size: int = 0
    sha256: bytes = hashlib.sha256().digest()

    def match(self, tbs: bytes, first: int, last: int) -> bool:
        """Whether all of [first, last) are entries of our profile."""
        view = memoryview(tbs)
        begun = hashlib.sha256(view[first : min(first + self.size, last)])
        known = self.size if last - first >= self.size and begun.digest() == self.sha256 else 0
        if not ENTRIES.fullmatch(tbs, first + known, last):
            return False
        begun = begun if known == self.size else hashlib.sha256()
        begun.update(view[first + known : last])
        self.size, self.sha256 = last - first, begun.digest()
        return True


def read_tbs_crl(tbs: bytes, authority: Authority, matched: Matched | None = None) -> Crl:
    """Reads a TBSCertList of the issuer's algorithm, its entries apart: they are matched, and not in what is returned.

    `matched` is kept by whoever reads many CRLs of one scope. Raises `crl.malformed`. Everything but the entries goes
    through the strict reader of whole CRLs; taking a million entries apart there costs four times as much as matching
    them here.
    """
    try:
        start, end = der.only(tbs, der.SEQUENCE)
        fields = list(der.children(tbs, start, end))
    except QuashError as error:
        raise _malformed(error.message) from None
    without = tbs
    if len(fields) == _FIELDS_WITH_ENTRIES:
        tag, offset, first, last = fields[_ENTRIES_FIELD]
        if tag != der.SEQUENCE or first == last or not (matched or Matched()).match(tbs, first, last):
            raise _malformed("its entries are a serial, a time, and perhaps a reason that may be published (B8-B11)")
        without = der.tlv(der.SEQUENCE, tbs[start:offset], tbs[last:end])
    # The reader wants a signature, and beside it the algorithm that stands inside (B1): ours.
    none = b"\x01" * (authority.algorithm.raw_size or 1)
    return read_crl(certificate_list(without, authority.algorithm, none))


def check_crl(crl: Crl, authority: Authority, scope: Scope, last_number: int | None, now: int) -> None:
    """Raises a `crl.*` error unless this is the scope's next CRL. `last_number`: the greatest ever signed for it."""
    if not (last_number or 0) < crl.number < NUMBER_LIMIT:
        raise _refuse("number", f"its number {crl.number} is not above {last_number or 0}, the last one signed (B7)")
    check_frame(crl, authority, scope)
    if abs(crl.this_update - now) > MAX_CLOCK_STEP:
        raise _refuse("this_update", "its thisUpdate is not now; check the clocks and build it again")


def check_frame(crl: Crl, authority: Authority, scope: Scope) -> None:
    """Raises a `crl.*` error unless issuer, distribution point and validity are those of the scope."""
    if crl.issuer != authority.issuer.subject:
        raise _refuse("issuer", "its issuer is another one (B1)")
    if crl.authority_key_id != authority.key_id:
        raise _refuse("issuer", "its authority key identifier is another one (B7)")
    if (crl.idp_urls, crl.idp_critical) != (scope.idp_urls, scope.idp) or crl.only not in _MAY_COVER[
        authority.issuer.kind
    ]:
        raise _refuse("scope", f"its distribution point is not that of scope {scope.scope} (B14, B15)")
    check_crl_validity(crl.this_update, crl.next_update, subscribers=authority.issuer.kind != "root")


def _malformed(message: str) -> QuashError:
    return QuashError("crl.malformed", f"this is no CRL of our profile: {message}")


def _refuse(what: str, message: str) -> QuashError:
    return QuashError(f"crl.{what}", f"the CRL was not signed: {message}", Kind.REFUSED)
