"""Delegated OCSP signers (A13-A17): a key for the presigner, a certificate for it by the issuer itself."""

from __future__ import annotations

from functools import partial

from issuer.signer import ca_profiles
from issuer.signer.authority import authority_of
from issuer.signer.ceremony import Ceremony, Wanted
from issuer.signer.certificate_profiles import OCSP_SIGNER
from issuer.signer.key_files import KeyFiles
from quash.keys import KeyKind
from quash.pki.algorithms import algorithm_for_spki
from quash.pki.certificate import read_certificate
from quash.pki.rules import DAY
from quash.store import issuers, ocsp_signers, outbox
from quash.store.database import Connection
from quash.store.issuers import Issuer
from quash.store.ocsp_signers import OcspSigner

_RENEW_AT = 3
"""An online issuer's signer is replaced when a third of its life is left."""


async def ensure_ocsp_signer(
    ceremony: Ceremony, files: KeyFiles, issuer: Issuer, kind: KeyKind, days: int, *, renew: bool = False
) -> bool:
    """Makes an OCSP signer when the issuer has none or its own is old; says whether it did.

    A signer of an issuer whose key is offline is replaced by an explicit command only (`renew`).
    """
    async with ceremony.connection() as conn:
        every = await ocsp_signers.of_issuer(conn, issuer.id)
        own = await issuers.certificate(conn, issuer.id)
    active = next((signer for signer in reversed(every) if signer.state == "active"), None)
    if active is not None and not (renew or (issuer.key_ref and _is_old(active, ceremony.now()))):
        return False
    if own is None:
        raise RuntimeError(f"issuer {issuer.name} was committed without a certificate")
    name = f"{issuer.name}-{len(every) + 1}"
    spki = files.ensure("ocsp", name, kind)
    wanted = Wanted(
        issuer=issuer,
        profile=OCSP_SIGNER,
        subject=ca_profiles.ocsp_signer_subject(issuer, len(every) + 1),
        spki=spki,
        not_after=min(ceremony.now() + days * DAY - 1, own.not_after),
        build=partial(ca_profiles.ocsp_signer, issuer_key_id=authority_of(issuer, own.der).key_id),
    )

    async def finish(conn: Connection, der: bytes) -> None:
        fields = read_certificate(der)
        await ocsp_signers.add(
            conn,
            issuer_id=issuer.id,
            certificate=der,
            key_ref=files.ref("ocsp", name),
            signature_algorithm=algorithm_for_spki(spki).name,
            not_before=fields.not_before,
            not_after=fields.not_after,
            created_at=ceremony.now(),
        )
        if active is not None:
            await ocsp_signers.set_state(conn, active.id, "retiring")
        await outbox.add_signer(conn, issuer.id)

    await ceremony.issue(wanted, finish)
    return True


def _is_old(signer: OcspSigner, now: int) -> bool:
    return signer.not_after - now < (signer.not_after - signer.not_before) // _RENEW_AT
