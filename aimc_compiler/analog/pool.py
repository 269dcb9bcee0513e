"""Spreading work over the threads that torch itself uses.

A second pool beside torch's would fight it for the processors: libgomp's idle threads spin for milliseconds. So the
work enters torch's own OpenMP pool through libgomp's ``GOMP_parallel``; inside, every operation of torch runs on one
thread. Where torch has no libgomp (macOS, Windows) the work is done in order by the calling thread, and operations of
torch inside it may use several.
"""

import ctypes
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import torch

T = TypeVar("T")
_Region = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def spread(work: Callable[[Iterator[T]], None], items: Sequence[T]) -> None:
    """Calls ``work`` on up to ``torch.get_num_threads()`` threads; together they take every item once.

    work: takes items from the iterator it is given until there is none. An exception of any thread is raised here.
    """
    threads = min(torch.get_num_threads(), len(items))
    parallel = _gomp_parallel() if threads > 1 else None
    if parallel is None:
        work(iter(items))
        return
    shared = _Shared(items)
    faults: list[BaseException] = []

    def region(_: Any) -> None:
        try:
            work(shared)
        except BaseException as fault:
            faults.append(fault)

    parallel(_Region(region), None, threads, 0)
    if faults:
        raise faults[0]


def spread_rows(work: Callable[[Iterator[tuple[int, int]]], None], count: int, elements: int, worth: int) -> None:
    """``spread`` over (first, last) of rows 0 to ``count``, in near-equal parts on as many threads as are worth it.

    elements: of all rows; worth: so many are worth another thread.
    """
    parts = max(1, min(torch.get_num_threads(), count, elements // worth))
    cuts = [count * k // parts for k in range(parts + 1)]
    spread(work, list(pairwise(cuts)))


class _Shared(Iterator[T]):
    """An iterator that several threads draw from."""

    def __init__(self, items: Sequence[T]) -> None:
        self._items = iter(items)
        self._lock = threading.Lock()

    def __next__(self) -> T:
        with self._lock:
            return next(self._items)


@cache
def gomp_parallel() -> int:
    """The address of ``GOMP_parallel(function, data, threads, flags)`` in torch's libgomp, 0 where it has none."""
    entry = _gomp_parallel()
    return ctypes.cast(entry, ctypes.c_void_p).value or 0 if entry else 0  # type: ignore[arg-type]


@cache
def _gomp_parallel() -> Callable[..., None] | None:
    """libgomp's entry for parallel regions, of the library that torch has loaded; None where there is none."""
    if "OpenMP" not in torch.__config__.parallel_info():
        return None
    library = next(_loaded_gomp(), None)
    if library is None:
        return None
    entry = getattr(ctypes.CDLL(library), "GOMP_parallel", None)
    if entry is None:
        return None
    entry.argtypes, entry.restype = (_Region, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint), None
    return entry  # type: ignore[no-any-return]


def _loaded_gomp() -> Iterator[str]:
    """Paths of loaded libgomp libraries, torch's own first."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return
    mapped = [line.split(maxsplit=5)[-1] for line in maps.read_text().splitlines()]
    paths = dict.fromkeys(path.strip() for path in mapped if Path(path.strip()).name.startswith("libgomp"))
    own = Path(torch.__file__).parent
    yield from sorted(paths, key=lambda path: not Path(path).is_relative_to(own))
