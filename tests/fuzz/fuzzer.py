"""The process that fuzzes: `python -m tests.fuzz.fuzzer TARGET LIBFUZZER-ARGUMENTS`. libFuzzer ends it.

Our modules are instrumented while they are imported, so nothing of ours may be imported before.
"""

from __future__ import annotations

import sys

import atheris

MODULES = ["quash.pki.ocsp_request", "quash.pki.der", "responder.serve.plain", "responder.serve.fast"]

with atheris.instrument_imports(include=MODULES):
    from tests.fuzz.targets import TARGETS

if __name__ == "__main__":
    _, target, *arguments = sys.argv
    # libFuzzer starts itself again, by a shell, with what it takes for its name.
    name = f"{sys.executable} -m tests.fuzz.fuzzer {target}"
    atheris.Setup([name, "-timeout=10", "-rss_limit_mb=2048", *arguments], TARGETS[target])
    atheris.Fuzz()
