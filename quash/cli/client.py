"""The client side of the two private APIs: mutual TLS as an operator, JSON both ways, problems raised as our errors."""

from __future__ import annotations

import base64
import http.client
import ssl
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from quash.cli.common import Context
from quash.errors import Kind, QuashError
from quash.runtime.config import Listener

AsOption = Annotated[str, typer.Option("--as", help="Operator: NAME.pem and NAME.key in the folder operators/.")]
SerialArgument = Annotated[str | None, typer.Argument(help="Serial in hexadecimal, with or without 0x and colons.")]
CertOption = Annotated[Path | None, typer.Option("--cert", help="The certificate itself (PEM or DER), for a serial.")]
IssuerOption = Annotated[str | None, typer.Option("--issuer", help="Name of the issuer.")]

DEFAULT_OPERATOR = "operator"
_TIMEOUT = 30.0
_MAX_ANSWER = 64 << 20


class Api:
    """One of the APIs of a deployment, asked as one operator. A connection for each request: verbs ask a few times."""

    def __init__(self, deployment: Context, listener: Listener, operator: str = DEFAULT_OPERATOR) -> None:
        self._listener = listener
        self._tls = _tls_context(deployment.state.root / "operators", operator)

    def get(self, path: str, *, timeout: float = _TIMEOUT) -> Any:
        """Raises the API's own error, `api.unavailable`, `api.refused_client`, `api.not_trusted`."""
        return self._ask("GET", path, None, timeout)

    def post(self, path: str, body: dict[str, Any], *, timeout: float = _TIMEOUT) -> Any:
        """Raises as `get` does."""
        return self._ask("POST", path, orjson.dumps(body), timeout)

    def put_file(self, path: str, body: bytes, *, timeout: float = _TIMEOUT) -> Any:
        """Sends octets as they are. Raises as `get` does."""
        return orjson.loads(self._octets("PUT", path, body, timeout, "application/octet-stream"))

    def get_file(self, path: str, *, timeout: float = _TIMEOUT) -> bytes:
        """Octets as they are. Raises as `get` does."""
        return self._octets("GET", path, None, timeout)

    def _ask(self, method: str, path: str, body: bytes | None, timeout: float) -> Any:
        return orjson.loads(self._octets(method, path, body, timeout))

    def _octets(
        self, method: str, path: str, body: bytes | None, timeout: float, kind: str = "application/json"
    ) -> bytes:
        try:
            status, said = self._exchange(method, path, body, timeout, kind)
        except _ClosedError as error:
            raise self._why_closed(str(error)) from None
        if status >= 400:
            raise _problem(self._where, status, said)
        return said

    @property
    def _where(self) -> str:
        return f"https://{self._listener.host}:{self._listener.port}"

    def _exchange(
        self, method: str, path: str, body: bytes | None, timeout: float, kind: str = "application/json"
    ) -> tuple[int, bytes]:
        """Raises `_ClosedError` when the API ends the connection after the handshake and before an answer."""
        host, port = self._listener.host, self._listener.port
        connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=self._tls)
        try:
            self._connect(connection)
            connection.request(method, path, body, {"Content-Type": kind} if body else {})
            response = connection.getresponse()
            return response.status, response.read(_MAX_ANSWER)
        except TimeoutError:
            message = f"{self._where} has not answered in {timeout:g} s: look at its log"
            raise QuashError("api.unavailable", message, Kind.UNAVAILABLE) from None
        except (OSError, http.client.HTTPException) as error:
            raise _ClosedError(str(error)) from None
        finally:
            connection.close()

    def _connect(self, connection: http.client.HTTPSConnection) -> None:
        try:
            connection.connect()
        except ssl.SSLCertVerificationError as error:
            message = f"{self._where} does not show a certificate of operators/ca.pem: {error.verify_message}"
            raise QuashError("api.not_trusted", message, Kind.FORBIDDEN) from None
        except OSError as error:
            message = f"{self._where} does not answer ({error}): start it with quash up"
            raise QuashError("api.unavailable", message, Kind.UNAVAILABLE) from None

    def _why_closed(self, said: str) -> QuashError:
        """In TLS 1.3 a refused client certificate looks like this, so does a crash: a harmless request tells which.

        The request itself is not sent again: an order is not idempotent.
        """
        try:
            self._exchange("GET", "/", None, _TIMEOUT)
        except _ClosedError:
            message = f"{self._where} refuses this client certificate: choose another one with --as"
            return QuashError("api.refused_client", message, Kind.FORBIDDEN)
        except QuashError as error:
            return error
        message = f"{self._where} ended the connection ({said}): look whether it was done, and ask again"
        return QuashError("api.unavailable", message, Kind.UNAVAILABLE)


class _ClosedError(Exception):
    """The API ended a connection without an answer."""


def name_certificate(serial: str | None, cert: Path | None, issuer: str | None) -> dict[str, Any]:
    """The part of a request that names one certificate. Raises `certificate.unnamed`, `file.unreadable`."""
    if (serial is None) == (cert is None):
        raise QuashError("certificate.unnamed", "name the certificate by SERIAL or --cert, and only one of them")
    named = {"serial": serial} if cert is None else {"certificate": pem(read_file(cert))}
    return named if issuer is None else {**named, "issuer": issuer}


def read_file(path: Path) -> bytes:
    """Raises `file.unreadable`."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise QuashError("file.unreadable", f"cannot read {path}: {error.strerror}") from None


def pem(body: bytes) -> str:
    """The first certificate of a PEM file, or a DER file as PEM; what is neither is left to the API to refuse."""
    begin, end = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"
    if begin in body and end in body:
        first = body[body.index(begin) :]
        return first[: first.index(end) + len(end)].decode("ascii", "replace") + "\n"
    return f"{begin.decode()}\n{base64.encodebytes(body).decode()}{end.decode()}\n"


def _tls_context(folder: Path, operator: str) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=folder / "ca.pem")
        context.load_cert_chain(folder / f"{operator}.pem", folder / f"{operator}.key")
    except OSError as error:
        raise QuashError(
            "operator.no_files",
            f"cannot use {folder}/{operator}.pem, its .key and ca.pem: run quash init, or choose --state and --as",
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def _problem(where: str, status: int, said: bytes) -> QuashError:
    """The error that the API raised, from its problem document."""
    try:
        document = orjson.loads(said)
        return QuashError(document["code"], document["detail"], Kind(document["kind"]))
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return QuashError("api.unavailable", f"{where} answers HTTP {status} and no problem document", Kind.UNAVAILABLE)
