"""The folder of a sweep: its definition, what was prepared, a file a cell, the results.

sweep.json       the definition, compared with that of every later run
lock             who runs it
data.pt          the batches, as they were when the sweep began
reference.json   the float network on them, and digests of weights and calibration data
programs/        the compiled network, once for chips that differ in nothing that compiling or calibrating reads
cells/           a checked file for each finished cell
results.json, results.csv
"""

import hashlib
import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from aimc_compiler.errors import SweepError
from aimc_compiler.study.sweep.definition import Cell, Sweep
from aimc_compiler.study.sweep.files import digest, read_checked, remove_unfinished, write_checked
from aimc_compiler.version import __version__

_SHOWN = 8


class SweepFolder:
    """Paths and checked files of one sweep. Raises SweepError where the folder cannot be made."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock, self.data = path / "lock", path / "data.pt"
        self.reference, self.programs = path / "reference.json", path / "programs"
        self._definition, self._cells = path / "sweep.json", path / "cells"
        self._digest = ""

    def make(self) -> None:
        """Make the folder and those in it."""
        try:
            for folder in (self.path, self.programs, self._cells):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SweepError(f"{self.path} cannot be made: {error.strerror}; give another folder (--out)") from error

    def open(self, sweep: Sweep, *, write: bool = True) -> None:
        """Compare the definition with the one that the folder holds; where it holds none, write it.

        Raises SweepError that says what differs.
        """
        mine = definition_of(sweep)
        if self._definition.exists():
            held = read_checked(self._definition)
            differences = _differences(held, mine)
            if differences:
                raise SweepError(
                    f"{self.path} holds another sweep, so its cells are of no use here. What differs: "
                    f"{'; '.join(differences)}. Restore that, or give another folder (--out)"
                )
        elif write:
            write_checked(self._definition, mine)
        self._digest = digest(mine)
        if write:
            for folder in (self.path, self.programs, self._cells):
                remove_unfinished(folder)

    def read_cells(
        self, cells: Iterable[Cell], reference: dict[str, Any] | None = None
    ) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
        """(results of finished cells by name, what is wrong with those whose files are damaged). reference: what they
        must rest on, where it is known: it may have been made again from other weights or data."""
        results: dict[str, dict[str, Any]] = {}
        damaged: dict[str, str] = {}
        for cell in cells:
            path = self.cell_path(cell.name)
            if not path.exists():
                continue
            try:
                held = read_checked(path)
                if held.get("cell") != cell.name or held.get("sweep") != self._digest:
                    raise SweepError(f"{path} is of another cell or sweep")
                if reference is not None and held.get("reference") != digest(reference):
                    raise SweepError(f"{path} rests on other weights or data than there are now")
                results[cell.name] = held["result"]
            except SweepError as error:
                damaged[cell.name] = str(error)
        return results, damaged

    def write_cell(self, name: str, result: dict[str, Any], reference: dict[str, Any]) -> None:
        """A finished cell, and what it rests on."""
        content = {"cell": name, "sweep": self._digest, "reference": digest(reference), "result": result}
        write_checked(self.cell_path(name), content)

    def cell_path(self, name: str) -> Path:
        """The file of a cell."""
        return self._cells / f"{name}.json"


def definition_of(sweep: Sweep) -> dict[str, Any]:
    """All that results depend on: the sweep, the files that it names, the versions that compute it."""
    references = (sweep.network, sweep.calibration, sweep.data, sweep.metric, sweep.columns, sweep.norms)
    files = {reference: _file_digest(reference) for reference in references if reference is not None}
    return {
        **sweep.plain(),
        "files": {reference: found for reference, found in files.items() if found},
        "versions": {
            "aimc_compiler": __version__,
            **{name: str(importlib.import_module(name).__version__) for name in ("torch", "numpy")},
        },
    }


def _file_digest(reference: str) -> str:
    """Of the file that a reference names, "" where it names none."""
    place = Path(reference.rpartition(":")[0] if ".py:" in reference else reference)
    try:
        return hashlib.sha256(place.read_bytes()).hexdigest()[:16] if place.is_file() else ""
    except OSError as error:
        raise SweepError(f"{place} cannot be read: {error.strerror}") from error


def _differences(held: Any, mine: Any) -> list[str]:
    """The first leaves that differ, with both values."""
    ours, theirs = dict(_leaves(mine, "")), dict(_leaves(held, ""))
    paths = [path for path in theirs | ours if ours.get(path) != theirs.get(path)]
    shown = [f"{path} was {theirs.get(path, 'not given')}, is {ours.get(path, 'not given')}" for path in paths[:_SHOWN]]
    return shown + ([f"and {len(paths) - _SHOWN} more"] if len(paths) > _SHOWN else [])


def _leaves(value: Any, path: str) -> Iterable[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and value and isinstance(value[0], dict | list):
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[{index}]")
    else:
        yield path, "nothing" if value is None else str(value)


def tensors_digest(values: Iterable[Any]) -> str:
    """SHA-256 of tensors, their types and shapes; of anything else, its text."""
    total = hashlib.sha256()
    for value in values:
        if not isinstance(value, torch.Tensor):
            total.update(repr(value).encode())
            continue
        total.update(f"{value.dtype} {tuple(value.shape)}".encode())
        flat = value.detach().cpu().contiguous().reshape(-1)
        total.update(flat.view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
