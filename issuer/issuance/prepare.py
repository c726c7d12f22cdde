"""The reading half of flow 1: from an order to the exact bytes that may be signed for it. Writes nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from issuer import profiles
from issuer.checks import csr
from issuer.checks.content import check_content, check_limits
from issuer.checks.keys import KeyCheck
from issuer.checks.registries import Registries
from issuer.ct.tbs import check_match, plain, with_poison, with_scts
from issuer.issuance import validations
from issuer.issuance.crl_urls import CrlUrls
from issuer.profiles import LeafContent, LeafIssuer, Validity
from issuer.signer.tbs import tbs_of
from quash.errors import Kind, QuashError
from quash.pki.rules import DAY
from quash.pki.serials import new_serial
from quash.runtime.config import Config, Profile
from quash.runtime.profiles import LEAVES, ProfileKind
from quash.store import certificates, issuers, issuing
from quash.store.certificates import Reservation
from quash.store.database import Connection
from quash.store.issuers import Issuer, IssuerCertificate
from quash.store.issuing import Obstacles
from quash.store.orders import Order

Chain = tuple[tuple[Issuer, bytes], ...]
"""An issuer and those above it, each with the DER of the certificate that chains show, the root last."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What an order asks for, by whom (as acts name them), and when it is looked at. `request`: DER."""

    applicant: str
    profile: str
    request: bytes
    now: int


@dataclass(frozen=True, slots=True)
class Plan:
    """An order that passed every check that needs no serial."""

    profile: Profile
    kind: ProfileKind
    issuer: Issuer
    issuer_certificate: IssuerCertificate
    content: LeafContent
    spki_sha256: bytes
    chain: Chain


@dataclass(frozen=True, slots=True)
class Draft:
    """What T1 commits: one serial and the only TBSCertificate that may ever be signed for it. `twin`: for linters."""

    serial: bytes
    tbs: bytes
    twin: bytes
    valid: Validity
    shard: int | None


@dataclass(frozen=True, slots=True)
class Reserved:
    """What T1 committed, read back. `tbs`: what is to be signed next; `der`: of the (pre)certificate, once signed."""

    issuer_id: int
    serial: bytes
    spki_sha256: bytes
    shard: int | None
    valid: Validity
    state: str
    tbs: bytes | None
    der: bytes | None

    @property
    def key(self) -> tuple[int, bytes]:
        return self.issuer_id, self.serial


async def make_plan(
    conn: Connection,
    config: Config,
    check_key: KeyCheck,
    asked_for: Asked,
    *,
    registries: Registries | None = None,
) -> Plan:
    """Checks an order: profile, request, names, validation, key, kill switch. Raises the first refusal."""
    request = asked_for.request
    profile = next((profile for profile in config.profiles if profile.name == asked_for.profile), None)
    if profile is None:
        known = ", ".join(profile.name for profile in config.profiles)
        raise QuashError("profile.unknown", f"there is no such profile; choose one of: {known}")
    kind = config.kinds[profile.kind]
    await check_key(csr.public_key(request))
    asked = csr.read(request)
    prospect = await issuing.prospect(conn, profile.issuer, asked.spki, _not_of_subscribers(config))
    if prospect is None:
        raise _missing(profile.issuer)
    if prospect.ours:
        raise QuashError(
            "key.ours", "this key is a CA's or an OCSP signer's of ours: make your own (D46)", Kind.REFUSED
        )
    content = check_content(kind, asked, registries)
    check_limits(profile, content)
    if config.issuance.require_validation:
        if registries is not None:
            registries.check_age(config.names.max_age_days * DAY, asked_for.now)
        await validations.check(conn, asked_for.applicant, content, asked_for.now)
    issuer, certificate = prospect.chain[0]
    if certificate is None:
        raise _missing(profile.issuer)
    _check_obstacles(prospect.obstacles)
    spki_sha256 = hashlib.sha256(asked.spki).digest()
    return Plan(profile, kind, issuer, certificate, content, spki_sha256, _chain(prospect.chain))


def _missing(issuer: str) -> QuashError:
    return QuashError("issuer.missing", f"the issuer {issuer} is not set up: run init", Kind.UNAVAILABLE)


def _not_of_subscribers(config: Config) -> list[str]:
    """Profiles of certificates for keys that the CA made itself (D46, G31)."""
    return [name for name, kind in config.kinds.items() if kind.type not in LEAVES]


async def recheck(conn: Connection, locks: tuple[int, int], plan: Plan, serial: bytes) -> bool:
    """What may change at any moment, under `locks` (`locks_to_sign`), which this takes (C9, G21).

    Returns: `serial` is revoked.
    """
    found = await issuing.obstacles(conn, locks, plan.issuer.id, plan.spki_sha256, serial)
    _check_obstacles(found)
    return found.revoked


def _check_obstacles(found: Obstacles) -> None:
    if found.stopped:
        raise QuashError("issuance.stopped", "the kill switch is on: ask an officer", Kind.REFUSED)
    if found.blocked:
        raise QuashError("key.blocked", "this key was reported compromised: make a new one (C9)", Kind.REFUSED)


