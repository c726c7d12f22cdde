"""Profiles as data: what ships is within the rules, and a file that is not is refused at load with the rule's id."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from quash.errors import QuashError
from quash.runtime.config import Config, load
from quash.runtime.profile_rules import RULES
from quash.runtime.profiles import SHIPPED, ProfileKind, read, shipped

SIGN = ("digitalSignature",)
CA_USAGE = ("keyCertSign", "cRLSign")
IDENTIFIED = {"o": ("O",), "id": ("organizationIdentifier",), "c": ("C",)}

# (rule, profile that ships, what breaks it and nothing before it)
WRONG: list[tuple[str, str, dict[str, Any]]] = [
    ("G26", "ov", {"subject": ("C", "ST", "L", "O", "OU")}),
    ("D40", "dv", {"keys": ("rsa-1024",)}),
    ("D40", "sub-ca", {"keys": ("ec-p521",)}),
    ("D7", "dv", {"constraints": ("dns",)}),
    ("D40", "ocsp-signer", {"keys": ("banana",)}),
    ("G25", "dv", {"usage": {"rsa": (*SIGN, *SIGN), "ec": SIGN}}),
    ("G25", "sub-ca", {"type": "root", "days": 3000}),
    ("D2", "dv", {"days": 399}),
    ("D7", "dv", {"policies": ("dv", "ov")}),
    ("D4", "dv-short-lived", {"days": 8}),
    ("D5", "dv", {"subject": ("O",)}),
    ("D6", "ov", {"subject": ("C", "ST", "L", "O", "SN")}),
    ("D6", "ov", {"subject": ("C", "ST", "L", "O", "CN")}),
    ("D6", "ov", {"needs": {"organization": ("O",), "country": ("C",)}}),
    ("D6", "ov", {"subject": ("C", "ST", "L", "O", "organizationIdentifier")}),
    ("D6", "ov", {"needs": {"o": ("O",), "c": ("C",), "l": ("L",), "street": ("street",)}}),
    ("B17", "dv", {"revocation": ("ocsp",)}),
    ("D8", "dv", {"usage": {"rsa": ("keyEncipherment",), "ec": SIGN}}),
    ("D8", "dv", {"usage": {"rsa": (*SIGN, "dataEncipherment"), "ec": SIGN}}),
    ("D8", "dv", {"usage": {"rsa": SIGN, "ec": (*SIGN, "keyAgreement")}}),
    ("D8", "dv", {"usage": {"rsa": SIGN}}),
    ("D10", "dv", {"purposes": ("serverAuth", "clientAuth")}),
    ("D49", "smime-mailbox-strict", {"days": 826}),
    ("D49", "smime-mailbox-strict", {"policies": ("dv",)}),
    ("D49", "smime-mailbox-strict", {"revocation": ("ocsp",)}),
    ("D49", "smime-mailbox-multipurpose", {"purposes": ("clientAuth",)}),
    ("D49", "smime-mailbox-strict", {"purposes": ("emailProtection", "clientAuth")}),
    ("D49", "smime-mailbox-multipurpose", {"purposes": ("emailProtection", "serverAuth")}),
    ("D49", "smime-mailbox-strict", {"usage": {"rsa": CA_USAGE, "ec": SIGN}}),
    ("D49", "smime-mailbox-strict", {"keys": ("ec-p256", "ec-p521")}),
    ("D49", "smime-mailbox-strict", {"subject": ("CN", "O")}),
    ("D49", "smime-organization-strict", {"needs": {"organization": ("O",)}}),
    ("D49", "smime-organization-strict", {"needs": {"o": ("O",), "id": ("organizationIdentifier",)}}),
    ("D49", "smime-mailbox-strict", {"needs": {"person": ("GN",)}}),
    ("D49", "smime-mailbox-multipurpose", {"purposes": ("clientAuth", "emailProtection")}),
    ("D49", "smime-sponsor-strict", {"needs": IDENTIFIED | {"given": ("GN",)}}),
    ("F6", "operator-client", {"purposes": ("clientAuth", "serverAuth")}),
    ("F6", "operator-client", {"policies": ("dv",)}),
    ("F9", "operator-client", {"days": 398}),
    ("F6", "operator-client", {"usage": {"rsa": ("keyCertSign",), "ec": SIGN}}),
    ("F6", "operator-client", {"subject": ("O",)}),
    ("F6", "operator-client", {"revocation": ("crl",)}),
    ("G20", "operator-client", {"keys": ("ec-p384",)}),
    ("A14", "ocsp-signer", {"purposes": ("OCSPSigning", "serverAuth")}),
    ("A14", "ocsp-signer", {"usage": {"rsa": CA_USAGE, "ec": SIGN}}),
    ("A15", "ocsp-signer", {"revocation": ("crl",)}),
    ("A16", "ocsp-signer", {"policies": ("any",)}),
    ("A17", "ocsp-signer", {"days": 401}),
    ("A17", "ocsp-signer", {"needs": {"organization": ("O",)}}),
    ("D14", "root", {"days": 2921}),
    ("D14", "root", {"keys": ("ec-p256",)}),
    ("D14", "root", {"purposes": ("serverAuth",)}),
    ("D14", "root", {"policies": ("any",)}),
    ("B17", "root", {"revocation": ("crl",)}),
    ("D16", "root", {"constraints": ("dns", "directory")}),
    ("D14", "sub-ca", {"usage": {"rsa": CA_USAGE, "ec": SIGN}}),
    ("D14", "root", {"subject": ("OU",)}),
    ("D15", "sub-ca", {"days": 3654}),
    ("B17", "sub-ca", {"revocation": ("ocsp",)}),
    ("D15", "sub-ca", {"revocation": ("crl",)}),
    ("D15", "sub-ca", {"purposes": ("serverAuth", "emailProtection")}),
    ("D15", "sub-ca", {"policies": ("smime-mailbox-strict",)}),
    ("D16", "sub-ca-constrained", {"constraints": ("dns",)}),
    ("D16", "sub-ca-constrained", {"constraints": ()}),
    ("D17", "smime-sub-ca", {"purposes": ("emailProtection", "serverAuth")}),
    ("D17", "smime-sub-ca", {"policies": ("dv",)}),
    ("D17", "smime-sub-ca-constrained", {"constraints": ("email",)}),
    ("D17", "smime-sub-ca-constrained", {"constraints": ()}),
    ("D51", "smime-sub-ca", {"keys": ("rsa-2048",)}),
    ("D15", "sub-ca", {"policies": ()}),
]
# Other ways to break a rule that has its case above.
ALSO: list[tuple[str, str, dict[str, Any]]] = [
    ("D40", "operator-client", {"keys": ("ec-p256", "rsa-1024")}),
    ("G25", "dv", {"keys": ("ec-p256", "ec-p256")}),
    ("G25", "smime-mailbox-strict", {"revocation": ("crl", "crl")}),
    ("G25", "smime-mailbox-strict", {"name": "sub-ca"}),
    ("G25", "sub-ca", {"name": "my-sub-ca"}),
    ("D6", "ov", {"subject": ("C", "ST", "L", "O", "street")}),
    ("D6", "ov", {"needs": {"o": ("O",), "c": ("C",), "l": ("L",), "nothing": ()}}),
    ("D49", "smime-sponsor-strict", {"subject": ("O", "organizationIdentifier", "GN", "SN")}),
    ("F6", "operator-client", {"usage": {}}),
    ("A14", "ocsp-signer", {"usage": {"ec": SIGN}}),
    ("D14", "root", {"usage": {}}),
    ("D14", "sub-ca", {"needs": {"organization": ("O",)}}),
]


def test_every_rule_has_its_case() -> None:
    """One broken thing for each row of the table, and in its order."""
    assert [row for row, _, _ in WRONG] == [rule.row for rule in RULES]
    assert len(WRONG) == 70


@pytest.mark.parametrize(("row", "name", "changes"), [*WRONG, *ALSO])
def test_a_profile_that_breaks_a_rule_is_refused_with_its_id(row: str, name: str, changes: dict[str, Any]) -> None:
    """G25: the message names the profile and the row; the profile that ships passes."""
    good = shipped()[name].model_dump()
    assert ProfileKind.model_validate(good).name == name
    with pytest.raises(ValueError, match=rf"profile {changes.get('name', name)}: .*\({row}\)"):
        ProfileKind.model_validate(good | changes)


def test_what_ships() -> None:
    """One file a kind, and every level and generation of S/MIME that we issue (D49)."""
    assert len(shipped()) == len(list(SHIPPED.glob("*.toml"))) == 16
    email = [kind for kind in shipped().values() if kind.type == "smime"]
    assert len({kind.policy for kind in email}) == len(email) == 6
    assert {kind.type for kind in shipped().values()} == {
        *("tls", "smime", "operator", "ocsp-signer", "tls-ca", "smime-ca", "root")
    }


def test_a_deployment_may_narrow_a_profile_and_not_widen_it(tmp_path: Path) -> None:
    """Files in `profiles` beside the configuration go before those that ship; a wrong one stops the load."""
    config = tmp_path / "own.toml"
    shutil.copy(SHIPPED.parent / "demo.toml", config)
    (tmp_path / "profiles").mkdir()
    own = tmp_path / "profiles" / "dv.toml"
    text = (SHIPPED / "dv.toml").read_text()
    own.write_text(text.replace("days = 199", "days = 90"))
    with pytest.raises(QuashError, match="dv allows 90 days"):
        load(config)
    config.write_text(config.read_text().replace('kind = "dv"\ndays = 199', 'kind = "dv"'))
    assert load(config).kinds["dv"].days == 90
    assert load(config).kinds["ov"] == shipped()["ov"]
    own.write_text(text.replace("days = 199", "days = 400"))
    with pytest.raises(QuashError, match=r"config\.profile: .*dv\.toml.*\(D2\)"):
        load(config)
    own.write_text("type = 'tls")
    with pytest.raises(QuashError, match=r"config\.profile: .*dv\.toml"):
        read(tmp_path / "profiles")


SUBJECT = {"C": "TN", "O": "Quash Test", "CN": "Quash Test CA"}
ROOT = {"name": "root", "kind": "root", "key": "ec-p384", "days": 3652, "subject": SUBJECT}
CA = {
    "name": "ca",
    "kind": "sub-ca",
    "parent": "root",
    "key": "ec-p256",
    "days": 1095,
    "policy": "dv",
    "subject": SUBJECT,
}
PERMITTED = {"dns": ["tn"], "directory": [{"C": "TN"}]}
EMAIL = {"profile": "smime-sub-ca", "policy": ["smime-mailbox-strict"]}


@pytest.mark.parametrize(
    ("issuers", "why"),
    [
        ([ROOT | {"key": "ec-p256"}], "D14"),
        ([ROOT | {"days": 3654}], "D14"),
        ([ROOT | {"policy": "dv"}], "D15"),
        ([ROOT | {"subject": SUBJECT | {"CN": "Root CA"}}], "G35"),
        *(([ROOT | {"subject": SUBJECT | {"C": code}}], "D14") for code in ("ZZ", "UK", "tn", "")),
        ([ROOT | {"subject": SUBJECT | {"O": " "}}], "D14"),
        ([ROOT, CA | {"subject": SUBJECT | {"C": "ZZ"}}], "D15"),
        ([ROOT, CA | {"subject": SUBJECT | {"CN": "Quash " * 11}}], "D15"),
        ([ROOT | {"subject": SUBJECT | {"OU": "PKI"}}], "OU"),
        ([ROOT | {"permitted": PERMITTED}], "D16"),
        ([ROOT, CA | {"policy": None}], "D15"),
        ([ROOT, CA | {"policy": ["dv", "ov"]}], "D15"),
        ([ROOT, CA | {"policy": "smime-mailbox-strict"}], "D15"),
        ([ROOT, CA | {"profile": "root"}], "profile of a sub-ca"),
        ([ROOT, CA | {"profile": "dv"}], "profile of a sub-ca"),
        ([ROOT, CA | {"permitted": {"dns": ["tn"]}}], "D16"),
        ([ROOT, CA | {"profile": "sub-ca-constrained"}], "D16"),
        *(
            ([ROOT, CA | {"permitted": PERMITTED | {"directory": [{"C": "TN"}, name]}}], "D16")
            for name in ({}, {"O": "Essai"}, {"C": ""}, {"C": "tn"}, {"C": "ZZ"}, {"C": "TN", "O": " "})
        ),
        ([ROOT, CA | EMAIL | {"permitted": PERMITTED}], "D17"),
        ([ROOT, CA | EMAIL | {"key": "rsa-2048"}], "D51"),
        ([ROOT, CA | {"parent": "other"}], "not configured"),
        ([ROOT, CA, CA | {"name": "below", "parent": "ca"}], "D15"),
        ([ROOT, CA | {"parent": "below", "path_length": 1}, CA | {"name": "below", "parent": "ca"}], "D15"),
        ([ROOT | {"ocsp_signer": {"days": 401}}], "400"),
        ([ROOT, CA, CA], "twice"),
    ],
)
def test_a_hierarchy_outside_the_rules_is_refused(issuers: list[dict[str, Any]], why: str) -> None:
    """D14-D17, D51, G4, G35: each CA within its profile and below a parent that may have it."""
    with pytest.raises(ValueError, match=why):
        Config.model_validate({"issuers": issuers})


@pytest.mark.parametrize(
    ("profile", "why"),
    [
        ({"kind": "ov"}, "D15"),
        ({"kind": "smime-mailbox-strict"}, "G18"),
        ({"kind": "root"}, "no kind of leaf"),
        ({"kind": "ev"}, "no kind of leaf"),
        ({"kind": "dv", "days": 200}, "199 days"),
        ({"kind": "dv", "short_lived": True}, "D4"),
        ({"kind": "ov", "countries": ["TN", "ZZ"]}, "G18"),
    ],
)
def test_a_ca_offers_what_it_is_for(profile: dict[str, Any], why: str) -> None:
    """G18: a CA whose policy is another's issues no such leaf; least of all TLS from one for S/MIME."""
    with pytest.raises(ValueError, match=why):
        Config.model_validate({"issuers": [ROOT, CA], "profiles": [{"name": "p", "issuer": "ca", **profile}]})
