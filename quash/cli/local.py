"""Verbs that work on the state itself, also beside a running `up`: they find or start its database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from quash.cli.common import Context
from quash.store.embedded import EmbeddedPostgres


@contextmanager
def running_database(deployment: Context) -> Iterator[None]:
    """The deployment's database answers while this is open: the configured one, the one of `up`, or one of our own."""
    if deployment.config.database.url:
        yield
        return
    with EmbeddedPostgres(deployment.state).run():
        yield
