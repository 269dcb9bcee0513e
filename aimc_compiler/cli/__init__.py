"""The command line, ``aimc``: thin over the public functions."""

import os
import sys

from aimc_compiler.errors import AimcError

# Threads that wait by spinning slow a shared machine, and themselves, many times over; read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def main() -> None:
    """Entry point: user errors go to standard error without a traceback, with exit code 2."""
    from aimc_compiler.cli.app import app

    try:
        app()
    except AimcError as error:
        print(f"aimc: {error}", file=sys.stderr)  # noqa: T201
        raise SystemExit(2) from None
