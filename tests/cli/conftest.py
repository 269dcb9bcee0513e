"""The command line, as a user runs it."""

from pathlib import Path
from typing import Any

import pytest

from aimc_compiler.cli import main


@pytest.fixture
def columns() -> int:
    """Of the terminal."""
    return 120


@pytest.fixture
def aimc_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path, columns: int
) -> Any:
    """Runs `aimc ARGS` in the folder that a test module's fixture of that name fills; gives (exit code, standard
    output, standard error)."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", str(columns))
    capsys.readouterr()  # what filling the folder printed

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["aimc", *arguments])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
