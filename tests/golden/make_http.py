"""Makes tests/golden/http.json with OpenSSL and asn1crypto alone; nothing of Quash takes part. Run by hand.

    python tests/golden/make_http.py

Each case is an HTTP request with all that must be answered to it, made from the rule it names: requests by OpenSSL, or
by asn1crypto where OpenSSL makes none of the kind; signed answers are OpenSSL's own responses (make_pki.py), octet for
octet; errors are the octets that RFC 6960 4.2.1 spells; header fields follow from RFC 9919 and RFC 9110.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterable
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import quote

from asn1crypto import core, ocsp, x509

PKI = Path(__file__).parent / "pki"
MADE = json.loads((PKI / "cases.json").read_text())
SERIALS = {"good": "5B0E4F1A2C3D4E5F60718293A4B5C6D7", "revoked": "7F", "compromised": "C0FFEE"}
KEYS = {"p256": "ecdsa-p256-sha256", "p384": "ecdsa-p384-sha384", "p521": "ecdsa-p521-sha512", "rsa": "rsa-sha256"}
REFRESH = 20 * 3600  # A4
MAX_AGE = 1800  # A36
TYPE = {"Content-Type": "application/ocsp-request"}
# RFC 6960 4.2.1: an OCSPResponse of nothing but its ENUMERATED status.
ERRORS = {
    name: bytes((0x30, 3, 0x0A, 1, number)).hex()
    for name, number in {"malformed": 1, "try later": 3, "unauthorized": 6}.items()
}
PLAIN = ["A13", "A18", "A19", "A20", "A21", "A23", "A24", "A26", "A29", "A30", "A35", "A36", "A37"]

cases: dict[str, dict[str, Any]] = {}


def keep(name: str, rules: str, source: str, sent: tuple[str, bytes], answer: dict[str, Any], at: int = 3600) -> None:
    """One golden; `at`: when it is sent, in seconds after thisUpdate."""
    assert name not in cases, name
    head, body = sent
    cases[name] = {"rules": rules.split(), "source": source, "at": at, "head": head, "body": body.hex(), **answer}


def http(method: str, target: str, body: bytes | None = None, /, **fields: str) -> tuple[str, bytes]:
    """A request as octets: head in Latin-1, body. Underscores in field names stand for hyphens."""
    named = {"Host": "ocsp.example", **{name.replace("_", "-"): value for name, value in fields.items()}}
    if body is not None and "Transfer-Encoding" not in named:
        named["Content-Length"] = str(len(body))
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in named.items())]
    return "\r\n".join(lines) + "\r\n\r\n", body or b""


def get(der: bytes, path: str = "", method: str = "GET", **fields: str) -> tuple[str, bytes]:
    """RFC 6960 A.1: the url-encoded base64 after the AIA's URL."""
    return http(method, f"{path}/{quote(base64.b64encode(der), safe='')}", **fields)


def post(der: bytes, path: str = "/", **fields: str) -> tuple[str, bytes]:
    return http("POST", path, der, **(TYPE | fields))


def signed(key: str, digest: str, which: str, at: int = 3600) -> dict[str, Any]:
    """RFC 9919 6 and 7.2: the fields of a cacheable answer; its body is OpenSSL's response."""
    name = f"response-{KEYS[key]}-{digest}-{which}.der"
    octets, made = (PKI / name).read_bytes(), MADE[name]
    now, end = made["this_update"] + at, made["next_update"]
    age = min(MAX_AGE, made["this_update"] + REFRESH - now) if at < REFRESH else min(60, end - now - 1)
    fields = {
        "Content-Type": "application/ocsp-response",
        "Content-Length": str(len(octets)),
        "ETag": f'"{hashlib.sha256(octets).hexdigest()}"',
        "Last-Modified": formatdate(made["this_update"], usegmt=True),
        "Expires": formatdate(end, usegmt=True),
        "Cache-Control": f"max-age={age}, public, no-transform, must-revalidate",
    }
    return {"status": 200, "fields": fields, "answer": name}


