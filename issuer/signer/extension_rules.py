"""What an extension of a certificate must say: one function a rule, for the tables of `certificate_profiles`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from issuer.ct.sct import decode_list
from issuer.signer import oids
from issuer.signer.authority import Authority
from issuer.signer.extension_values import read_octets, read_path_length, read_policies
from issuer.signer.tbs import TbsCertificate
from issuer.signer.tbs_writer import distribution_points, last_but
from quash.errors import QuashError
from quash.pki import der
from quash.pki.name_constraints import read_name_constraints
from quash.pki.names import build_name, name_attributes
from quash.pki.policies import NAMES
from quash.pki.rules import check_dns_name, check_mailbox


@dataclass(frozen=True, slots=True)
class Expected:
    """What the reservation says of the certificate, beside its bytes. `crl_url` is that of its scope."""

    profile: str
    serial: bytes
    spki_sha256: bytes
    not_before: int
    not_after: int
    crl_url: str | None


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a rule may look at beside its extension."""

    tbs: TbsCertificate
    authority: Authority
    expected: Expected


Check = Callable[[bytes, Candidate], bool]


def be(*values: bytes) -> Check:
    return lambda value, _: value in values


def sequence_of_oid(dotted: str) -> bytes:
    return der.tlv(der.SEQUENCE, der.oid(dotted))


_HTTP_URL = re.compile(rb"http://[!-~]+")
_EMPTY_NAME = bytes.fromhex("3000")
_RSA_OID = bytes.fromhex("06092a864886f70d010101")
DIGITAL_SIGNATURE, _SIGN_AND_ENCIPHER = bytes.fromhex("03020780"), bytes.fromhex("030205a0")
_SIGN_AND_AGREE = bytes.fromhex("03020388")
_PURPOSE_EMAIL = sequence_of_oid(oids.EMAIL_PROTECTION)
_PURPOSES_EMAIL_AND_CLIENT = der.tlv(der.SEQUENCE, der.oid(oids.EMAIL_PROTECTION), der.oid(oids.CLIENT_AUTH))
_HOST = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)*")  # an empty one would permit every name
_DIRECTORY = frozenset({"C", "ST", "L", "O"})
_RFC822_NAME, _DNS_NAME = 0x81, 0x82  # GeneralName
_LONGEST_PATH = 2


def authority_key(value: bytes, candidate: Candidate) -> bool:
    return value == der.tlv(der.SEQUENCE, der.tlv(0x80, candidate.authority.key_id))


def any_octets(value: bytes, _: Candidate) -> bool:
    return 8 <= len(read_octets(value)) <= 32


def crl_url(value: bytes, candidate: Candidate) -> bool:
    """B15, B16: the URL of the very scope that will carry the entry; one point, no reasons, no cRLIssuer (B17)."""
    url = candidate.expected.crl_url
    return url is not None and value == distribution_points(url)


def access(value: bytes, candidate: Candidate) -> bool:
    """D7: ocsp and caIssuers only, each once, by http; OCSP under the issuer's own path (G45)."""
    urls: dict[bytes, bytes] = {}
    for tag, _, start, end in der.children(value, *der.only(value, der.SEQUENCE)):
        if tag != der.SEQUENCE:
            return False
        _, method = der.expect(value, start, der.OID, end)
        begin, stop = der.expect(value, method, 0x86, end)
        if value[start:method] in urls or stop != end:
            return False
        urls[value[start:method]] = value[begin:stop]
    ocsp, ca_issuers = der.oid(oids.AD_OCSP), der.oid(oids.AD_CA_ISSUERS)
    path = f"/{candidate.authority.issuer.ocsp_path}".encode()
    return (
        urls.keys() <= {ocsp, ca_issuers}
        and all(map(_HTTP_URL.fullmatch, urls.values()))
        and urls.get(ocsp, path).endswith(path)
    )


def dns_names(value: bytes, candidate: Candidate) -> bool:
    """D11, G27-G29: DNS names, each by the rules, and at least one; critical exactly when the subject is empty (D7)."""
    names = _names(value, _DNS_NAME)
    for name in names:
        check_dns_name(name)
    if candidate.authority.constraints is not None:
        candidate.authority.constraints.check_dns(names)
    return bool(names) and _critical_when_alone(candidate)


def mailboxes(value: bytes, candidate: Candidate) -> bool:
    """D49: e-mail addresses, each by the rules, and at least one."""
    found = _names(value, _RFC822_NAME)
    for address in found:
        check_mailbox(address)
    if candidate.authority.constraints is not None:
        candidate.authority.constraints.check_email(found)
    return bool(found) and _critical_when_alone(candidate)


