"""Where reports are printed."""

import os

from rich.console import Console

_PIPED_WIDTH = 110


def terminal() -> Console:
    """Standard output: as wide as the terminal, or wide enough for every table where it goes to a file or a pipe."""
    console = Console(highlight=False)
    if console.is_terminal or "COLUMNS" in os.environ:
        return console
    return Console(highlight=False, width=_PIPED_WIDTH)