def error(name: str) -> dict[str, Any]:
    """Unsigned (A11), and not to be kept (A37)."""
    fields = {"Content-Type": "application/ocsp-response", "Content-Length": "5", "Cache-Control": "no-store"}
    return {"status": 200, "fields": fields, "answer": ERRORS[name]}


def refused(status: int, **fields: str) -> dict[str, Any]:
    """What is no OCSP request for RFC 9110; its body is for people."""
    return {"status": status, "fields": fields, "answer": None}


def without_body(answer: dict[str, Any]) -> dict[str, Any]:
    return answer | {"answer": ""}


def not_modified(answer: dict[str, Any]) -> dict[str, Any]:
    """RFC 9110 15.4.5."""
    fields = {name: value for name, value in answer["fields"].items() if not name.startswith("Content-")}
    return {"status": 304, "fields": fields, "answer": ""}


def openssl(*arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)


class Asker:
    """OpenSSL's requests for certificates of the golden CAs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for key, algorithm in KEYS.items():
            openssl(
                "x509", "-inform", "DER", "-in", str(PKI / f"ca-{algorithm}.der"), "-out", str(folder / f"{key}.pem")
            )
        for name in ("stranger", "asker"):
            files = ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")]
            openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-subj", f"/CN={name}", *files)  # fmt: skip

    def __call__(self, which: Iterable[str] | str, *more: str, digest: str = "sha256", key: str = "p256") -> bytes:
        """DER of `openssl ocsp -reqout`; `which`: of SERIALS, or serials in hexadecimal."""
        names = [which] if isinstance(which, str) else list(which)
        serials = [part for name in names for part in ("-serial", "0x" + SERIALS.get(name, name))]
        out = self.folder / "request.der"
        nonce = [] if "-nonce" in more else ["-no_nonce"]
        openssl("ocsp", "-issuer", str(self.folder / f"{key}.pem"), f"-{digest}", *serials, *nonce, *more,
                "-reqout", str(out))  # fmt: skip
        return out.read_bytes()


class AnyExtension(core.Sequence):
    """An Extension whose value nobody interprets."""

    _fields = [  # noqa: RUF012 (asn1crypto's way)
        ("extn_id", core.ObjectIdentifier),
        ("critical", core.Boolean, {"default": False}),
        ("extn_value", core.OctetString),
    ]


class AnyExtensions(core.SequenceOf):
    _child_spec = AnyExtension


class AnyRequest(core.Sequence):
    """RFC 6960 4.1.1: Request."""

    _fields = [  # noqa: RUF012
        ("req_cert", ocsp.CertId),
        ("single_request_extensions", AnyExtensions, {"explicit": 0, "optional": True}),
    ]


class AnyRequests(core.SequenceOf):
    _child_spec = AnyRequest


class AnyTbs(core.Sequence):
    """RFC 6960 4.1.1: TBSRequest."""

    _fields = [  # noqa: RUF012
        ("requestor_name", x509.GeneralName, {"explicit": 1, "optional": True}),
        ("request_list", AnyRequests),
        ("request_extensions", AnyExtensions, {"explicit": 2, "optional": True}),
    ]


class AnyOcspRequest(core.Sequence):
    _fields = [("tbs_request", AnyTbs)]  # noqa: RUF012


BASIC = bytes.fromhex("300b06092b0601050507300101")  # a SEQUENCE OF OBJECT IDENTIFIER: id-pkix-ocsp-basic
NONCE, ACCEPTABLE, LOCATOR = (f"1.3.6.1.5.5.7.48.1.{number}" for number in (2, 4, 7))


Extensions = list[tuple[str, bytes]]


def assembled(
    plain: bytes,
    *,
    extensions: Extensions | None = None,
    single: Extensions | None = None,
    name: str = "",
    **cert_id: Any,
) -> bytes:
    """OpenSSL's request with something that it does not make; `cert_id`: its fields by other values."""
    asked = ocsp.OCSPRequest.load(plain)["tbs_request"]["request_list"][0]["req_cert"].native
    values = {
        "hash_algorithm": {"algorithm": asked["hash_algorithm"]["algorithm"], "parameters": core.Null()},
        **{field: asked[field] for field in ("issuer_name_hash", "issuer_key_hash", "serial_number")},
        **cert_id,
    }
    request: dict[str, Any] = {"req_cert": values}
    if single:
        request["single_request_extensions"] = [{"extn_id": oid, "extn_value": value} for oid, value in single]
    tbs: dict[str, Any] = {"request_list": [request]}
    if name:
        tbs["requestor_name"] = x509.GeneralName("directory_name", x509.Name.build({"common_name": name}))
    if extensions:
        tbs["request_extensions"] = [{"extn_id": oid, "extn_value": value} for oid, value in extensions]
    return AnyOcspRequest({"tbs_request": tbs}).dump()


