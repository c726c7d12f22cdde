"""Certificates of an issuer whose key is not even brought here: a sub-CA's, and its own OCSP signer's (G4, D20).

Export reserves serial and octets as every issuance does, and stops where the key would sign; import goes on from that
reservation with the signature in the key's place. So all checks are those of the CA signer itself, twice.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from issuer.signer.ceremony import Ceremony
from issuer.signer.deployment import Deployment
from issuer.signer.hierarchy import make_sub_ca
from issuer.signer.key_ring import KeyRing
from issuer.signer.ocsp_signer import ensure_ocsp_signer
from issuer.signer.offline import offline_issuer
from issuer.signer.publish_files import publish_certificates
from issuer.signer.service import CaSigner
from quash.errors import Kind, QuashError
from quash.keys import KeyHandle
from quash.pki.algorithms import SIGNATURE_ALGORITHMS, SignatureAlgorithm, verify
from quash.runtime import config as configuration
from quash.store.database import acquire
from quash.store.issuers import Issuer

Work = Callable[[Deployment, CaSigner, Issuer], Awaitable[None]]
"""Issues one certificate with whatever key the CA signer is given."""


class _Exported(QuashError):  # noqa: N818 - it is no error, it stops the work
    """The octets that the key would have signed."""

    def __init__(self, tbs: bytes) -> None:
        super().__init__("ca.exported", "these octets wait for their signature", Kind.CONFLICT)
        self.tbs = tbs


@dataclass(frozen=True, slots=True)
class _Elsewhere:
    """Stands for the key: it signs nothing but the octets whose signature came back; without one it says them."""

    spki: bytes
    algorithm: SignatureAlgorithm
    signed: tuple[bytes, bytes] | None = None
    quick: bool = True

    def sign(self, tbs: bytes) -> bytes:
        if self.signed is None:
            raise _Exported(tbs)
        if tbs != self.signed[0]:
            raise QuashError("ca.not_exported", "these octets are not those exported last: export again", Kind.REFUSED)
        return self.signed[1]

    def sign_many(self, many: Sequence[bytes]) -> list[bytes]:
        return [self.sign(tbs) for tbs in many]

    def check(self) -> None:
        """Nothing is here that could be away."""

    def close(self) -> None:
        """Nothing is open."""


async def export_certificate(deployment: Deployment, name: str, work: Work) -> bytes:
    """The TBSCertificate that the issuer's key shall sign. The signature must be back within 23 hours.

    Raises `ca.nothing_to_sign` when there is nothing to do, and what any issuance raises.
    """
    try:
        await _do(deployment, name, work, None)
    except _Exported as exported:
        return exported.tbs
    raise QuashError("ca.nothing_to_sign", f"{name} has nothing to sign: it is done already", Kind.CONFLICT)


async def import_certificate(deployment: Deployment, name: str, work: Work, tbs: bytes, signature: bytes) -> None:
    """Issues the exported certificate with its signature (as in the BIT STRING: DER for ECDSA), once.

    Raises `ca.not_exported`, `signature.invalid` and what any issuance raises.
    """
    issuer = await offline_issuer(deployment.pool, name)
    algorithm = SIGNATURE_ALGORITHMS[issuer.signature_algorithm]
    raw = algorithm.decode(signature)
    verify(issuer.spki, algorithm, raw, tbs)
    await _do(deployment, name, work, (tbs, raw))
    async with acquire(deployment.pool) as conn:
        await publish_certificates(conn, deployment.state)


async def _do(deployment: Deployment, name: str, work: Work, signed: tuple[bytes, bytes] | None) -> None:
    issuer = await offline_issuer(deployment.pool, name)

    def opener(asked: Issuer) -> KeyHandle:
        if asked.id != issuer.id:
            raise QuashError("ca.other_key", f"this needs the key of {asked.name} as well", Kind.REFUSED)
        return _Elsewhere(issuer.spki, SIGNATURE_ALGORITHMS[issuer.signature_algorithm], signed)

    keys = KeyRing(opener)
    try:
        await work(deployment, CaSigner(deployment.pool, keys, deployment.clock), issuer)
    finally:
        await keys.close()


async def new_ocsp_signer(deployment: Deployment, signer: CaSigner, issuer: Issuer) -> None:
    """A `Work`: the issuer's next OCSP signer."""
    wanted = _configured(deployment, issuer.name).ocsp_signer
    ceremony = Ceremony(deployment, signer)
    await ensure_ocsp_signer(ceremony, deployment.files, issuer, wanted.key, wanted.days, renew=True)


def new_sub_ca(name: str) -> Work:
    """A `Work`: the certificate of a sub-CA of the configuration; `quash init` makes the rest of the new issuer."""

    async def work(deployment: Deployment, signer: CaSigner, issuer: Issuer) -> None:
        wanted = _configured(deployment, name)
        if wanted.parent != issuer.name:
            raise QuashError("hierarchy.parent", f"{name} stands below {wanted.parent}, not below {issuer.name}")
        await make_sub_ca(deployment, signer, wanted)

    return work


def _configured(deployment: Deployment, name: str) -> configuration.Issuer:
    wanted = next((each for each in deployment.config.issuers if each.name == name), None)
    if wanted is None:
        raise QuashError("hierarchy.not_configured", f"the configuration has no issuer {name}")
    return wanted
