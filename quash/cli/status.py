"""`quash status`: what the database says of a certificate."""

from __future__ import annotations

from quash.cli.client import (
    DEFAULT_OPERATOR,
    Api,
    AsOption,
    CertOption,
    IssuerOption,
    SerialArgument,
    name_certificate,
)
from quash.cli.common import (
    DEFAULT_CONFIG,
    DEFAULT_STATE,
    ConfigOption,
    JsonOption,
    SetOption,
    StateOption,
    context,
    print_json,
    reports_errors,
)


@reports_errors
def status(
    *,
    serial: SerialArgument = None,
    cert: CertOption = None,
    issuer: IssuerOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
    as_: AsOption = DEFAULT_OPERATOR,
    json_: JsonOption = False,
) -> None:
    """Says whether a certificate is good, revoked, expired or unknown."""
    deployment = context(config, state, set_)
    api = Api(deployment, deployment.config.admin, as_)
    found = api.post("/v1/certificates/lookup", name_certificate(serial, cert, issuer))
    if json_:
        print_json(found)
        return
    since = f", {found['reason']} since {found['revoked_at']}" if found["reason"] else ""
    print(f"{found['issuer'] or 'any issuer'} {found['serial']}: {found['status']}{since}")
    if found["crl_url"]:
        print(f"  CRL {found['crl_url']}")