def rewritten(plain: bytes, old: str, new: str) -> bytes:
    """A plain request with other octets (in hexadecimal) within its CertID, and the five lengths around them."""
    more = (len(new) - len(old)) // 2
    changed = bytearray(plain.replace(bytes.fromhex(old), bytes.fromhex(new), 1))
    for at in range(1, 10, 2):  # SEQUENCEs of less than 128 octets, each the first thing in the one before
        assert changed[at - 1] == 0x30
        changed[at] += more
    return bytes(changed)


def nonce(octets: bytes) -> Extensions:
    """RFC 9654 2.1: an OCTET STRING in the extension's OCTET STRING."""
    return [(NONCE, core.OctetString(octets).dump())]


def statuses(ask: Asker) -> None:
    """Every golden response, by GET at its issuer's path and by POST at the common one, and the other way round."""
    for key in KEYS:
        for digest in ("sha1", "sha256"):
            for which in SERIALS:
                der, says = ask(which, digest=digest, key=key), signed(key, digest, which)
                for method, send in (("GET", get), ("POST", post)):
                    rules = [*PLAIN, "A31" if send is get else "A34", *(["A25"] if which != "good" else [])]
                    rules += ["A39"] if send is post else ["A33"]
                    where = "" if (send is get) == (digest == "sha1") else f"/demo/{key}"
                    sent = get(der, where) if send is get else post(der, where or "/")
                    keep(f"{method} {key} {digest} {which}", " ".join(rules), "openssl ocsp -reqout, -respout",
                         sent, says)  # fmt: skip


def cert_ids(ask: Asker) -> None:
    """Who is not ours, and how a CertID may be written."""
    plain, says = ask("good"), signed("p256", "sha256", "good")
    asked = ocsp.OCSPRequest.load(plain)["tbs_request"]["request_list"][0]["req_cert"].native
    for method, send in (("GET", get), ("POST", post)):
        unknown = {
            "unknown serial": ("A9 A10", "openssl ocsp -serial", ask("0102030405060708090A0B0C0D0E0F1011121314")),
            "unknown serial, SHA-1": ("A9 A10 A20", "openssl ocsp -serial -sha1", ask("ABCDEF", digest="sha1")),
            "serial 0": ("A9", "openssl ocsp -serial", ask("00")),
            "unknown issuer": ("A12", "openssl ocsp -issuer", ask("good", key="stranger")),
            "unknown issuer, SHA-1": ("A12 A20", "openssl ocsp -issuer", ask("good", key="stranger", digest="sha1")),
            "name of ours, key of nobody": ("A12 A21", "RFC 6960 4.1.1", assembled(plain, issuer_key_hash=bytes(32))),
            "key of ours, name of nobody": ("A12 A21", "RFC 6960 4.1.1", assembled(plain, issuer_name_hash=bytes(32))),
            "hashes the wrong way round": (
                "A12 A21", "RFC 6960 4.1.1",
                assembled(plain, issuer_name_hash=asked["issuer_key_hash"], issuer_key_hash=asked["issuer_name_hash"]),
            ),
            "SHA-384 CertID": ("A12 A20", "openssl ocsp -sha384", ask("good", digest="sha384")),
            "SHA-512 CertID": ("A12 A20", "openssl ocsp -sha512", ask("good", digest="sha512")),
            "MD5 CertID": ("A12 A20", "openssl ocsp -md5", ask("good", digest="md5")),
            "two certificates": ("A22", "openssl ocsp -serial -serial", ask(["good", "revoked"])),
            "three certificates, one unknown": ("A9 A22", "openssl ocsp", ask(["good", "revoked", "ABCD"])),
        }  # fmt: skip
        for name, (rules, source, der) in unknown.items():
            keep(f"{method} {name}", rules, source, send(der), error("unauthorized"))
        bare = rewritten(plain, "300d06096086480165030402010500", "300b0609608648016503040201")  # RFC 5754 2: absent
        keep(f"{method} SHA-256 without parameters", "A20 A21", "RFC 5754 2", send(bare), says)
    other = ask("good", key="p384")
    keep("GET another issuer's path", "G45", "RFC 6960 2.3", get(other, "/demo/p256"), error("unauthorized"))
    keep("POST another issuer's path", "G45", "RFC 6960 2.3", post(other, "/demo/p256"), error("unauthorized"))


