"""What the CA signer refuses, each for the one thing that is wrong with it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from issuer.signer import oids
from issuer.signer import tbs_writer as write
from quash.errors import Kind, QuashError
from quash.pki import der
from quash.pki.algorithms import SIGNATURE_ALGORITHMS
from quash.pki.names import build_name
from quash.pki.serials import new_serial
from tests.support.issuing import CRL_BASE, DAY, OCSP_BASE, spki_of
from tests.support.reserving import Desk, Leaf, alternative_names, refused

Change = Callable[[Leaf, Desk], object]
OTHER_KEY = spki_of(ec.generate_private_key(ec.SECP256R1()))
WEAK_KEY = (
    rsa.generate_private_key(65537, 1024).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
)


def put(name: str, extension: bytes) -> Change:
    return lambda leaf, _: leaf.extensions.update({name: extension})


def drop(name: str) -> Change:
    return lambda leaf, _: leaf.extensions.pop(name)


def lasting(not_before: int, not_after: int) -> Change:
    """Moves the validity, seconds from now and from the usual end, in TBS and row alike."""

    def change(leaf: Leaf, _: Desk) -> None:
        frame = leaf.set(
            not_before=leaf.frame.not_before + not_before, not_after=leaf.frame.not_after + not_after
        ).frame
        leaf.row |= {"not_before": frame.not_before, "not_after": frame.not_after}

    return change


def row(**columns: Any) -> Change:
    return lambda leaf, _: leaf.row.update(columns)


def numbered(octets: bytes) -> Change:
    """In TBS and row alike: what an issuing API reserves that was broken into."""
    return lambda leaf, _: leaf.set(serial=octets).row.update(serial=octets)


def mangle(change: Callable[[bytes], bytes]) -> Change:
    return lambda leaf, _: setattr(leaf, "mangle", change)


def version_1(tbs: bytes) -> bytes:
    return der.tlv(der.SEQUENCE, tbs[der.read_tlv(tbs, 0)[2] + 5 :])


def weak_key(leaf: Leaf, _: Desk) -> None:
    leaf.set(spki=WEAK_KEY).row["spki_sha256"] = hashlib.sha256(WEAK_KEY).digest()


def profile(name: str) -> Change:
    return lambda leaf, _: setattr(leaf, "profile", name)


GENERAL = {
    "ip": der.tlv(0x87, b"\x7f\0\0\1"),
    "mail": der.tlv(0x81, b"a@example.org"),
    "latin": der.tlv(0x82, "münchen.example.org".encode("latin-1")),
}


def names(*general: bytes) -> Change:
    return put("names", write.extension(oids.SUBJECT_ALT_NAME, der.tlv(der.SEQUENCE, *general), critical=True))


REFUSALS: dict[str, tuple[Change, str]] = {
    # The TBS is not what the row says.
    "another serial": (lambda leaf, _: leaf.set(serial=new_serial()), "tbs.serial"),
    "another notBefore": (lambda leaf, _: leaf.set(not_before=leaf.frame.not_before + 1), "tbs.validity"),
    "another notAfter": (lambda leaf, _: leaf.set(not_after=leaf.frame.not_after - 1), "tbs.validity"),
    "another key": (lambda leaf, _: leaf.set(spki=OTHER_KEY), "tbs.public_key"),
    "another key in the row": (row(spki_sha256=b"\0" * 32), "tbs.public_key"),
    # Its serial is none of ours (D1), reserved or not.
    "serial 0": (numbered(b"\0"), "tbs.serial"),
    "a negative serial": (numbered(b"\x80" + bytes(15)), "tbs.serial"),
    "a serial of 21 octets": (numbered(b"\1" * 21), "tbs.serial"),
    "a serial of 21 octets, the first a sign": (numbered(b"\0" + b"\xff" * 20), "tbs.serial"),
    "a serial with 63 bits": (numbered(b"\x7f" + b"\xff" * 7), "tbs.serial"),
    "a counted serial": (numbered(b"\1"), "tbs.serial"),
    # It is not this issuer's.
    "another issuer": (lambda leaf, desk: leaf.set(issuer=desk.hierarchy["tls-ov"].subject), "tbs.issuer"),
    "the issuer's name encoded anew": (
        lambda leaf, desk: leaf.set(issuer=build_name({"C": "TN", "O": "Quash Test", "CN": "Quash Test tls-dV"})),
        "tbs.issuer",
    ),
    "another algorithm": (
        lambda leaf, _: leaf.set(algorithm=SIGNATURE_ALGORITHMS["ecdsa-p384-sha384"]),
        "tbs.algorithm",
    ),
    "another authority key": (put("authority_key", write.authority_key(b"\1" * 20)), "tbs.extension"),
    # It breaks the rules of time.
    "too long": (lasting(0, 2 * DAY), "tbs.validity"),
    "ending before it begins": (lasting(0, -200 * DAY), "tbs.validity"),
    "backdated": (lasting(-DAY - 1, -2 * DAY), "tbs.validity"),
    "from the future": (lasting(61, 0), "tbs.validity"),
    # It is of a profile that it may not be of.
    "a profile of nobody": (profile("tls-ev"), "tbs.profile"),
    "a profile of another issuer": (profile("tls-ov"), "tbs.profile"),
    "a sub-CA below a sub-CA": (profile("sub-ca"), "tbs.profile"),
    "a leaf called an OCSP signer": (profile("ocsp-signer"), "tbs.extension"),
    "a weak key": (weak_key, "key.too_small"),
    "an organization in a DV leaf": (
        lambda leaf, _: leaf.set(subject=build_name({"O": "Somebody"})),
        "tbs.subject",
    ),
    "an OU": (
        lambda leaf, _: leaf.set(subject=bytes.fromhex("300d310b3009060355040b0c024f55")),
        "tbs.subject",
    ),
    # Its extensions say more than the profile allows.
    "a CA": (put("basic_constraints", write.basic_constraints(write.CA)), "tbs.extension"),
    "basic constraints not critical": (
        put("basic_constraints", write.extension(oids.BASIC_CONSTRAINTS, b"\x30\x00")),
        "tbs.extension",
    ),
    "keyCertSign": (put("key_usage", write.key_usage(bytes.fromhex("03020284"))), "tbs.extension"),
    "keyEncipherment with an EC key": (put("key_usage", write.key_usage(bytes.fromhex("030205a0"))), "tbs.extension"),
    "key usage not critical": (
        put("key_usage", write.extension(oids.KEY_USAGE, write.DIGITAL_SIGNATURE)),
        "tbs.extension",
    ),
    "clientAuth": (put("extended_key_usage", write.extended_key_usage(oids.CLIENT_AUTH)), "tbs.extension"),
    "OCSPSigning": (put("extended_key_usage", write.extended_key_usage(oids.OCSP_SIGNING)), "tbs.extension"),
    "both usages": (
        put(
            "extended_key_usage",
            write.extension(
                oids.EXTENDED_KEY_USAGE,
                der.tlv(der.SEQUENCE, der.oid(oids.SERVER_AUTH), der.oid(oids.CLIENT_AUTH)),
            ),
        ),
        "tbs.extension",
    ),
    "the policy of another kind": (put("policy", write.policy(oids.POLICY_OV)), "tbs.extension"),
    "any policy": (put("policy", write.policy("2.5.29.32.0")), "tbs.extension"),
    "nocheck": (put("nocheck", write.extension(oids.OCSP_NOCHECK, b"\5\0")), "tbs.extension"),
    "an unknown extension": (put("strange", write.extension("1.3.6.1.4.1.99999.1", b"\5\0")), "tbs.extension"),
    "the CRL of another shard": (put("crl", write.crl_distribution_point(f"{CRL_BASE}/tls-dv/2.crl")), "tbs.extension"),
    "the CRL of somebody else": (put("crl", write.crl_distribution_point("http://crl.example/1.crl")), "tbs.extension"),
    "a shard that does not exist": (lambda leaf, _: setattr(leaf, "shard", 77), "tbs.extension"),
    "OCSP below another path": (
        put("access", write.authority_access(ocsp=f"{OCSP_BASE}/tls-ov")),
        "tbs.extension",
    ),
    "OCSP by https": (
        put("access", write.authority_access(ocsp="https://ocsp.example.org/tls-dv")),
        "tbs.extension",
    ),
    "OCSP twice": (
        put(
            "access",
            write.extension(
                oids.AUTHORITY_INFORMATION_ACCESS,
                der.tlv(
                    der.SEQUENCE,
                    *[der.tlv(der.SEQUENCE, der.oid(oids.AD_OCSP), der.tlv(0x86, b"http://o/tls-dv"))] * 2,
                ),
            ),
        ),
        "tbs.extension",
    ),
    # Its names break the rules.
    "an IP address": (names(GENERAL["ip"]), "tbs.extension"),
    "a mail address": (names(GENERAL["mail"]), "tbs.extension"),
    "no name": (names(), "tbs.extension"),
    "a name that is not ASCII": (names(GENERAL["latin"]), "name.not_ascii"),
    "a wildcard": (put("names", alternative_names("www.example.org", "*.example.org")), "name.wildcard"),
    "an underscore": (put("names", alternative_names("_a.example.org")), "name.underscore"),
    "names not critical without a subject": (
        put("names", alternative_names("www.example.org", critical=False)),
        "tbs.extension",
    ),
    # It is not even a TBSCertificate.
    "an octet too many": (mangle(lambda tbs: tbs + b"\0"), "tbs.malformed"),
    "an octet too few": (mangle(lambda tbs: tbs[:-1]), "tbs.malformed"),
    "nothing": (mangle(lambda _: b""), "tbs.malformed"),
    "version 1": (mangle(version_1), "tbs.malformed"),
    "no extensions": (lambda leaf, _: leaf.extensions.clear(), "tbs.extension"),
    "an extension twice": (put("again", write.key_usage(write.DIGITAL_SIGNATURE)), "tbs.malformed"),
    **{
        f"no {name}": (drop(name), "tbs.extension")
        for name in ("key_usage", "extended_key_usage", "authority_key", "names", "policy", "crl")
    },
}


async def test_refuses_what_is_not_right(desk: Desk) -> None:
    """Each reservation breaks one thing, is refused with the code of that thing, and leaves no trace in the log."""
    codes = {}
    for what, (change, _) in REFUSALS.items():
        leaf = await desk.leaf()
        change(leaf, desk)
        error = await refused(desk, await desk.reserve(leaf))
        assert error.kind in (Kind.REFUSED, Kind.INPUT)
        codes[what] = error.code
    assert codes == {what: code for what, (_, code) in REFUSALS.items()}
    good = await desk.leaf()
    assert await desk.signer.sign_certificate(desk.hierarchy["tls-dv"].id, await desk.reserve(good))


@pytest.mark.parametrize("octets", [b"\0\x80" + bytes(7), b"\x7f" + b"\xff" * 19])
async def test_the_shortest_and_the_longest_serial_are_signed(desk: Desk, octets: bytes) -> None:
    """D1: 64 bits, and 2^159 - 1."""
    leaf = await desk.leaf()
    numbered(octets)(leaf, desk)
    assert await desk.signer.sign_certificate(desk.hierarchy["tls-dv"].id, await desk.reserve(leaf))


async def test_a_root_signs_no_leaf(desk: Desk) -> None:
    """Even a root whose key were online and that offered a profile signs no subscriber certificate (D14, G4)."""
    await desk.fetch("update issuer set profiles = '{tls-dv}', key_ref = 'memory:root' where name = 'root'")
    leaf = await desk.leaf()
    root = desk.hierarchy["root"]
    leaf.frame = write.Frame(
        **{
            **{name: getattr(leaf.frame, name) for name in ("serial", "not_before", "not_after", "subject", "spki")},
            "algorithm": SIGNATURE_ALGORITHMS[root.signature_algorithm],
            "issuer": root.subject,
        }
    )
    assert (await refused(desk, await desk.reserve(leaf, "root"), "root")).code == "tbs.profile"


async def test_what_is_not_reserved_is_not_signed(desk: Desk) -> None:
    """Unknown issuers and serials, imports and rows that lost their log are refused."""
    leaf = await desk.leaf()
    assert (await refused(desk, new_serial())).code == "signer.not_reserved"
    serial = await desk.reserve(leaf)
    assert (await refused(desk, serial, "tls-ov")).code == "signer.not_reserved"
    with pytest.raises(QuashError, match=r"signer\.issuer_unknown"):
        await desk.signer.sign_certificate(999, serial)
    for state in ("precertificate", "issued", "imported"):
        await desk.fetch("update certificate set state = $1", state)
        assert (await refused(desk, serial)).code == "signer.not_reserved"
    await desk.fetch("update certificate set state = 'reserved', tbs = null")
    assert (await refused(desk, serial)).code == "signer.not_reserved"
