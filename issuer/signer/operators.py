"""The operators' CA, the certificate of the two private APIs, and the first operators' client certificates (F6, G20).

A PKI of its own: nothing here chains to a public root, and nothing of the public hierarchy opens an API.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from issuer.checks.content import check_key_kind
from issuer.signer import oids
from issuer.signer import tbs_writer as write
from issuer.signer.ca_keys import check_ca_key, check_not_blocked
from issuer.signer.deployment import Deployment
from issuer.signer.publish_files import to_pem, write_file
from issuer.signer.tbs_writer import Frame
from issuer.staff import ADD, check_addition, key_of
from quash.errors import Kind, QuashError
from quash.keys import KeyHandle, KeyUnavailable
from quash.pki import der
from quash.pki.certificate import CertificateFields, read_certificate
from quash.pki.names import build_name
from quash.pki.rules import DAY
from quash.pki.serials import new_serial
from quash.runtime.config import Config
from quash.runtime.state import State
from quash.store import acts, operators, proposals
from quash.store.database import Connection
from quash.store.locks import operators_lock
from quash.store.operators import ROLES, Operator, same_person
from quash.store.proposals import Proposal

_CA_NAME: Final = "operators"
_OFFLINE: Final = "offline"
# Name, role, person: each a person of its own, and two officers, or nothing that needs two persons could be done in a
# new deployment.
_FIRST: Final = (
    *((role, role, f"made by quash init as the {role}") for role in ROLES),
    ("officer2", "officer", "made by quash init as the second officer"),
)
_ACTOR: Final = "operators-ca"
_CA_DAYS, _RENEW_DAYS = 3652, 30
_PROFILE: Final = "operator-client"


@dataclass(frozen=True, slots=True)
class _Authority:
    key: KeyHandle
    certificate: x509.Certificate
    fields: CertificateFields
    days: int

    def issue(self, name: str, spki: bytes, now: int, *extensions: bytes) -> bytes:
        """DER of an end-entity certificate; KU, AKI and SKI are the same for all."""
        not_after = min(now + self.days * DAY - 1, self.fields.not_after)
        frame = Frame(new_serial(), self.key.algorithm, self.fields.subject, now, not_after, _name(name), spki)
        tbs = write.write_tbs(
            frame,
            write.key_usage(write.DIGITAL_SIGNATURE),
            write.subject_key(write.key_identifier(spki)),
            write.authority_key(write.key_identifier(self.key.spki)),
            *extensions,
        )
        return write.write_certificate(tbs, self.key.algorithm, self.key.sign(tbs))


async def ensure_operators(deployment: Deployment, conn: Connection, say: Callable[[str], None]) -> None:
    """Makes what is missing or ends within a month: `operators/ca.pem`, `secrets/api.*`, one operator of each role.

    An operator whose row exists but whose files do not keeps its key elsewhere, and is left alone. Where all is there,
    the CA's key may be away.
    """
    state, now, hosts = deployment.state, deployment.now(), _hosts(deployment.config)
    own = _ca_certificate(deployment)
    known = {operator.name for operator in await operators.everyone(conn)}
    mine = [each for each in _FIRST if (state.operators / f"{each[0]}.pem").exists() or each[0] not in known]
    due = [name for name, *_ in mine if not _is_good(state.operators / f"{name}.pem", own, now)]
    api = state.secrets / "api.pem"
    api_is_due = not _is_good(api, own, now) or hosts not in _from_pem(api)
    try:
        if due or api_is_due:
            with _authority(deployment, now) as ca:
                if api_is_due:
                    _make(api, ca, "Quash private APIs", now, write.extended_key_usage(oids.SERVER_AUTH), hosts)
                    say("made the server certificate of the private APIs")
                for name in due:
                    _make(state.operators / f"{name}.pem", ca, name, now, write.extended_key_usage(oids.CLIENT_AUTH))
                    say(f"made the client certificate operators/{name}.pem")
    except KeyUnavailable as error:
        if own is None or not api.exists():
            raise
        say(f"certificates of the private APIs end within {_RENEW_DAYS} days: {error.message}")  # all else goes on
    for name, role, person in mine:
        path = state.operators / f"{name}.pem"
        if path.exists():
            await operators.add(conn, Operator(_fingerprint(path), name, person, role, "active"), now)


def _ca_certificate(deployment: Deployment) -> x509.Certificate | None:
    """None: it is yet to be made; then its key is."""
    path = deployment.state.operators / "ca.pem"
    if path.exists():
        return x509.load_pem_x509_certificate(path.read_bytes())
    deployment.files.ensure(_OFFLINE, _CA_NAME, "ec-p256")
    return None


async def sign_operator(deployment: Deployment, conn: Connection, proposal_id: int) -> bytes:
    """The client certificate (DER) that two officers approved; the same again for the same proposal.

    What was checked when it was approved is checked again, since it may have been signed for, or disabled, since then.
    Raises `proposal.unknown`, `proposal.not_approved`, what `check_addition` raises, and what keeps the operators' CA
    key from being opened.
    """
    proposal = await proposals.get(conn, proposal_id)
    if proposal is None or proposal.action != ADD:
        raise QuashError("proposal.unknown", "no proposal of an operator has this number", Kind.NOT_FOUND)
    if proposal.approved_by is None or same_person(proposal.approved_by, proposal.person):
        raise QuashError("proposal.not_approved", "a second officer must approve it first: quash approve", Kind.REFUSED)
    made = await proposals.certificate(conn, proposal_id)
    if made is None:  # before the lock, since strangers are asked: who has the key is the operator
        await check_ca_key(conn, deployment.config.checks, key_of(proposal.payload), issuer=None)
    async with operators_lock(conn):
        made = await proposals.certificate(conn, proposal_id)
        return await _sign(deployment, conn, proposal) if made is None else made


async def _sign(deployment: Deployment, conn: Connection, proposal: Proposal) -> bytes:
    now, asked = deployment.now(), proposal.payload
    await check_addition(conn, asked)
    check_key_kind(deployment.config.kinds[_PROFILE], key_of(asked))
    await check_not_blocked(conn, key_of(asked))
    with _authority(deployment, now) as ca:
        certificate = ca.issue(asked["name"], key_of(asked), now, write.extended_key_usage(oids.CLIENT_AUTH))
    fingerprint = hashlib.sha256(certificate).digest()
    async with conn.transaction():
        operator = Operator(fingerprint, asked["name"], asked["person"], asked["role"], "active", asked.get("account"))
        await operators.add(conn, operator, now)
        await proposals.add_certificate(conn, proposal.id, fingerprint, certificate, now)
        subject = {"proposal": proposal.id, "name": operator.name, "fingerprint": fingerprint.hex()}
        await acts.record(conn, at=now, actor=_ACTOR, action="operator.certificate", subject=subject)
    return certificate


@contextmanager
def _authority(deployment: Deployment, now: int) -> Iterator[_Authority]:
    """The operators' CA, for as long as it signs: its key is kept with those that explicit commands alone use (G20).

    One that an earlier release made lies with the CA signer's keys, and stays usable there.
    """
    files = deployment.files
    try:
        key = files.open(_OFFLINE, files.ref(_OFFLINE, _CA_NAME))
    except KeyUnavailable:
        try:
            key = files.open("ca", files.ref("ca", _CA_NAME))
        except KeyUnavailable:
            message = "the operators' CA key is away: bring keys/offline and its passphrase (docs/operations.md)"
            raise KeyUnavailable(message) from None
    try:
        yield _ensure_ca(deployment.config, deployment.state, key, now)
    finally:
        key.close()


def _ensure_ca(config: Config, state: State, key: KeyHandle, now: int) -> _Authority:
    path = state.operators / "ca.pem"
    if not path.exists() or read_certificate(_from_pem(path)).spki != key.spki:
        name, own = _name("Quash operators CA"), write.key_identifier(key.spki)
        frame = Frame(new_serial(), key.algorithm, name, now, now + _CA_DAYS * DAY - 1, name, key.spki)
        tbs = write.write_tbs(
            frame,
            write.basic_constraints(write.LAST_CA),
            write.key_usage(write.KEY_CERT_SIGN_AND_CRL_SIGN),
            write.subject_key(own),
            write.authority_key(own),
        )
        write_file(path, to_pem(write.write_certificate(tbs, key.algorithm, key.sign(tbs))).encode())
    made = x509.load_pem_x509_certificate(path.read_bytes())
    return _Authority(key, made, read_certificate(_from_pem(path)), config.kinds[_PROFILE].days)


def _hosts(config: Config) -> bytes:
    """Where both APIs are reached: the loopback interface and the hosts that they are configured on."""
    return _alternative_names(["localhost", "127.0.0.1", config.issuer.host, config.admin.host])


def _make(path: Path, ca: _Authority, name: str, now: int, *extensions: bytes) -> None:
    """A key and its certificate: the key first, so that a certificate never stands without its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    spki = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    write_file(path.with_suffix(".key"), private, 0o600)
    write_file(path, to_pem(ca.issue(name, spki, now, *extensions)).encode())


