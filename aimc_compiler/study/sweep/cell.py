"""One cell: a chip is made, aged and scored. A task holds all that another process needs, as text."""

import dataclasses
import io
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from aimc_compiler.analog.fast import parse_precision
from aimc_compiler.chip import ChipSpec, read_spec
from aimc_compiler.compiler import CompiledModel, load
from aimc_compiler.errors import AimcError, DataError, SweepError
from aimc_compiler.executor import price_repeats
from aimc_compiler.metrics import METRICS, Metric, find_metric
from aimc_compiler.records import record
from aimc_compiler.study.bench import Bench
from aimc_compiler.study.evaluation import Corrections, score_chip
from aimc_compiler.study.recalibration import Recalibration
from aimc_compiler.study.user_code import named_function, where

_METRIC_FORMS = f"{', '.join(METRICS)}, package.module:function or file.py:function, of (outputs, targets)"


@record
class Task:
    """A cell by name. artifact, data: paths of files; chip: its spec as YAML; metric: a name or a reference."""

    cell: str
    chip_index: int
    artifact: str
    chip: str
    data: str
    metric: str
    times_s: tuple[float, ...]
    recalibration: str
    seed: int
    precision: str
    entry: str | None

    def plain(self) -> dict[str, Any]:
        """As JSON has it; ``Task.read`` reads it back."""
        return dataclasses.asdict(self)

    @classmethod
    def read(cls, fields: dict[str, Any]) -> "Task":
        """From what ``plain`` gave."""
        return cls(**{**fields, "times_s": tuple(fields["times_s"])})


def run_task(task: Task) -> dict[str, Any]:
    """values: the metric at each time; precision: how many operations were computed how; repeated: MVMs that bound
    management repeated in all scored runs, with their energy and time. Raises AimcError."""
    with one_thread():
        data = _data(task.data, _stamp(task.data))
        compiled = _artifact(task.artifact, _stamp(task.artifact)).with_chip(_chip(task.chip))
        ran = compiled.entry(task.entry)
        bench = Bench(ran, data["data"], resolve_metric(task.metric))
        chip = compiled.deploy(task.seed, chip_index=task.chip_index, precision=parse_precision(task.precision))
        corrections = Corrections(data["columns"], data["norms"])
        policy = Recalibration.parse(task.recalibration)
        values, repeated = score_chip(chip, bench, task.times_s, policy, corrections)
        repeats = price_repeats(ran.program, repeated)
    return {
        "values": values,
        "precision": dict(Counter(str(choice) for choice in chip.precision_in(ran.name).values())),
        "repeated": {"mvms": repeats.mvms, "energy_j": repeats.energy_j, "time_s": repeats.time_s},
    }


def answer(fields: dict[str, Any]) -> dict[str, Any]:
    """Run the task in ``fields``; what other processes are told: its cell and a result, or an error in words."""
    cell = fields["cell"]
    try:
        return {"cell": cell, "result": run_task(Task.read(fields))}
    except AimcError as error:
        return {"cell": cell, "error": str(error)}
    except Exception as error:
        return {"cell": cell, "error": where(error)}


def resolve_metric(name: str) -> Metric:
    """A built-in metric, or a function of the user. Raises DataError."""
    return find_metric(named_function(name, DataError, "metric", _METRIC_FORMS) if ":" in name else name)


@contextmanager
def one_thread() -> Iterator[None]:
    """Rounding in ``exact`` depends on how many threads share a product: one, wherever a cell runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def pack_data(data: dict[str, Any]) -> bytes:
    """Batches as bytes that ``unpack_data`` reads without running any code of theirs. Raises SweepError."""
    buffer = io.BytesIO()
    try:
        torch.save(data, buffer)
        unpack_data(buffer.getvalue())
    except Exception as error:
        raise SweepError(
            f"the data cannot be handed to workers: {error}. Batches may hold tensors, numbers and text, in tuples, "
            "lists and dicts"
        ) from error
    return buffer.getvalue()


def unpack_data(content: bytes) -> dict[str, Any]:
    """What ``pack_data`` packed."""
    data: dict[str, Any] = torch.load(io.BytesIO(content), weights_only=True)
    return data


def _stamp(path: str) -> tuple[int, int]:
    """Another one once the file has been written again."""
    try:
        found = Path(path).stat()
    except OSError as error:
        raise SweepError(
            f"{path} cannot be read: {error.strerror}; every worker must see the sweep's folder"
        ) from error
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=2)
def _artifact(path: str, stamp: tuple[int, int]) -> CompiledModel:
    return load(path)


@lru_cache(maxsize=1)
def _data(path: str, stamp: tuple[int, int]) -> dict[str, Any]:
    return unpack_data(Path(path).read_bytes())


@lru_cache(maxsize=4)
def _chip(text: str) -> ChipSpec:
    return read_spec(text, name="the chip of the setting")
