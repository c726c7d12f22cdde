"""Notices to reporters, subscribers and ourselves: templates, and the queue of them (C6, C17, C18)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Template
from types import MappingProxyType
from typing import Final

from issuer.api import timestamp
from issuer.revocation.cases import Standing, Tell
from quash.errors import QuashError
from quash.store import acts, cases, notices
from quash.store.database import Connection

NOTICE: Final = "notice.add"
ESCALATE: Final = "escalation"


@dataclass(frozen=True, slots=True)
class Text:
    """`subject` and `body` with the fields of `_fields`, in the manner of `string.Template`."""

    subject: str
    body: str


TEMPLATES: Final[Mapping[str, Text]] = MappingProxyType(
    {
        "acknowledgement": Text(
            "Your report of $received_at: case $case",
            "We received your report at $received_at. It is case $case.\n"
            "You hear of its findings by $report_by at the latest (BR 4.9.5).\n",
        ),
        "preliminary-report": Text(
            "Case $case: preliminary report",
            "Case $case, received $received_at: $summary\n\n"
            "Ground: $rule. Certificates affected so far: $certificates, revoked: $revoked.\n"
            "What must be revoked is revoked by $publish_by.\n$text",
        ),
        "revocation": Text(
            "Case $case: your certificates will be revoked by $publish_by",
            "Case $case concerns $own of your certificates: $summary\n\n"
            "Ground: $rule. They are revoked by $publish_by; the rules allow no exception.\n"
            "Replace them before: order new ones now, with new keys if the ground is a compromised key.\n$text",
        ),
        "progress": Text(
            "Case $case: $visible of $certificates revoked",
            "Case $case: $revoked of $certificates certificates are revoked, $visible are seen revoked by everybody.\n"
            "$left are left; all of them by $publish_by.\n$text",
        ),
        "done": Text(
            "Case $case: done",
            "Case $case: all $certificates certificates are revoked and seen so by everybody since $visible_at.\n$text",
        ),
        ESCALATE: Text(
            "ESCALATION: case $case",
            "Case $case, received $received_at from $reporter: $summary\n\n$text\n"
            "To be picked up by $pick_up_by, reported by $report_by, revoked by $publish_by.\n",
        ),
    }
)


def check_template(name: str) -> None:
    """Raises `notice.template_unknown`."""
    if name not in TEMPLATES:
        raise QuashError("notice.template_unknown", f"a template is one of {', '.join(TEMPLATES)}")


async def notify(
    conn: Connection,
    actor: str,
    stands: Standing,
    template: str,
    recipients: Sequence[str],
    *,
    now: int,
    text: str = "",
    channel: str = "mail",
    own: int = 0,
    once: str | None = None,
) -> int:
    """Queues a notice to each recipient, with one act; returns how many are new. Raises `notice.*`.

    `once`: of the same name there is one for each recipient. `own`: certificates of the recipient's account.
    """
    check_template(template)
    if channel == "mail":
        for each in recipients:
            _check_address(each)
    fields = {**_fields(stands), "text": text and f"\n{text}\n", "own": str(own)}
    wording = TEMPLATES[template]
    subject = Template(wording.subject).substitute(fields).replace("\n", " ")
    body = Template(wording.body).substitute(fields)
    added = 0
    async with conn.transaction():
        for each in recipients:
            added += await notices.add(
                conn,
                at=now,
                case_id=stands.case.id,
                template=template,
                channel=channel,
                recipient=each,
                subject=subject,
                body=body,
                once=once and f"{once}:{each}",
            )
        if added:
            told = {"case": stands.case.id, "template": template, "channel": channel, "recipients": list(recipients)}
            await acts.record(conn, at=now, actor=actor, action=NOTICE, subject=told)
    return added


async def notify_subscribers(
    conn: Connection,
    actor: str,
    stands: Standing,
    template: str,
    *,
    now: int,
    text: str = "",
    once: str | None = None,
) -> int:
    """One notice to each account that has certificates in the case, by webhook: accounts' addresses are kept there."""
    added = 0
    for account, count in await cases.accounts(conn, stands.case.id):
        added += await notify(
            conn, actor, stands, template, [account], now=now, text=text, channel="webhook", own=count, once=once
        )
    return added


def teller(addresses: Sequence[str], actor: str) -> Tell:
    """For who watches deadlines: an escalation to these addresses, once for each case."""

    async def tell(conn: Connection, stands: Standing, text: str, now: int) -> int:
        once = f"risk:{stands.case.id}"
        return await notify(conn, actor, stands, ESCALATE, addresses, now=now, text=text, once=once)

    return tell


def is_address(text: str) -> bool:
    """Whether it is one mailbox, and nothing that a mail header could take for more."""
    local, at, domain = text.rpartition("@")
    bad = any(not char.isprintable() or char in ' <>,;:"()[]\\' for char in text)
    return bool(local and at and domain) and not bad and text.isascii() and len(text) <= 254


def _check_address(address: str) -> None:
    """Raises `notice.address`."""
    if not is_address(address):
        raise QuashError("notice.address", f"{address!r} is no plain mail address")


def _fields(stands: Standing) -> dict[str, str]:
    case = stands.case
    times = {
        "received_at": case.received_at,
        "report_by": stands.report_by,
        "publish_by": stands.publish_by,
        "pick_up_by": stands.pick_up_by,
        "visible_at": case.last_seen_at,
    }
    return {
        "case": str(case.id),
        "summary": case.summary,
        "reporter": case.reporter,
        "rule": stands.trigger.rule,
        "certificates": str(case.total),
        "revoked": str(case.revoked),
        "visible": str(case.seen),
        "left": str(case.total - case.seen),
        **{name: timestamp(at) or "-" for name, at in times.items()},
    }
