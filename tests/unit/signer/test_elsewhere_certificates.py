"""Certificates signed elsewhere, by openssl: the root's OCSP signer, a sub-CA; all checks are the CA signer's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from issuer.signer.elsewhere_certificates import (
    export_certificate,
    import_certificate,
    new_ocsp_signer,
    new_sub_ca,
)
from quash.errors import QuashError
from quash.runtime.config import Config
from tests.support.initialising import Made
from tests.unit.signer.test_elsewhere import openssl_signs

pytestmark = pytest.mark.usefixtures("no_lint")
HOUR = 3600


async def code_of(attempt: Callable[[], Awaitable[Any]]) -> str:
    with pytest.raises(QuashError) as caught:
        await attempt()
    return caught.value.code


async def root_signers(made: Made) -> list[tuple[str, bytes]]:
    return await made.fetch(
        "select o.state, o.certificate from ocsp_signer o join issuer i on i.id = o.issuer_id where i.name = 'root'"
        " order by o.id"
    )


def without_root_key(made: Made, folder: Path) -> Path:
    """The root's key leaves the machine; returns where it is."""
    key = made.state.keys / "offline" / "root.pem"
    return key.rename(folder / key.name)


async def test_ocsp_signer_of_the_root(deployment: Made, tmp_path: Path) -> None:
    """Export asks for no key and can be repeated; the import replaces the signer, once, by what was exported."""
    await deployment.make()
    tbs = await export_certificate(deployment.deployment, "root", new_ocsp_signer)
    signature = await openssl_signs(deployment, tbs, tmp_path)
    without_root_key(deployment, tmp_path)
    assert await export_certificate(deployment.deployment, "root", new_ocsp_signer) == tbs, "the same reservation"
    deployment.clock.step(20 * HOUR)
    await import_certificate(deployment.deployment, "root", new_ocsp_signer, tbs, signature)
    (old, _), (new, der) = await root_signers(deployment)
    assert (old, new) == ("retiring", "active")
    certificate = x509.load_der_x509_certificate(der)
    assert certificate.tbs_certificate_bytes == tbs
    certificate.verify_directly_issued_by(deployment.certificate("root"))
    again = await code_of(lambda: import_certificate(deployment.deployment, "root", new_ocsp_signer, tbs, signature))
    assert again == "ca.not_exported"
    assert len(await root_signers(deployment)) == 2


async def test_sub_ca_below_a_root_that_is_elsewhere(deployment: Made, tmp_path: Path) -> None:
    """A further sub-CA of the configuration: its key is made here, its certificate signed there; init does the rest."""
    await deployment.make()
    dump = deployment.deployment.config.model_dump()
    first = next(each for each in dump["issuers"] if each["name"] == "tls-dv")
    more = {**first, "name": "tls-new", "subject": {**first["subject"], "CN": "Quash New CA"}, "shards": 0}
    config = Config.model_validate({**dump, "issuers": [*dump["issuers"], more]})
    made = Made.of(config, deployment.state.root, deployment.deployment.pool, deployment.clock)
    work = new_sub_ca("tls-new")
    tbs = await export_certificate(made.deployment, "root", work)
    signature = await openssl_signs(made, tbs, tmp_path)
    key = without_root_key(made, tmp_path)
    await import_certificate(made.deployment, "root", work, tbs, signature)
    certificate = made.certificate("tls-new")
    assert certificate.tbs_certificate_bytes == tbs
    certificate.verify_directly_issued_by(made.certificate("root"))
    assert await code_of(lambda: export_certificate(made.deployment, "root", work)) == "ca.nothing_to_sign"
    said = await made.make()
    assert "made an OCSP signer of tls-new" in said
    assert key.exists()


async def test_whatever_was_not_exported_is_refused(deployment: Made, tmp_path: Path) -> None:
    """Other octets under the root's own signature, a wrong signature, a signature that comes back after a day."""
    await deployment.make()
    tbs = await export_certificate(deployment.deployment, "root", new_ocsp_signer)
    signature = await openssl_signs(deployment, tbs, tmp_path)
    other = tbs[:-1] + bytes([tbs[-1] ^ 1])

    async def refused(octets: bytes, signed: bytes) -> str:
        return await code_of(lambda: import_certificate(deployment.deployment, "root", new_ocsp_signer, octets, signed))

    assert await refused(other, signature) == "signature.invalid"
    assert await refused(other, await openssl_signs(deployment, other, tmp_path)) == "ca.not_exported"
    deployment.clock.step(24 * HOUR)
    assert await refused(tbs, signature) == "ca.not_exported", "the reservation is given up, and revoked (A8)"
    assert len(await root_signers(deployment)) == 1
    revoked = await deployment.fetch("select count(*) from revocation")
    assert revoked == [(1,)]
    online = await code_of(lambda: export_certificate(deployment.deployment, "tls-dv", new_ocsp_signer))
    assert online == "hierarchy.not_offline"
