"""GnuTLS's verifier, as certtool uses it, at any moment: certtool itself knows no time but the clock's."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from enum import IntFlag
from functools import cache
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

_HOST, _PURPOSE, _MAILBOX = 1, 2, 3  # gnutls_vdata_types_t
_TIME = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_void_p)
_DER: Final = 0


class Status(IntFlag):
    """gnutls_certificate_status_t, as far as tests ask for it; 0: verified."""

    INVALID = 1 << 1
    SIGNER_NOT_FOUND = 1 << 6
    NOT_ACTIVATED = 1 << 9
    EXPIRED = 1 << 10
    UNEXPECTED_OWNER = 1 << 14
    SIGNER_CONSTRAINTS_FAILURE = 1 << 16
    PURPOSE_MISMATCH = 1 << 18


class _Datum(ctypes.Structure):
    _fields_ = (("data", ctypes.c_char_p), ("size", ctypes.c_uint))


class _About(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int), ("data", ctypes.c_char_p), ("size", ctypes.c_uint))


@cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL("libgnutls.so.30")


def verify(
    chain: Sequence[x509.Certificate],
    root: x509.Certificate,
    at: float,
    *,
    purpose: str = "",
    host: str = "",
    mailbox: str = "",
) -> Status:
    """What is wrong with a chain, the leaf first and without its root; `purpose` is dotted."""
    library, clock = _library(), _TIME(lambda _: int(at))
    library.gnutls_global_set_time_function(clock)
    trusted, found = ctypes.c_void_p(), ctypes.c_uint()
    roots, certificates = _certificates([root]), _certificates(chain)
    _done(library.gnutls_x509_trust_list_init(ctypes.byref(trusted), 0))
    try:
        assert library.gnutls_x509_trust_list_add_cas(trusted, roots, 1, 0) == 1
        given = [(_HOST, host), (_PURPOSE, purpose), (_MAILBOX, mailbox)]
        about = [_About(kind, text.encode(), 0) for kind, text in given if text]
        every = (_About * len(about))(*about)
        _done(
            library.gnutls_x509_trust_list_verify_crt2(
                trusted, certificates, len(chain), every, len(about), 0, ctypes.byref(found), None
            )
        )
    finally:
        library.gnutls_x509_trust_list_deinit(trusted, 0)
        for each in (*roots, *certificates):
            library.gnutls_x509_crt_deinit(ctypes.c_void_p(each))
        library.gnutls_global_set_time_function(ctypes.CDLL(None).time)
    return Status(found.value)


def _certificates(of: Sequence[x509.Certificate]) -> Any:
    library, made = _library(), (ctypes.c_void_p * len(of))()
    for place, each in enumerate(of):
        der, handle = each.public_bytes(Encoding.DER), ctypes.c_void_p()
        _done(library.gnutls_x509_crt_init(ctypes.byref(handle)))
        _done(library.gnutls_x509_crt_import(handle, ctypes.byref(_Datum(der, len(der))), _DER))
        made[place] = handle.value
    return made


def _done(code: int) -> None:
    assert code >= 0, code