def _names(value: bytes, kind: int) -> list[str]:
    """Of a SubjectAltName that has names of this kind alone; any other has none."""
    names = []
    for tag, _, start, end in der.children(value, *der.only(value, der.SEQUENCE)):
        if tag != kind:
            return []
        names.append(value[start:end].decode("ascii", "replace"))
    return names


def _critical_when_alone(candidate: Candidate) -> bool:
    critical = candidate.tbs.extensions[oids.SUBJECT_ALT_NAME].critical
    return critical == (candidate.tbs.subject == _EMPTY_NAME)


def sct_list(value: bytes, _: Candidate) -> bool:
    """E7: SCTs of version 1, at least one, in an OCTET STRING. Their logs the signer cannot judge."""
    try:
        return bool(decode_list(read_octets(value)))
    except QuashError:
        return False


def leaf_usage(value: bytes, candidate: Candidate) -> bool:
    """D8: digitalSignature; RSA keys may also encipher keys. Never keyCertSign nor cRLSign."""
    return value == DIGITAL_SIGNATURE or (value == _SIGN_AND_ENCIPHER and _RSA_OID in candidate.tbs.spki[:24])


def email_usage(value: bytes, candidate: Candidate) -> bool:
    """D49: digitalSignature, and with it keyEncipherment (RSA) or keyAgreement (EC)."""
    both = _SIGN_AND_ENCIPHER if _RSA_OID in candidate.tbs.spki[:24] else _SIGN_AND_AGREE
    return value in (DIGITAL_SIGNATURE, both)


def email_purposes(value: bytes, candidate: Candidate) -> bool:
    """D49: emailProtection; a multipurpose certificate may also log in."""
    policies = candidate.tbs.extensions.get(oids.CERTIFICATE_POLICIES)
    strict = policies is None or any(_is_strict(oid) for oid in read_policies(policies.value))
    return value in (_PURPOSE_EMAIL, *(() if strict else (_PURPOSES_EMAIL_AND_CLIENT,)))


def _is_strict(oid: str) -> bool:
    return NAMES.get(oid, "").endswith("strict")


def one_policy_of(reserved: Mapping[str, str]) -> Check:
    """D7, D49: exactly one reserved policy, without qualifiers, and one that the issuer's certificate carries (D15)."""
    values = {_policy_value([oid]): oid for oid in reserved.values()}
    return lambda value, candidate: value in values and candidate.authority.carries([values[value]])


def policies_of(reserved: Mapping[str, str]) -> Check:
    """D15, D17: reserved policies of one purpose, or any alone, which the parent carries."""

    def holds(value: bytes, candidate: Candidate) -> bool:
        found = read_policies(value)
        known = found == [oids.ANY_POLICY] or set(found) <= set(reserved.values())
        return bool(found) and known and value == _policy_value(found) and candidate.authority.carries(found)

    return holds


def _policy_value(found: Iterable[str]) -> bytes:
    return der.tlv(der.SEQUENCE, *map(sequence_of_oid, found))


def purpose(oid: str) -> Check:
    """One purpose, and where the parent names any, the parent's (D17)."""
    wanted = sequence_of_oid(oid)
    return lambda value, candidate: (
        value == wanted and (not candidate.authority.purposes or oid in candidate.authority.purposes)
    )


def fits_below(value: bytes, candidate: Candidate) -> bool:
    """D15: a CA with a path length, which is less than the parent's."""
    length, above = read_path_length(value), candidate.authority.path_length
    if length is None or not 0 <= length <= _LONGEST_PATH or value != last_but(length):
        return False
    return above is None or length < above


def constraints_on(kind: str) -> Check:
    """D16, D17: names of this kind and directory names, none of another kind, and each of them binds."""

    def holds(value: bytes, _: Candidate) -> bool:
        found = read_name_constraints(value)
        has = {"dns": bool(found.dns), "email": bool(found.email)}
        hosts = [*found.dns, *(each.removeprefix(".") for each in found.email)]
        return (
            bool(found.directory)
            and has == {each: each == kind for each in has}
            and all(map(_HOST.fullmatch, hosts))
            and all(map(_binds, found.directory))
        )

    return holds


def _binds(name: bytes) -> bool:
    """A directory name as we write them, with a country: an empty one would permit every subject."""
    found = dict(name_attributes(name))
    return "C" in found and found.keys() <= _DIRECTORY and build_name(found) == name
