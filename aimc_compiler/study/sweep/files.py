"""Files that are whole or not there: written under another name, synced, renamed, with a checksum of their content."""

import hashlib
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aimc_compiler.errors import MissingDependencyError, SweepError
from aimc_compiler.files import whole_file

_SUM = "sha256"
_TEMPORARY = ".tmp"


def digest(value: Any) -> str:
    """SHA-256 of a value as JSON, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()


def write_whole(path: Path, content: bytes) -> None:
    """The file holds all of ``content`` or what it held before, even after a loss of power. Raises SweepError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_TEMPORARY}")
    try:
        with whole_file(path, temporary, durable=True) as file:
            file.write(content)
        _sync_folder(path.parent)
    except OSError as error:
        raise SweepError(f"{path} cannot be written: {error.strerror}; make room, or give another folder") from error


def remove_unfinished(folder: Path) -> None:
    """Remove what a killed process was writing."""
    for path in folder.glob(f".*{_TEMPORARY}"):
        path.unlink(missing_ok=True)


def write_checked(path: Path, data: dict[str, Any]) -> None:
    """A JSON object with its checksum; the same data gives the same bytes. Raises SweepError."""
    text = json.dumps({**data, _SUM: digest(data)}, indent=1, sort_keys=True, allow_nan=False)
    write_whole(path, f"{text}\n".encode())


def read_checked(path: Path) -> dict[str, Any]:
    """What ``write_checked`` wrote. Raises SweepError that says what is wrong with the file."""
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise SweepError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SweepError(f"{path} is damaged: it is no whole JSON text ({error})") from error
    if not isinstance(data, dict) or data.pop(_SUM, None) != digest(data):
        raise SweepError(f"{path} is damaged: its content does not match its checksum")
    return data


@contextmanager
def locked(path: Path) -> Iterator[str]:
    """Hold ``path`` as a lock of this process; gives who held it before and did not let go, "" where nobody.

    The system lets go of the lock of a process that ends in any way. The file stays, empty, since removing it would
    let two others hold it at once. Raises SweepError where another process holds it, or where another machine's name
    stands in it, of which this one cannot tell whether it still runs.
    """
    try:
        import fcntl
    except ImportError as error:
        raise MissingDependencyError(
            "a sweep locks its folder by fcntl, which this system has not: use Linux"
        ) from error
    with path.open("a+") as file:
        file.seek(0)
        before = file.read().strip()
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SweepError(
                f"{path.parent} is in use: {before or 'another process'} runs this sweep. Wait for it, end it, or give "
                "another folder (--out)"
            ) from None
        file.seek(0)
        before = file.read().strip()
        if before and before.partition(" on ")[2].partition(",")[0] != socket.gethostname():
            raise SweepError(
                f"{path.parent} was taken by {before}, another machine, and not given back. If that no longer runs, "
                f"remove {path} and start again"
            )
        file.truncate(0)
        file.write(_owner())
        file.flush()
        try:
            yield before
        finally:
            file.truncate(0)


def _owner() -> str:
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
    return f"process {os.getpid()} on {socket.gethostname()}, since {now} UTC\n"


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