def extensions(ask: Asker) -> None:
    """Nonces, and what a pre-signed responder passes over."""
    plain, says = ask("good"), signed("p256", "sha256", "good")
    for method, send in (("GET", get), ("POST", post)):
        keep(
            f"{method} OpenSSL's nonce",
            "A23 A27",
            "openssl ocsp -nonce; RFC 9919 3.2.1",
            send(ask("good", "-nonce")),
            says,
        )
        for size in (1, 8, 15, 16, 20, 32, 33, 64, 128):
            der = assembled(plain, extensions=nonce(os.urandom(size)))
            keep(f"{method} nonce of {size}", "A23 A27", "RFC 9654 2.1; RFC 9919 3.2.1", send(der), says)
        for size in (0, 129, 256):
            der = assembled(plain, extensions=nonce(os.urandom(size)))
            keep(f"{method} nonce of {size}", "A11 A27", "RFC 9654 2.1", send(der), error("malformed"))
        bare = assembled(plain, extensions=[(NONCE, bytes(16))])
        keep(f"{method} nonce that is no OCTET STRING", "A11 A27", "RFC 9654 2.1", send(bare), error("malformed"))
        passed_over = {
            "signed by its asker": (
                "openssl ocsp -signer",
                ask("good", "-signer", str(ask.folder / "asker.pem"), "-signkey", str(ask.folder / "asker.key")),
            ),
            "requestorName": ("RFC 9919 3.1.2", assembled(plain, name="Asker")),
            "acceptable responses": (
                "RFC 6960 4.4.3", assembled(plain, extensions=[(ACCEPTABLE, BASIC)])
            ),
            "unknown extension": ("RFC 6960 4.4", assembled(plain, extensions=[("1.2.3.4.5", b"anything")])),
            "unknown extension and a nonce": (
                "RFC 6960 4.4", assembled(plain, extensions=[("1.2.3.4.5", b"anything"), *nonce(bytes(32))])
            ),
            "service locator": ("RFC 6960 4.4.6", assembled(plain, single=[(LOCATOR, b"0\0")])),
        }  # fmt: skip
        for name, (source, der) in passed_over.items():
            keep(f"{method} {name}", "A23 A24 A28", source, send(der), says)


