"""CAs of others, signed from their own CSRs: always name-constrained, for one purpose, below a CA made for it (G17).

Whoever runs the command vouches for the constraints: that the names were validated for that organization (D16) is a
record of officers, not of this machine. Its OCSP and CRL are its own affair; its status is its parent's, that is ours.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from issuer.checks import csr
from issuer.checks.content import check_key_kind
from issuer.checks.high_profile import flagged
from issuer.checks.names import check_name
from issuer.checks.registries import Registries
from issuer.checks.weak_keys import check_key
from issuer.profiles import LeafContent
from issuer.signer import ca_profiles, oids
from issuer.signer.authority import authority_of
from issuer.signer.ceremony import Ceremony, Wanted
from issuer.signer.certificate_profiles import CONSTRAINED_EMAIL_SUB_CA, CONSTRAINED_SUB_CA
from issuer.signer.deployment import Deployment
from issuer.signer.external_name import external_subject
from issuer.signer.hierarchy import read_parent, sub_ca_shape
from issuer.signer.key_files import ceremony_opener
from issuer.signer.key_ring import KeyRing
from issuer.signer.publish_files import to_pem
from issuer.signer.service import CaSigner
from quash.errors import Kind, QuashError
from quash.pki.names import build_name
from quash.pki.rules import DAY
from quash.runtime import config as configuration
from quash.runtime.config import Permitted
from quash.store import issuers
from quash.store.database import Connection, acquire
from quash.store.issuers import Issuer

ACTOR: Final = "command:sign-sub-ca"
_PARTICIPANTS: Final = 2
_PROFILES: Final = {oids.SERVER_AUTH: CONSTRAINED_SUB_CA, oids.EMAIL_PROTECTION: CONSTRAINED_EMAIL_SUB_CA}


@dataclass(frozen=True, slots=True)
class External:
    """What is asked for. `request`: DER of the CSR; `policies`: by the names of `quash.pki.policies`.

    `by`: who takes part, two or more (D20). `high_profile`: why an officer lets such names pass; empty: none did (G19).
    """

    parent: str
    request: bytes
    policies: tuple[str, ...]
    permitted: Permitted
    days: int
    by: tuple[str, ...]
    high_profile: str = ""


async def sign_sub_ca(deployment: Deployment, asked: External) -> tuple[bytes, list[str]]:
    """Issues the CA certificate (DER), and returns it with the PEM chain above it; asking again issues another.

    Needs the parent's key on this machine. Raises `external.*`, `hierarchy.*`, `key.*`, `csr.*`, `name.*`, `tbs.*`,
    `lint.failed`.
    """
    # 1. Who asks, and the request: whose key and name.
    by = _participants(asked.by)
    spki = csr.public_key(asked.request)
    check_key(spki)
    request = csr.read(asked.request)
    # 2. The parent, and what may be asked of it.
    async with acquire(deployment.pool) as conn:
        parent, own, scope = await read_parent(conn, asked.parent)
        known = await issuers.all_issuers(conn)
        chain = await _chain(conn, parent)
    authority = authority_of(parent, own.der)
    profile = next((name for purpose, name in _PROFILES.items() if authority.purposes == {purpose}), None)
    if profile is None or not authority.path_length:
        raise _refuse("parent", f"{parent.name} is not made for CAs of others: none stands directly below a root (G17)")
    if any(spki == each.spki for each in known):
        raise _refuse("ours", "its key is that of a CA of ours")
    subject = external_subject(asked.request, request, known)
    # 3. The rules of the profile: constraints of the purpose, policies, days (D16, D17).
    wanted = _wanted(asked, profile, subject)
    kind = deployment.config.kinds[profile]
    check_key_kind(kind, spki)
    try:
        configuration.check_ca(wanted, kind)
    except ValueError as error:
        raise _refuse("profile", str(error)) from None
    registries = Registries(deployment.state.root / "names")
    for host in (*asked.permitted.dns, *asked.permitted.email):
        check_name(host.removeprefix("."), registries)
    flagged = _high_profile(asked, subject, deployment.config.issuance.high_profile)
    # 4. Reserve, sign, commit, like any certificate of ours.
    keys = KeyRing(ceremony_opener(deployment.files))
    try:
        ceremony = Ceremony(deployment, CaSigner(deployment.pool, keys, deployment.clock), ACTOR)
        shape = sub_ca_shape(deployment.config, parent, own, scope, wanted)
        not_after = min(deployment.now() + asked.days * DAY - 1, own.not_after)
        build = partial(ca_profiles.sub_ca, shape=shape)

        about = {**_about(asked, subject), "by": by, **flagged}

        async def finish(_conn: object, der: bytes) -> bytes:
            return der

        return (
            await ceremony.issue(
                Wanted(parent, profile, build_name(subject), spki, not_after, build, about, theirs=True), finish
            ),
            chain,
        )
    finally:
        await keys.close()


def _participants(names: Iterable[str]) -> list[str]:
    """D20: a CA key signs under the eyes of two. Who they are the act tells; nobody here can prove it."""
    found = list(dict.fromkeys(filter(None, map(str.strip, names))))
    if len(found) < _PARTICIPANTS:
        raise QuashError("external.by", f"name the {_PARTICIPANTS} people who do this, each by --by (D20)")
    return found


def _high_profile(asked: External, subject: Mapping[str, str], words: Collection[str]) -> dict[str, Any]:
    """What the act says of high-profile names (G19, D38); none of them passes without an officer's word."""
    found = flagged(LeafContent(b"", asked.permitted.dns, subject, asked.permitted.email), words)
    if not found:
        return {}
    reason = asked.high_profile.strip()
    if not reason:
        raise _refuse(
            "high_profile",
            f"{', '.join(found)} would be held for an officer in any order: --high-profile-reason says why an officer"
            " lets it pass (G19)",
        )
    return {"high_profile": found, "reason": reason}


def _about(asked: External, subject: Mapping[str, str]) -> dict[str, Any]:
    """What the certificate lets its holder do, for whoever reads the acts (F1)."""
    return {
        "subject": dict(subject),
        "policies": list(asked.policies),
        "permitted": asked.permitted.model_dump(mode="json"),
    }


async def _chain(conn: Connection, issuer: Issuer) -> list[str]:
    """PEM of the issuer's certificate and of those above it, the root last."""
    own = await issuers.certificate(conn, issuer.id)
    above = await issuers.get(conn, issuer.parent) if issuer.parent is not None else None
    return [to_pem(own.der) if own else "", *(await _chain(conn, above) if above else [])]


def _wanted(asked: External, profile: str, subject: Mapping[str, str]) -> configuration.Issuer:
    return configuration.Issuer(
        name="external",
        kind="sub-ca",
        profile=profile,
        parent=asked.parent,
        key="ec-p384",  # of every profile; its own was checked above
        subject={"C": subject["C"], "O": subject["O"], "CN": subject["CN"]},
        days=asked.days,
        policy=asked.policies,
        permitted=asked.permitted,
    )


def _refuse(what: str, message: str) -> QuashError:
    return QuashError(f"external.{what}", f"the CA is not signed: {message}", Kind.REFUSED)
