"""Whether the identifiers of an order were validated for whoever orders."""

from __future__ import annotations

from collections.abc import Collection

from quash.errors import Kind, QuashError


def check_validated(names: Collection[str], validated: Collection[str], *, required: bool) -> None:
    """Raises `validation.required` unless each name is among the validated ones, or the deployment waives it.

    `issuance.require_validation` is the waiver, for demonstrations with made-up names.
    """
    missing = sorted(set(names) - set(validated))
    if required and missing:
        raise QuashError(
            "validation.required",
            f"prove control of {', '.join(missing)} first (issuance.require_validation)",
            Kind.REFUSED,
        )
