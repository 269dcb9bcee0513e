"""Writing a file so that it is never seen half: to another name beside it, which then takes its place."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


@contextmanager
def whole_file(path: Path, partial: Path, *, durable: bool) -> Iterator[IO[bytes]]:
    """A file to write to, which takes the place of ``path`` when the block is over.

    partial: its name until then, in the same folder; durable: whether it is on the disk before it does. An OSError in
    the block or behind it removes the partial file and is raised.

    >>> with whole_file(path, path.with_suffix(".partial"), durable=True) as file:  # doctest: +SKIP
    ...     file.write(b"all or nothing")
    """
    try:
        with partial.open("wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        with suppress(OSError):
            partial.unlink()
        raise