def malformed(ask: Asker) -> None:
    """A11: what does not have the syntax of an OCSPRequest."""
    plain = ask("good")
    bodies = {
        "one octet more": plain + b"\0",
        "a second request": plain + plain,
        "one octet less": plain[:-1],
        "first half": plain[: len(plain) // 2],
        "no certificate": AnyOcspRequest({"tbs_request": {"request_list": []}}).dump(),
        "text": b"MAIL FROM:<>",
        "zeros": bytes(64),
        "a certificate": (PKI / "ca-ecdsa-p256-sha256.der").read_bytes(),
        "a response": (PKI / "response-ecdsa-p256-sha256-sha256-good.der").read_bytes(),
        "base64": base64.b64encode(plain),
        "serial with a needless zero": rewritten(plain, "02105b", "0211005b"),
        "indefinite length": b"\x30\x80" + plain[2:] + b"\0\0",
        "length in too many octets": b"\x30\x81\x6d" + plain[2:],
    }  # fmt: skip
    for name, body in bodies.items():
        keep(f"POST {name}", "A11 A34", "RFC 6960 2.3, X.690 10.1", post(body), error("malformed"))
        keep(f"GET {name}", "A11 A31", "RFC 6960 2.3, X.690 10.1", get(body), error("malformed"))
    keep("POST nothing", "A11 A34", "RFC 6960 2.3", post(b""), error("malformed"))
    for name, target in {
        "/": "/",
        "an issuer's path": "/demo/p256",
        "no base64": "/MFE*",
        "half an escape": "/MFE%2",
    }.items():
        keep(f"GET {name}", "A11 A31", "RFC 6960 2.3", http("GET", target), error("malformed"))


def spellings(ask: Asker) -> None:
    """A33: one request, whose base64 has all three special characters, as clients and proxies write it."""
    key, digest, which, text = next(
        (key, digest, which, text)
        for key in KEYS for digest in ("sha1", "sha256") for which in SERIALS
        if {"+", "/", "="} <= set(text := base64.b64encode(ask(which, digest=digest, key=key)).decode())
    )  # fmt: skip
    written = {
        "escaped": quote(text, safe=""),
        "escaped in lower case": text.replace("+", "%2b").replace("/", "%2f").replace("=", "%3d"),
        "not escaped": text,
        "slashes not escaped": quote(text, safe="/"),
        "plus and equals not escaped": quote(text, safe="+="),
        "plus as a space": quote(text.replace("+", " "), safe=""),
        "letters escaped too": text[0]
        + "".join(f"%{ord(octet):02X}" for octet in text[1:9])
        + quote(text[9:], safe=""),
        "without padding": quote(text.rstrip("="), safe=""),
    }
    for name, spelled in written.items():
        for before in ("/", "//", f"/demo/{key}/", f"//demo/{key}/", f"/demo/{key}//"):
            keep(
                f"GET {name} at {before}",
                "A31 A33",
                "RFC 6960 A.1",
                http("GET", before + spelled),
                signed(key, digest, which),
            )


def sizes(ask: Asker) -> None:
    """A32: what requests measure, by the octet; the URLs fit 255."""
    serial = "0102030405060708090A0B0C0D0E0F1011121314"
    sha256 = ask(serial)
    for name, der, octets, characters in (
        ("SHA-256", sha256, 115, 156),
        ("SHA-256 with a nonce", assembled(sha256, extensions=nonce(os.urandom(32))), 170, 228),
        ("SHA-1", ask(serial, digest="sha1"), 87, 116),
    ):
        assert (len(der), len(base64.b64encode(der))) == (octets, characters), (name, len(der))
        keep(f"GET of {characters} characters: {name}", "A9 A32", "RFC 9919 6", get(der), error("unauthorized"))


def conditions(ask: Asker) -> None:
    """A38: conditional requests, HEAD, other methods."""
    der, says = ask("compromised"), signed("p256", "sha256", "compromised")
    etag, modified = says["fields"]["ETag"], says["fields"]["Last-Modified"]
    this_update = MADE[says["answer"]]["this_update"]
    earlier, later = (formatdate(this_update + seconds, usegmt=True) for seconds in (-1, 1))
    given = {
        "its ETag": ({"If_None_Match": etag}, True),
        "its ETag, weak": ({"If_None_Match": "W/" + etag}, True),
        "its ETag among others": ({"If_None_Match": f'"a", {etag}'}, True),
        "any ETag": ({"If_None_Match": "*"}, True),
        "another ETag": ({"If_None_Match": '"a"'}, False),
        "another ETag and its date": ({"If_None_Match": '"a"', "If_Modified_Since": modified}, False),
        "its ETag and an earlier date": ({"If_None_Match": etag, "If_Modified_Since": earlier}, True),
        "its date": ({"If_Modified_Since": modified}, True),
        "a later date": ({"If_Modified_Since": later}, True),
        "an earlier date": ({"If_Modified_Since": earlier}, False),
        "no date at all": ({"If_Modified_Since": "yesterday"}, False),
    }
    for name, (fields, has_it) in given.items():
        for method in ("GET", "HEAD"):
            answer = not_modified(says) if has_it else (says if method == "GET" else without_body(says))
            keep(f"{method} with {name}", "A38", "RFC 9110 13.1, 13.2.2", get(der, method=method, **fields), answer)
    keep("POST with its ETag", "A38 A39", "RFC 9110 13.2.1", post(der, If_None_Match=etag), says)
    keep("HEAD", "A35 A38", "RFC 9110 9.3.2", get(der, method="HEAD"), without_body(says))
    unknown = ask("ABCD")
    keep(
        "HEAD unknown serial",
        "A9 A38",
        "RFC 9110 9.3.2",
        get(unknown, method="HEAD"),
        without_body(error("unauthorized")),
    )
    for method in ("PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"):
        keep(method, "A38", "RFC 9110 15.5.6", get(der, method=method), refused(405, Allow="GET, HEAD, POST"))


def posts(ask: Asker) -> None:
    """A34: bodies and what announces them; sizes that are refused."""
    der, says = ask("revoked"), signed("p256", "sha256", "revoked")
    for name, fields in {
        "with parameters of its type": {"Content-Type": "application/ocsp-request; charset=binary"},
        "as a form": {"Content-Type": "application/x-www-form-urlencoded"},
        "from curl": {"Accept": "*/*", "User-Agent": "curl/8.14.1"},
        "asking not to be cached": {"Cache-Control": "no-cache", "Pragma": "no-cache"},
    }.items():
        keep(f"POST {name}", "A34 A37", "RFC 6960 A.1", post(der, **fields), says)
    keep("POST without a type", "A34", "RFC 6960 A.1", http("POST", "/", der), says)
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(der), der)
    keep("POST chunked", "A34", "RFC 9112 7.1", post(chunked, **{"Transfer-Encoding": "chunked"}), says)
    keep("POST elsewhere", "A34", "RFC 9110 15.5.5", post(der, "/elsewhere"), refused(404))
    keep("POST of 16385 octets", "A34", "RFC 9110 15.5.14", post(bytes(16_385)), refused(413))
    keep("GET of 9000 octets", "A31", "RFC 9110 15.5.15", http("GET", "/M" + "A" * 9000), refused(414))
    keep("GET with fields of 9000 octets", "A31", "RFC 6585 5", get(der, X_Long="a" * 9000), refused(431))


