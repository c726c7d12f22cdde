"""The `quash` command: registers the verbs, each of which lives in a module of its own.

Verbs are imported when they are run, so that a process loads only what its security context allows.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click
import typer
from typer.main import get_command

from quash.cli.common import fail
from quash.errors import QuashError

# verb -> (module, attribute): a typer app or a function
VERBS: dict[str, tuple[str, str]] = {
    "up": ("quash.cli.up", "up"),
    "serve": ("quash.cli.serve", "serve"),
    "init": ("quash.cli.init", "init"),
    "issue": ("quash.cli.issue", "issue"),
    "revoke": ("quash.cli.revoke", "revoke"),
    "status": ("quash.cli.status", "status"),
    "evidence": ("quash.cli.evidence", "evidence"),
    "find": ("quash.cli.find", "find"),
    "acts": ("quash.cli.find", "acts"),
    "jobs": ("quash.cli.find", "jobs"),
    "import": ("quash.cli.importing", "import_app"),
    "crl": ("quash.cli.crl", "crl_app"),
    "cache": ("quash.cli.cache", "cache_app"),
    "audit": ("quash.cli.audit", "audit_app"),
    "case": ("quash.cli.case", "case_app"),
    "job": ("quash.cli.job", "job_app"),
    "exemption": ("quash.cli.exemption", "exemption_app"),
    "key": ("quash.cli.key", "key_app"),
    "kill-switch": ("quash.cli.kill_switch", "kill_switch_app"),
    "operator": ("quash.cli.operator", "operator_app"),
    "approve": ("quash.cli.approve", "approve"),
    "signer": ("quash.cli.signer", "signer_app"),
    "root": ("quash.cli.root", "root_app"),
    "ca": ("quash.cli.ca", "ca_app"),
    "order": ("quash.cli.order", "order_app"),
    "validation": ("quash.cli.validation", "validation_app"),
    "blocklist": ("quash.cli.blocklist", "blocklist_app"),
    "names": ("quash.cli.names", "names_app"),
    "ct": ("quash.cli.ct", "ct_app"),
    "self-audit": ("quash.cli.self_audit", "self_audit"),
    "testsite": ("quash.cli.testsite", "serve_sites"),
    "doctor": ("quash.cli.doctor", "doctor"),
    "drill": ("quash.cli.drill", "drill_app"),
}
HELP = {
    "up": "Run every process under one supervisor.",
    "serve": "Run one process.",
    "init": "Make schema, roles, hierarchy and operator certificates.",
    "issue": "Have a certificate issued for a CSR.",
    "revoke": "Revoke a certificate, and with keyCompromise its siblings.",
    "status": "Say what a certificate's status is.",
    "find": "Find certificates by name, key, account, issuer and dates.",
    "acts": "List who did what.",
    "jobs": "List the jobs that revoke a key's many certificates.",
    "evidence": "Tell who revoked a certificate, why, and where it was seen; write a bundle that openssl checks.",
    "import": "Take over an existing CA.",
    "crl": "List, build and verify CRLs.",
    "cache": "Look into this node's OCSP cache.",
    "audit": "Verify and export the ledger.",
    "case": "Open, follow, revoke and report what must be revoked by a deadline.",
    "job": "Follow, start, pause, resume and abort mass revocations.",
    "exemption": "Leave certificates out of mass revocations, by two officers' decision, for a time.",
    "key": "Report compromised keys; block, list and import bad ones.",
    "kill-switch": "Stop issuance at once; two officers lift it.",
    "operator": "Add, renew, disable and list operators; two officers.",
    "approve": "Approve, as the second officer, what another one proposed.",
    "signer": "List OCSP signers; replace one at once.",
    "root": "Use the offline root key, by explicit command.",
    "ca": "Sign with keys kept offline, elsewhere or here: CRLs, CAs of others.",
    "order": "List orders that wait for an officer; release or refuse one.",
    "validation": "Record, withdraw and list what was validated for whom.",
    "blocklist": "Make a file of keys that are refused.",
    "names": "Refresh the lists of public suffixes and top-level domains.",
    "ct": "Refresh the list of Certificate Transparency logs; compare what others saw in them.",
    "self-audit": "Draw a sample of what was issued, and lint it anew; list the samples.",
    "testsite": "Serve a valid, a revoked and an expired certificate of each root.",
    "doctor": "Say which linters, lists and logs are found, and which are missing.",
    "drill": "Stop parts of the running system, and look whether it keeps its promises.",
}


# The bases that typer's public errors have in the click it brings.
_TYPER_USAGE_ERROR: Any = typer.BadParameter.__bases__[0]


def _fail_usage(message: str, command: str) -> NoReturn:
    """A line like that of every other failure; without arguments at all, the help that click put into the message."""
    if message.lstrip().startswith("Usage:"):
        print(message, file=sys.stderr)
        raise SystemExit(2)
    fail(QuashError("usage", f"{message.rstrip('.')}; see {command} --help"))


class _Verb(click.Command):
    """Hands all arguments to typer, which brings a click of its own: ours would not catch its exits and errors."""

    def __init__(self, name: str, command: Any) -> None:
        super().__init__(name)
        self._command = command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.args = list(args)
        return ctx.args

    def invoke(self, ctx: click.Context) -> Any:
        try:
            status = self._command.main(args=ctx.args, prog_name=ctx.command_path, standalone_mode=False)
        except _TYPER_USAGE_ERROR as error:
            _fail_usage(error.format_message(), ctx.command_path)
        raise SystemExit(status if isinstance(status, int) else 0)


class LazyGroup(click.Group):
    """Lists every verb but imports only the one that is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module, attribute = VERBS[cmd_name]
        target = getattr(importlib.import_module(module), attribute)
        if isinstance(target, typer.Typer):
            command: click.Command = get_command(target)  # type: ignore[assignment,unused-ignore]
        else:
            app = typer.Typer(add_completion=False)
            app.command()(target)
            command = get_command(app)  # type: ignore[assignment,unused-ignore]
        return _Verb(cmd_name, command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(verb, HELP[verb]) for verb in VERBS])


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one verb; usage errors exit with 2, as bad input does everywhere."""
    group = LazyGroup("quash", help="Certificate revocation: OCSP, CRLs, and the CA behind them.")
    words = list(arguments) if arguments is not None else None
    try:
        status = group.main(args=words, prog_name="quash", standalone_mode=False)
    except click.UsageError as error:
        _fail_usage(error.format_message(), "quash")
    raise SystemExit(status if isinstance(status, int) else 0)


if __name__ == "__main__":
    main()