def _is_good(path: Path, ca: x509.Certificate | None, now: int) -> bool:
    """Whether certificate and key are there, belong together, are by this CA and last for another month."""
    if ca is None:
        return False
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        certificate.verify_directly_issued_by(ca)
        key = serialization.load_pem_private_key(path.with_suffix(".key").read_bytes(), None)
    except (OSError, ValueError, InvalidSignature):
        return False
    lasts = certificate.not_valid_after_utc.timestamp() - now
    return certificate.public_key() == key.public_key() and lasts > _RENEW_DAYS * DAY


def _fingerprint(path: Path) -> bytes:
    return hashlib.sha256(_from_pem(path)).digest()


def _from_pem(path: Path) -> bytes:
    return x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(serialization.Encoding.DER)


def _name(common_name: str) -> bytes:
    return build_name({"O": "Quash operators", "CN": common_name})


def _alternative_names(hosts: list[str]) -> bytes:
    names = [_alternative_name(host) for host in dict.fromkeys(hosts)]
    return write.extension(oids.SUBJECT_ALT_NAME, der.tlv(der.SEQUENCE, *names))


def _alternative_name(host: str) -> bytes:
    try:
        return der.tlv(0x87, ipaddress.ip_address(host).packed)
    except ValueError:
        return der.tlv(0x82, host.encode("ascii"))
