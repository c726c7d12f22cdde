"""A CA as people run it with `openssl ca`: made, used and revoked from by openssl itself."""

from __future__ import annotations

from pathlib import Path

from loadtest.system import make_csr, openssl

_CONFIG = """
[ca]
default_ca = this
[this]
dir = {folder}
database = $dir/index.txt
new_certs_dir = $dir/newcerts
certificate = $dir/ca.pem
private_key = $dir/ca.key
serial = $dir/serial
crlnumber = $dir/crlnumber
default_md = sha256
default_days = 365
default_crl_days = 30
policy = any
copy_extensions = copy
unique_subject = no
crl_extensions = crl_ext
[any]
commonName = optional
[crl_ext]
authorityKeyIdentifier = keyid
"""


class OpensslCa:
    """Its folder has index.txt, newcerts/, ca.pem, ca.key and, after `crl`, crl.pem."""

    def __init__(
        self, folder: Path, *, key: tuple[str, ...] = ("rsa:2048",), common_name: str = "Old CA", country: str = "TN"
    ) -> None:
        self.folder = folder
        (folder / "newcerts").mkdir(parents=True)
        (folder / "index.txt").touch()
        (folder / "serial").write_text("1000\n")
        (folder / "crlnumber").write_text("0100\n")
        self.config = folder / "ca.cnf"
        self.config.write_text(_CONFIG.format(folder=folder))
        subject = f"/C={country}/O=Old/CN={common_name}"
        extensions = (
            "-addext",
            "basicConstraints=critical,CA:TRUE",
            "-addext",
            "keyUsage=critical,keyCertSign,cRLSign",
        )
        openssl(
            *("req", "-x509", "-newkey", *key, "-nodes", "-keyout", str(folder / "ca.key")),
            *("-subj", subject, "-days", "3650", *extensions, "-out", str(folder / "ca.pem")),
        )

    @property
    def index(self) -> Path:
        return self.folder / "index.txt"

    def issue(self, name: str, *, key: Path | None = None) -> Path:
        """A certificate for a new key (`<name>.key`) or an existing one; returns its PEM's path."""
        csr, pem = self.folder / f"{name}.csr", self.folder / f"{name}.pem"
        make_csr(
            csr, key or self.folder / f"{name}.key", [f"{name}.example.org"], subject=f"/CN={name}", new=key is None
        )
        self._ca("-in", str(csr), "-out", str(pem), "-notext")
        return pem

    def revoke(self, certificate: Path, *how: str) -> None:
        """For example `-crl_reason superseded` or `-crl_compromise 20260101000000Z`."""
        self._ca("-revoke", str(certificate), *how)

    def crl(self) -> Path:
        path = self.folder / "crl.pem"
        self._ca("-gencrl", "-out", str(path))
        return path

    def _ca(self, *arguments: str) -> None:
        openssl("ca", "-batch", "-config", str(self.config), *arguments)

    def import_arguments(self, name: str) -> list[str]:
        """Everything that `quash import openssl` can take of it, the CRL apart."""
        return [
            *("--name", name, "--index", str(self.index), "--ca", str(self.folder / "ca.pem")),
            *("--key", str(self.folder / "ca.key"), "--certs", str(self.folder / "newcerts")),
        ]