async def make_draft(
    conn: Connection, config: Config, plan: Plan, now: int, *, logged: bool, crl_urls: CrlUrls
) -> Draft:
    """Chooses serial, validity and shard, and builds the TBS and its throw-away-signed twin.

    `logged`: it is the TBS of a precertificate. Without logs, a deployment that must have them refuses (E6).
    """
    if plan.kind.logged and config.ct.required and not logged:
        raise QuashError("ct.not_configured", "no TLS certificate without logs: set ct.log_list (E6)", Kind.REFUSED)
    serial = new_serial()
    shard = certificates.shard_of(serial, plan.issuer.shard_count)
    days = plan.profile.days or plan.kind.days
    valid = profiles.validity(plan.kind, days, now, plan.issuer_certificate.not_after)
    profiles.check_validity(plan.kind, valid, now)
    # D4, A43; OCSP and CRLs know it all the same, should anybody ask.
    says = () if plan.profile.short_lived else plan.kind.revocation
    leaf_issuer = LeafIssuer(
        signature_algorithm=plan.issuer.signature_algorithm,
        certificate=plan.issuer_certificate.der,
        ocsp_url=f"{config.ocsp_base}/{plan.issuer.ocsp_path}" if "ocsp" in says else None,
        ca_issuers_url=f"{config.crl_base}/{plan.issuer.name}.cer",
        crl_url=await crl_urls.of(conn, plan.issuer, shard) if "crl" in says else None,
    )
    tbs = profiles.build_tbs(plan.kind, leaf_issuer, plan.content, serial, valid)
    tbs = with_poison(tbs) if logged else tbs
    twin = profiles.build_twin(tbs, plan.issuer.signature_algorithm)
    return Draft(serial, tbs, twin, valid, shard)


async def read_chain(conn: Connection, issuer_id: int) -> Chain:
    """What logs want (RFC 6962 4.2), and strangers verify with. Raises `issuer.missing`."""
    above = await issuers.chain(conn, issuer_id)
    if not above:
        raise _missing(str(issuer_id))
    return _chain(above)


def _chain(above: Sequence[tuple[Issuer, IssuerCertificate | None]]) -> Chain:
    for issuer, certificate in above:
        if certificate is None:
            raise QuashError("issuer.missing", f"{issuer.name} has no certificate: run init", Kind.UNAVAILABLE)
    return tuple((issuer, certificate.der) for issuer, certificate in above if certificate is not None)


def reserved_for(order: Order, found: Reservation | None) -> Reserved | None:
    """What T1 committed for an order; None before it. Raises `order.inconsistent`: T1 writes both or neither."""
    if order.serial is None:
        return None
    row = found.certificate if found else None
    if found is None or row is None or row.spki_sha256 is None or row.not_before is None:
        raise inconsistent(order)
    valid = Validity(row.not_before, row.not_after)
    return Reserved(row.issuer_id, row.serial, row.spki_sha256, row.shard, valid, row.state, found.tbs, row.der)


def inconsistent(order: Order) -> QuashError:
    return QuashError("order.inconsistent", f"order {order.id} has no reservation: tell support", Kind.INTERNAL)


def final_tbs(reserved: Reserved, scts: bytes) -> bytes:
    """The precertificate's TBS with SCTs in place of the poison; the match is proven (D19), and again by the signer."""
    precertificate = tbs_of(reserved.der or b"")
    tbs = with_scts(plain(precertificate), scts)
    check_match(precertificate, tbs)
    return tbs


def check_age(created_at: int, resume_seconds: int, now: int) -> None:
    """Raises when an order lay unfinished for so long that its checks say nothing any more."""
    if now >= created_at + resume_seconds:
        raise QuashError("order.expired", "this took too long and was given up: order again", Kind.REFUSED)


def check_reserved(reserved: Reserved, plan: Plan, now: int) -> None:
    """What a resumed order may have outlived: its profile's issuer, or the validity limit of the day (D-4)."""
    if reserved.issuer_id != plan.issuer.id:
        raise QuashError("order.outdated", "the profile has another issuer now: order again", Kind.REFUSED)
    profiles.check_validity(plan.kind, reserved.valid, now)


@lru_cache(maxsize=64)  # of the CAs', again and again
def _loaded(certificate: bytes) -> x509.Certificate:
    return x509.load_der_x509_certificate(certificate)


def check_signed(der: bytes, tbs: bytes | None, issuer_certificate: bytes) -> None:
    """Never trust the previous step: the signer returned the committed bytes under the issuer's signature (D19)."""
    certificate = x509.load_der_x509_certificate(der)
    try:
        certificate.verify_directly_issued_by(_loaded(issuer_certificate))
        same = certificate.tbs_certificate_bytes == tbs
    except (ValueError, TypeError, InvalidSignature):
        same = False
    if not same:
        raise QuashError("signer.other_certificate", "the CA signer returned another certificate", Kind.INTERNAL)
