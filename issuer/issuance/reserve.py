"""Steps 3 and 4, T1: a draft that linters have seen becomes the only bytes that may ever be signed for its serial."""

from __future__ import annotations

from dataclasses import replace

from issuer.checks.findings import refusal
from issuer.issuance import prepare
from issuer.issuance.means import Means
from issuer.issuance.prepare import Plan, Reserved
from quash.errors import Kind, QuashError
from quash.store import certificates, issuing, lint_results, orders
from quash.store.certificates import Certificate
from quash.store.database import Connection
from quash.store.lint_results import LintResult
from quash.store.orders import Order


async def reserve(means: Means, conn: Connection, order: Order, plan: Plan) -> tuple[Order, Reserved]:
    """Raises what a linter refuses; whatever is raised, no serial is committed."""
    logged = plan.kind.logged and means.logging is not None
    draft = await prepare.make_draft(conn, means.config, plan, means.now(), logged=logged, crl_urls=means.crl_urls)
    linted = await lint(means, conn, order, draft.twin, f"{plan.kind.document}-{'pre' * logged}certificate")
    row = Certificate(
        issuer_id=plan.issuer.id,
        serial=draft.serial,
        state="reserved",
        profile=plan.profile.name,
        der=None,
        spki_sha256=plan.spki_sha256,
        ski=None,
        not_before=draft.valid.not_before,
        not_after=draft.valid.not_after,
        shard=draft.shard,
        bucket=certificates.bucket_of(draft.serial, plan.issuer.bucket_count),
    )
    now = means.now()
    begun(order, await issuing.reserve(conn, order.id, row, draft.tbs, at=now, linted=linted))
    await means.passed("reserve")
    reserved = Reserved(row.issuer_id, row.serial, plan.spki_sha256, row.shard, draft.valid, row.state, draft.tbs, None)
    return replace(order, issuer_id=row.issuer_id, serial=row.serial, updated_at=now), reserved


async def lint(means: Means, conn: Connection, order: Order, twin: bytes, document: str) -> list[LintResult]:
    """What every linter said (D47), to be stored with what it is about; a refusal is stored here, and raised."""
    reports, now = await means.linting(twin, document), means.now()
    results = [
        LintResult(now, order.id, document, each.linter, each.version, each.as_json(), bool(each.refusing))
        for each in reports
    ]
    if (refused := refusal(document, reports)) is not None:
        await lint_results.add(conn, results)
        raise refused
    return results


def begun(order: Order, done: bool) -> None:
    """Raises `order.conflict` when a transaction of flow 1 found another state than this worker went by."""
    if not done:
        raise QuashError(orders.CONFLICT, f"order {order.id} is in another state: look at it again", Kind.CONFLICT)
