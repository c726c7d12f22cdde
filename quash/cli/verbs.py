"""Verbs that ask the admin API share their options: `--config`, `--state`, `--set` and `--as`, which name it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from inspect import Parameter
from typing import Any, Final, TypeVar, get_type_hints

from quash.cli.client import DEFAULT_OPERATOR, Api, AsOption
from quash.cli.common import (
    DEFAULT_CONFIG,
    DEFAULT_STATE,
    ConfigOption,
    SetOption,
    StateOption,
    context,
    reports_errors,
)

R = TypeVar("R")

# Name, annotation, default. `as_` has the default of its verb.
_SHARED: Final[tuple[tuple[str, Any, Any], ...]] = (
    ("config", ConfigOption, DEFAULT_CONFIG),
    ("state", StateOption, DEFAULT_STATE),
    ("set_", SetOption, None),
    ("as_", AsOption, None),
)


def asks_admin(operator: str = DEFAULT_OPERATOR) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Makes a verb of a function whose first parameter is the admin API, asked as `operator` unless --as names another.

    Errors are said as every verb says them.
    """

    def made(verb: Callable[..., R]) -> Callable[..., R]:
        @functools.wraps(verb)
        def run(**options: Any) -> R:
            config, state, set_, as_ = (options.pop(name) for name, _, _ in _SHARED)
            deployment = context(config, state, set_)
            return verb(Api(deployment, deployment.config.admin, as_), **options)

        parameters = _parameters(verb, operator)
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return reports_errors(run)

    return made


def _parameters(verb: Callable[..., Any], operator: str) -> list[Parameter]:
    """Those of the verb, as typer reads them, without the API; then the shared ones."""
    hints = get_type_hints(verb, include_extras=True)
    own = list(inspect.signature(verb).parameters.values())[1:]
    shared = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=operator if name == "as_" else default, annotation=annotation)
        for name, annotation, default in _SHARED
    ]
    return [each.replace(annotation=hints[each.name]) for each in own] + shared