def moments(ask: Asker) -> None:
    """A35, A36: max-age ends before the next refresh and before nextUpdate; nothing is said from nextUpdate on."""
    end = MADE["response-ecdsa-p256-sha256-sha256-good.der"]["next_update"] - MADE[
        "response-ecdsa-p256-sha256-sha256-good.der"]["this_update"]  # fmt: skip
    for which in ("good", "compromised"):
        der = ask(which)
        for name, at in {
            "at thisUpdate": 0,
            "half an hour before the refresh": REFRESH - MAX_AGE,
            "ten minutes before the refresh": REFRESH - 600,
            "when the refresh is late": REFRESH + 3600,
            "half a minute before nextUpdate": end - 30,
            "in the last second": end - 1,
        }.items():
            rules = "A35 A36" + (" A41" if which == "compromised" else "")
            keep(f"{which} {name}", rules, "RFC 9919 7.1, 7.2", get(der), signed("p256", "sha256", which, at), at)
        for name, at in {"at nextUpdate": end, "an hour later": end + 3600}.items():
            keep(f"{which} {name}", "A5 A11", "RFC 6960 4.2.2.1", get(der), error("try later"), at)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        ask = Asker(Path(name))
        for make in (statuses, cert_ids, extensions, malformed, spellings, sizes, conditions, posts, moments):
            make(ask)
    (PKI.parent / "http.json").write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
