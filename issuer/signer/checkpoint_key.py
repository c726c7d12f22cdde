"""The key that signs the ledger's checkpoints: made by `quash init`, used by the process `ledger` alone."""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from issuer.signer.deployment import Deployment
from issuer.signer.publish_files import write_file
from quash.keys import open_key

PUBLIC_KEY: Final = "ledger.pub.pem"
_DEFAULT: Final = "pem:ledger/checkpoint.pem"


def ensure_checkpoint_key(deployment: Deployment) -> bool:
    """Makes the default key when it is missing, and adds its public half to `certs/ledger.pub.pem`; True: it was made.

    Former keys stay in that file: they verify the checkpoints of their time. Raises `KeyUnavailable`.
    """
    ref, files = deployment.config.audit.checkpoint_key, deployment.files
    made = ref == _DEFAULT and not (deployment.state.keys / "ledger" / "checkpoint.pem").exists()
    if ref == _DEFAULT:
        spki = files.ensure("ledger", "checkpoint", "ec-p256")
    else:
        key = open_key(ref, deployment.state.keys, files.passphrase_file("ledger"), logins=deployment.state.run)
        spki = key.spki
        key.close()
    path = deployment.state.certs / PUBLIC_KEY
    known = path.read_bytes() if path.exists() else b""
    pem = load_der_public_key(spki).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    if pem not in known:
        write_file(path, known + pem)
    return made
