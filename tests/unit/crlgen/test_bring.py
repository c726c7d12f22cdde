"""What commands write into the folder reaches the bucket: CRLs of offline keys (B4), CA certificates."""

from __future__ import annotations

from typing import Any

from crlgen.publish.bring import Bring
from crlgen.publish.folder import FolderPublisher
from quash.pki.crl import certificate_list, tbs_cert_list
from quash.store.crls import Scope
from tests.support.crl_bench import DAY, Bench, Ca


def crl(bench: Bench, ca: Ca, number: int) -> bytes:
    at = int(bench.clock.now())
    fields: dict[str, Any] = {
        "algorithm": ca.algorithm, "issuer": ca.certificate.subject.public_bytes(), "this_update": at,
        "next_update": at + DAY, "entries": [], "authority_key_id": b"k" * 20, "number": number, "idp_urls": (),
        "only": None,
    }  # fmt: skip
    tbs = tbs_cert_list(**fields)
    return certificate_list(tbs, ca.algorithm, ca.sign(tbs))


async def test_newer_crl_and_certificates_are_brought(bench: Bench, tmp_path: Any) -> None:
    """Within a minute, announced to purge hooks; an older or an equal CRL is not, and online CRLs are not touched."""
    root, sub = await bench.issuer("root", key_ref=None), await bench.issuer("sub")
    (tmp_path / "bucket").mkdir()
    bucket, folder = FolderPublisher(tmp_path / "bucket"), FolderPublisher(bench.folder)
    announced: list[Scope] = []
    bring = Bring(bench.pool, bucket, folder, bench.clock, announced.append)
    await folder.put("root.crl", second := crl(bench, root, 2), None)
    await folder.put("sub.crl", crl(bench, sub, 9), None)
    assert await bring.step() == 3
    assert sorted(path.name for path in (tmp_path / "bucket").iterdir()) == ["root.cer", "root.crl", "sub.cer"]
    assert (tmp_path / "bucket" / "root.crl").read_bytes() == second
    assert [scope.path for scope in announced] == ["root.crl"]
    for number, brought in ((3, 1), (2, 0)):
        bench.path("root.crl").write_bytes(crl(bench, root, number))
        assert await bring.step() == 0, "not before the next look"
        await bench.clock.advance(60)
        assert await bring.step() == brought
    assert len(announced) == 2
    await bench.clock.advance(60)
    assert await bring.step() == 0
