"""Sends notices: by SMTP and by webhook, again with growing pauses until they are taken. Each at least once."""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path
from typing import Final

import aiohttp
from prometheus_client import Counter, Gauge

from quash.runtime.clock import Clock
from quash.runtime.config import Notices
from quash.runtime.log import logger
from quash.store import notices
from quash.store.database import Pool, acquire
from quash.store.notices import Notice

_AT_ONCE: Final = 20
_FIRST_PAUSE, _LONGEST_PAUSE, _GIVE_UP = 30, 3600, 7 * 86400  # seconds
_WEBHOOK_ANSWER: Final = 200  # characters kept of what a webhook said

_SENT = Counter("quash_notices_total", "Attempts to send notices", ["channel", "outcome"])
_UNSENT = Gauge("quash_notices_unsent", "Notices that nobody has taken yet")


class NoticeSender:
    """`step` tries what is due. Use as an async context manager. A notice is committed before it is sent, so a crash
    in between sends it twice: its Message-ID and number stay the same.
    """

    def __init__(self, pool: Pool, config: Notices, clock: Clock) -> None:
        self._pool = pool
        self._config = config
        self._clock = clock

    async def __aenter__(self) -> NoticeSender:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self._config.timeout))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def step(self) -> int:
        """Returns how many were sent."""
        now, sent = int(self._clock.now()), 0
        async with acquire(self._pool) as conn:
            due = await notices.due(
                conn, now, first_pause=_FIRST_PAUSE, longest_pause=_LONGEST_PAUSE, give_up=_GIVE_UP, limit=_AT_ONCE
            )
            _UNSENT.set(await notices.unsent(conn))
        for notice in due:
            if not self._can(notice):
                continue
            said = await self._send(notice)
            _SENT.labels(notice.channel, "failed" if said else "sent").inc()
            sent += not said
            async with acquire(self._pool) as conn:
                await notices.record(conn, notice.id, int(self._clock.now()), sent=not said, detail=said or "")
        return sent

    def _can(self, notice: Notice) -> bool:
        return bool(self._config.smtp_host if notice.channel == "mail" else self._config.webhook)

    async def _send(self, notice: Notice) -> str:
        """What went wrong; empty: it was taken."""
        try:
            if notice.channel == "mail":
                await asyncio.to_thread(self._mail, notice)
            else:
                await self._post(notice)
        except (OSError, smtplib.SMTPException, aiohttp.ClientError, TimeoutError) as error:
            said = (str(error) or type(error).__name__)[:500]
            logger().warning("notice.not_sent", notice=notice.id, channel=notice.channel, said=said)
            return said
        return ""

    def _mail(self, notice: Notice) -> None:
        config = self._config
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = config.sender, notice.recipient, notice.subject
        message["Date"] = format_datetime(datetime.fromtimestamp(notice.at, UTC))
        message["Message-ID"] = f"<quash-notice-{notice.id}-{notice.at}@{config.sender.rpartition('@')[2]}>"
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(notice.body)
        tls = ssl.create_default_context()
        if config.smtp_tls == "tls":
            smtp: smtplib.SMTP = smtplib.SMTP_SSL(
                config.smtp_host, config.smtp_port, timeout=config.timeout, context=tls
            )
        else:
            smtp = smtplib.SMTP(config.smtp_host, config.smtp_port, timeout=config.timeout)
        with smtp:
            if config.smtp_tls == "starttls":
                smtp.starttls(context=tls)
            if config.smtp_user:
                smtp.login(config.smtp_user, _secret(config.smtp_password_file))
            smtp.send_message(message)

    async def _post(self, notice: Notice) -> None:
        body = {
            "notice": notice.id,
            "case": notice.case_id,
            "account": notice.recipient,
            "template": notice.template,
            "subject": notice.subject,
            "text": notice.body,
        }
        token = self._config.webhook_token_file
        headers = {"Authorization": f"Bearer {_secret(token)}"} if token else {}
        async with self._session.post(
            self._config.webhook, json=body, headers=headers, allow_redirects=False
        ) as response:
            if response.status >= 300:
                said = (await response.content.read(_WEBHOOK_ANSWER)).decode("utf-8", "replace")
                raise OSError(f"HTTP {response.status}: {said}")


def _secret(file: Path | None) -> str:
    return "" if file is None else file.read_text(encoding="utf-8").strip()
