"""Statuses in, signed records out: one delegated signer with its key.

Pure but for the key: no clock, no database. The first and every `CHECK_EVERY`th record of what it made is read as a
stranger would before anything leaves: a token that signs wrongly must not fill caches with answers that nobody accepts.
"""

from __future__ import annotations

from collections.abc import Sequence

from quash.cache.layout import Record, encode_record
from quash.errors import Kind, QuashError
from quash.keys import KeyHandle
from quash.pki.certid import CertId, CertIdHash
from quash.pki.certificate import read_certificate
from quash.pki.ocsp_response import ResponseTemplate, Status, verify_response
from quash.store.ocsp_signers import OcspSigner
from quash.store.statuses import CertificateStatus

CHECK_EVERY = 256

HASHES = (CertIdHash.SHA1, CertIdHash.SHA256)
"""Both CertIDs of each certificate (A20), in the order of a record's signatures."""

Item = tuple[int, bytes, bytes]
"""Issuer id, serial, encoded record: what `quash.cache.layout.encode_batch` takes."""


class RecordSigner:
    """Signs the records of one issuer with one delegated signer (A13).

    Owns `key`. Raises `presign.key_mismatch` when the key is not the signer certificate's.
    """

    def __init__(self, signer: OcspSigner, issuer_certificate: bytes, key: KeyHandle) -> None:
        if read_certificate(signer.certificate).spki != key.spki:
            raise QuashError(
                "presign.key_mismatch",
                f"the key of OCSP signer {signer.id} is not its certificate's: repair its key reference",
                Kind.UNAVAILABLE,
            )
        issuer = read_certificate(issuer_certificate)
        self.signer = signer
        self._issuer_certificate = issuer_certificate
        self._key = key
        self._template = ResponseTemplate(
            issuer_subject=issuer.subject,
            issuer_spki=issuer.spki,
            signer_certificate=signer.certificate,
            algorithm=key.algorithm,
        )

    def sign(self, statuses: Sequence[CertificateStatus], as_of: int, validity: int) -> list[Item]:
        """Records of these statuses, which were read at `as_of`, in their order.

        thisUpdate is when the status was known (A30), though never before the revocation; nextUpdate is `validity`
        later or the end of the signer's certificate, whichever comes first (A5). Blocks while the key signs; raises
        `KeyUnavailable` and `presign.self_check_failed`.
        """
        times = [self._times(status, as_of, validity) for status in statuses]
        template = self._template
        signatures = self._key.sign_many(
            [
                template.tbs(h, status.serial, Status(status.reason, status.revoked_at), *moment)
                for status, moment in zip(statuses, times, strict=True)
                for h in HASHES
            ]
        )
        records = [
            Record(status.version, status.reason, status.revoked_at, *moment, self.signer.id, (sha1, sha256))
            for status, moment, sha1, sha256 in zip(statuses, times, signatures[::2], signatures[1::2], strict=True)
        ]
        for i in range(0, len(records), CHECK_EVERY):
            self._check(statuses[i].serial, records[i])
        return [
            (status.issuer_id, status.serial, encode_record(record))
            for status, record in zip(statuses, records, strict=True)
        ]

    def close(self) -> None:
        self._key.close()

    def _times(self, status: CertificateStatus, as_of: int, validity: int) -> tuple[int, int]:
        this_update = max(as_of, status.revoked_at)
        return this_update, min(this_update + validity, self.signer.not_after)

    def _check(self, serial: bytes, record: Record) -> None:
        """Assembles both responses as a node will, and reads them with code that shares nothing with the template."""
        status = Status(record.reason, record.revoked_at)
        for h, signature in zip(HASHES, record.signatures, strict=True):
            issuer = self._template.issuer[h]
            try:
                response = self._template.response(h, serial, status, record.this_update, record.next_update, signature)
                read = verify_response(response, self._issuer_certificate)
            except QuashError as error:
                raise _self_check_failed(serial, str(error)) from error
            wanted = (
                CertId(h, issuer.name_hash, issuer.key_hash, serial),
                status,
                record.this_update,
                record.next_update,
            )
            if (read.cert_id, read.status, read.this_update, read.next_update) != wanted:
                raise _self_check_failed(serial, "it reads differently from what was signed")


def _self_check_failed(serial: bytes, what: str) -> QuashError:
    return QuashError(
        "presign.self_check_failed",
        f"a response for serial {serial.hex()} is not fit to serve, nothing of its batch goes out: {what}",
        Kind.INTERNAL,
    )
