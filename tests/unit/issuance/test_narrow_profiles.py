"""Profiles that allow less than the rules: short-lived ones (D4), and those of one country (G18)."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

from issuer.checks.lint import LintGate
from issuer.checks.workers import Inline
from issuer.ct.double import LogDouble
from issuer.ct.submit import CtLogs
from issuer.issuance.means import Logging
from quash.errors import QuashError
from quash.runtime.config import Config, ExternalLinter, Lint
from quash.runtime.profiles import ProfileKind
from tests.support.issuing import OV_SUBJECT, World, make_config, make_csr
from tests.support.shipped import ZLINT

DAY = 86_400


def _config(world: World, profile: dict[str, Any]) -> Config:
    """The usual configuration with this profile in place of the one of its name."""
    config = make_config(world.config)
    kept = [each.model_dump() for each in config.profiles if each.name != profile["name"]]
    return Config.model_validate(config.model_dump() | {"profiles": [*kept, profile]})


SHORT = {"name": "tls-dv", "issuer": "tls-dv", "kind": "dv", "days": 7, "short_lived": True}
TUNISIAN = {"name": "tls-ov", "issuer": "tls-ov", "kind": "ov", "suffixes": ["tn"], "countries": ["TN"]}


async def test_a_short_lived_certificate_carries_no_way_to_ask(world: World) -> None:
    """D4, A43: seven days exactly, no CRLDP, no OCSP URL, caIssuers still there; what pkilint notices is on record."""
    gate = LintGate(Lint(level="warning"), Inline())
    issuance = world.issuance(config=_config(world, SHORT), linting=gate)
    order = await issuance.submit("operator:ann", "tls-dv", make_csr())
    order = await issuance.finish(order.id, timeout=0)
    assert (order.state, order.detail) == ("issued", None)
    (row,) = await world.fetch("select der, not_before, not_after from certificate")
    assert row["not_after"] - row["not_before"] + 1 == 7 * DAY
    extensions = x509.load_der_x509_certificate(row["der"]).extensions
    access = extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    assert [each.access_method for each in access] == [AuthorityInformationAccessOID.CA_ISSUERS]
    (linted,) = await world.fetch("select findings from lint_result")
    assert [(each["severity"], each["code"]) for each in linted["findings"]] == [
        ("notice", "msft.end_entity.revocation_information_absent")
    ]
    with pytest.raises(x509.ExtensionNotFound):
        extensions.get_extension_for_class(x509.CRLDistributionPoints)


async def test_zlint_lets_both_forms_of_a_short_lived_certificate_pass(
    world: World, logs: tuple[CtLogs, dict[str, LogDouble]]
) -> None:
    """D4, D18, D47: as it is logged and as it is issued; the OCSP URL that zlint misses in both is on record."""
    client, _ = logs
    zlint = ExternalLinter(name="zlint", command=(str(ZLINT), "-format", "der", "-"), output="zlint")
    issuance = world.issuance(
        config=_config(world, {"name": "tls-dv", "issuer": "tls-dv", "kind": "dv-short-lived", "days": 7}),
        linting=LintGate(Lint(level="warning", external=(zlint,)), Inline()),
        logging=Logging(world.signer.sign_precertificate, client),
    )
    order = await issuance.submit("operator:ann", "tls-dv", make_csr())
    order = await issuance.finish(order.id, timeout=0)
    assert (order.state, order.detail) == ("issued", None)
    linted = await world.fetch("select document, refused, findings from lint_result where linter = 'zlint' order by id")
    assert [(each["document"], each["refused"]) for each in linted] == [
        ("dv-precertificate", False),
        ("dv-certificate", False),
    ]
    for each in linted:
        assert "e_sub_cert_aia_does_not_contain_ocsp_url" in {finding["code"] for finding in each["findings"]}


async def test_a_certificate_of_a_profile_without_ocsp_points_to_its_crl_alone(world: World) -> None:
    """A43, D7: `revocation = ["crl"]` does what it says; linters are content, and the signer too."""
    kind = ProfileKind.model_validate(world.config.kinds["dv"].model_dump() | {"revocation": ("crl",)})
    config = world.config.model_copy(update={"kinds": {**world.config.kinds, "dv": kind}})
    issuance = world.issuance(config=config, linting=LintGate(Lint(level="warning"), Inline()))
    order = await issuance.submit("operator:ann", "tls-dv", make_csr())
    order = await issuance.finish(order.id, timeout=0)
    assert (order.state, order.detail) == ("issued", None)
    (row,) = await world.fetch("select der from certificate")
    extensions = x509.load_der_x509_certificate(row["der"]).extensions
    access = extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    assert [each.access_method for each in access] == [AuthorityInformationAccessOID.CA_ISSUERS]
    assert len(extensions.get_extension_for_class(x509.CRLDistributionPoints).value) == 1


async def test_the_ca_signer_lets_no_longer_certificate_go_without(world: World) -> None:
    """D4: the same bytes for eight days are refused by the key's own checks, whatever the issuing API believes."""
    short = _config(world, SHORT)
    longer = short.profiles[-1].model_copy(update={"days": 8})
    issuance = world.issuance(config=short.model_copy(update={"profiles": (longer,)}))
    order = await issuance.submit("operator:ann", "tls-dv", make_csr())
    order = await issuance.finish(order.id, timeout=0)
    assert (order.state, order.code) == ("refused", "tbs.extension")
    assert await world.fetch("select from signing_log") == []


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (SHORT | {"days": 8}, "D4"),
        (SHORT | {"countries": ["TN"]}, "D5"),
        (TUNISIAN | {"days": 399}, "days"),
        (TUNISIAN | {"countries": ["Tunisia"]}, "countries"),
        (TUNISIAN | {"wildcard": True}, "wildcard"),
    ],
)
def test_a_profile_that_would_break_a_rule_is_refused_at_load(wrong: dict[str, Any], why: str) -> None:
    """G25: the error names the field or the row."""
    with pytest.raises(ValueError, match=why):
        Config.model_validate({"profiles": [wrong]})


@pytest.mark.parametrize(
    ("names", "country", "code"),
    [
        (["www.example.tn"], "TN", None),
        (["example.gov.tn", "a.b.example.com.tn"], "TN", None),
        (["www.example.org"], "TN", "name.outside_profile"),
        (["www.example.tn", "www.example.fr"], "TN", "name.outside_profile"),
        (["www.examptn.org"], "TN", "name.outside_profile"),
        (["www.example.tn"], "FR", "subject.outside_profile"),
    ],
)
async def test_a_services_ca_of_one_country_stays_there(
    world: World, names: list[str], country: str, code: str | None
) -> None:
    """G18: OV below .tn for Tunisian organizations, and nothing else."""
    issuance = world.issuance(config=_config(world, TUNISIAN))
    request = make_csr(names, subject=[(NameOID.COUNTRY_NAME, country), *OV_SUBJECT[1:]])
    if code is None:
        assert (await issuance.submit("operator:ann", "tls-ov", request)).state == "pending"
        return
    with pytest.raises(QuashError) as error:
        await issuance.submit("operator:ann", "tls-ov", request)
    assert error.value.code == code
