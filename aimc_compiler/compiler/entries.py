"""The entries of a program as users name them: a mapping from names to examples, or one example without a name."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from aimc_compiler.errors import CalibrationError, CaptureError
from aimc_compiler.executor import find_entry
from aimc_compiler.graph import BatchDim, Entry

#: The entry of a program that was compiled for one example.
ONLY = "main"
#: Names stand on command lines and inside artifacts.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def read_entries(entries: Mapping[str, Any], batch_dim: BatchDim) -> dict[str, Entry]:
    """Every entry by name, in order. batch_dim: of those that are given as their inputs alone.

    Raises CaptureError on what is no mapping, or no name, or no example.
    """
    if not isinstance(entries, Mapping) or not entries:
        what = "empty" if isinstance(entries, Mapping) else f"a {type(entries).__name__}"
        raise CaptureError(f"entries is {what}: give a mapping from names to examples, as in {_FORM}")
    return {require_name(name): _entry(name, value, batch_dim) for name, value in entries.items()}


def is_name(name: object) -> bool:
    """Whether an entry may be called so."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def require_name(name: Any) -> str:
    """The name. Raises CaptureError where it is none."""
    if not is_name(name):
        raise CaptureError(
            f"{name!r} is no name of an entry: give letters, digits, _ and -, beginning with a letter or a digit"
        )
    return str(name)


def read_calibration(data: Any, names: Sequence[str]) -> dict[str, Iterable[Any]]:
    """Batches by entry. data: of a program of one entry also the batches themselves. Raises CalibrationError."""
    if isinstance(data, Mapping):
        if not data:
            raise CalibrationError(f"the calibration data is empty: give batches by entry ({', '.join(names)})")
        return {find_entry(names, name): batches for name, batches in data.items()}
    if len(names) > 1:
        raise CalibrationError(
            f"this program has several entries ({', '.join(names)}), and the calibration data does not say whose "
            f"inputs it holds: give a mapping from entries to batches, as in {{{names[0]!r}: batches}}"
        )
    return {names[0]: data}


def _entry(name: str, value: Any, batch_dim: BatchDim) -> Entry:
    if isinstance(value, Tensor) or not isinstance(value, Entry | tuple | list):
        raise CaptureError(
            f"entry {name!r} is a {type(value).__name__}: give the inputs of one call as a tuple, as in {_FORM}, or "
            "an aimc_compiler.Entry where it has keyword inputs, a batch dimension or a method of its own"
        )
    if not isinstance(value, Entry):
        return Entry(inputs=tuple(value), batch_dim=batch_dim)
    if not isinstance(value.inputs, tuple | list) or not isinstance(value.method, str):
        raise CaptureError(
            f"entry {name!r} has inputs {type(value.inputs).__name__} and method {value.method!r}: give a tuple of "
            "inputs, as in Entry(inputs=(x,)), and the name of a method"
        )
    if value.kwargs is not None and not isinstance(value.kwargs, Mapping):
        raise CaptureError(
            f"entry {name!r} has kwargs {type(value.kwargs).__name__}: give a mapping from names to inputs, as in "
            "Entry(kwargs={'x': x})"
        )
    if not isinstance(value.batch_dim, int | tuple | list | None):
        raise CaptureError(
            f"entry {name!r} has batch_dim {value.batch_dim!r}: give a number, a tuple of one for each input, or None"
        )
    return value


_FORM = "{'prefill': (tokens,), 'step': (token, cache)}"
