"""What a user names on the command line: a model, a data set."""

import difflib
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from aimc_compiler.compiler.entries import read_entries
from aimc_compiler.errors import AimcError, CaptureError, DataError, TrainingError
from aimc_compiler.graph import Entry
from aimc_compiler.study.user_code import named_function, where
from aimc_compiler.zoo import DATASETS, GENERATORS, NETWORKS

MODEL_FORMS = (
    "zoo:NAME, zoo:NAME/generate (prefill and step of a decoder), package.module:function, file.py:function, or "
    "file.pt2"
)
#: The inputs of one call, or by name those of several entries.
Examples = tuple[Any, ...] | dict[str, Entry]
TASK_FORMS = "file.py:function or package.module:function"
DATA_FORMS = "file.npz (arrays `inputs` and `labels`), package.module:function, file.py:function, or zoo:NAME"


def find_model(reference: str) -> tuple[nn.Module, Examples]:
    """(model, example inputs, or those of every entry by name) of a reference.

    Raises CaptureError that says what forms there are.
    """
    if reference.endswith(".pt2"):
        return _exported(Path(reference))
    if reference.startswith("zoo:"):
        return _zoo_network(reference.removeprefix("zoo:"))
    found = _called(reference, CaptureError, "model", MODEL_FORMS)
    if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], nn.Module)):
        raise CaptureError(
            f"{reference} must return (model, example inputs), not {type(found).__name__}: end it with "
            "`return model, (x,)`, or `return model, {'prefill': (x,), 'step': (y, cache)}` for several entries"
        )
    model, example = found
    if isinstance(example, Mapping):
        return model, read_entries(example, 0)
    return model, tuple(example) if isinstance(example, tuple | list) else (example,)


def _zoo_network(reference: str) -> tuple[nn.Module, Examples]:
    name, slash, kind = reference.partition("/")
    if slash and kind == "generate" and name in GENERATORS:
        model, calls = GENERATORS[name]()
        return model, {each: Entry(inputs=call.inputs, method=call.method) for each, call in calls.items()}
    known = [*NETWORKS, *(f"{each}/generate" for each in GENERATORS)]
    if reference not in known:
        near = difflib.get_close_matches(reference, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise CaptureError(f"the zoo has no network {reference!r}: {hint}there is {', '.join(known)}")
    return NETWORKS[name]()


def find_data(reference: str, batch: int, entry: str | None = None) -> list[tuple[Any, Any]]:
    """Batches of (inputs, targets) of a reference; entry: whose, where it holds them by entry. Raises DataError."""
    if reference.startswith("zoo:"):
        name = reference.removeprefix("zoo:")
        if name not in DATASETS:
            raise DataError(f"the zoo has no data called {name!r}: there is {', '.join(DATASETS)}")
        return list(DATASETS[name]())
    if reference.endswith(".npz"):
        arrays = _arrays(Path(reference), ("inputs", "labels"))
        return list(zip(*(torch.split(array, batch) for array in arrays), strict=True))
    return _of_entry(reference, _batches(reference), entry)


def find_inputs(reference: str, batch: int, entry: str | None = None) -> list[Any]:
    """Batches of inputs alone: as ``find_data``, but an .npz needs no labels. Raises DataError."""
    if reference.endswith(".npz") and not reference.startswith("zoo:"):
        return list(torch.split(_arrays(Path(reference), ("inputs",))[0], batch))
    return [inputs for inputs, _ in find_data(reference, batch, entry)]


def find_calibration(reference: str, batch: int, entry: str | None = None) -> list[Any] | dict[str, list[Any]]:
    """Inputs for calibration: as ``find_inputs``, by entry where an entry is named or the data names them."""
    if entry is not None:
        return {entry: find_inputs(reference, batch, entry)}
    if reference.startswith("zoo:") or reference.endswith(".npz"):
        return find_inputs(reference, batch)
    found = _batches(reference)
    if not isinstance(found, dict):
        return [inputs for inputs, _ in _pairs(reference, found)]
    return {name: [inputs for inputs, _ in _pairs(reference, batches)] for name, batches in found.items()}


def find_task(reference: str) -> Any:
    """The ``training.Task`` that a function returns. Raises TrainingError."""
    from aimc_compiler.training import Task

    found = _called(reference, TrainingError, "task", TASK_FORMS)
    if not isinstance(found, Task):
        raise TrainingError(
            f"{reference} must return an aimc_compiler.training.Task, not {type(found).__name__}: end it with `return "
            "Task(network=..., train=(x, y), validation=(x, y), optimiser=...)`"
        )
    return found


def limit_samples(batches: list[tuple[Any, Any]], most: int | None) -> list[tuple[Any, Any]]:
    """The first ``most`` samples of batches of tensors; all of them for None."""
    if most is None:
        return batches
    kept: list[tuple[Any, Any]] = []
    for inputs, targets in batches:
        if most <= 0:
            break
        if not isinstance(inputs, Tensor) or not isinstance(targets, Tensor):
            raise DataError("--limit works on data whose inputs and targets are tensors; limit it in the function")
        kept.append((inputs[:most], targets[:most]))
        most -= len(inputs)
    return kept


def _batches(reference: str) -> list[Any] | dict[str, list[Any]]:
    """What a function returns: batches, or those of several entries by name."""

    def listed(found: Any) -> list[Any] | dict[str, list[Any]]:
        if isinstance(found, Mapping):
            return {name: list(batches) for name, batches in found.items()}
        if not isinstance(found, Iterable):
            raise DataError(f"{reference} must return batches of (inputs, targets), not {type(found).__name__}")
        return list(found)

    batches: list[Any] | dict[str, list[Any]] = _called(reference, DataError, "data", DATA_FORMS, listed)
    return batches


def _of_entry(reference: str, found: list[Any] | dict[str, list[Any]], entry: str | None) -> list[tuple[Any, Any]]:
    if not isinstance(found, dict):
        return _pairs(reference, found)
    if entry not in found:
        which = "no entry is named" if entry is None else f"none of them is {entry!r}"
        raise DataError(f"{reference} holds batches of the entries {', '.join(found)}, and {which}: give --entry NAME")
    return _pairs(reference, found[entry])


def _pairs(reference: str, batches: list[Any]) -> list[tuple[Any, Any]]:
    return [_pair(reference, number, batch) for number, batch in enumerate(batches)]


def _pair(reference: str, number: int, batch: Any) -> tuple[Any, Any]:
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        shown = f"{type(batch).__name__} of {len(batch)}" if hasattr(batch, "__len__") else type(batch).__name__
        raise DataError(f"{reference}: batch {number} is a {shown}, no pair (inputs, targets): give both")
    inputs, targets = batch
    return (torch.from_numpy(inputs) if isinstance(inputs, np.ndarray) else inputs), targets


def _arrays(path: Path, names: tuple[str, ...]) -> list[Tensor]:
    """The named arrays of an .npz file, of equal length."""
    if not path.exists():
        raise DataError(f"{path} does not exist; data is {DATA_FORMS}")
    try:
        with zipfile.ZipFile(path):  # numpy reads other formats, too, under this name
            file = np.load(path, allow_pickle=False)
        with file:
            missing = [name for name in names if name not in file.files]
            if missing:
                raise DataError(f"{path} lacks {' and '.join(missing)}: it holds {', '.join(file.files) or 'nothing'}")
            arrays = [_tensor(path, name, file[name]) for name in names]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read as .npz: {error}; write it with numpy.savez") from error
    if len({len(array) for array in arrays}) > 1:
        raise DataError(f"{path}: {' but '.join(f'{len(a)} {name}' for a, name in zip(arrays, names, strict=True))}")
    if not len(arrays[0]):
        raise DataError(f"{path} holds no samples: inputs has shape {tuple(arrays[0].shape)}")
    return arrays


def _tensor(path: Path, name: str, array: np.ndarray) -> Tensor:
    if not array.ndim:
        raise DataError(f"{path}: {name} is a single number: its first dimension counts samples")
    if array.dtype.kind not in "biufc":
        raise DataError(f"{path}: {name} holds {array.dtype}, no numbers: convert it before numpy.savez")
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))


def _exported(path: Path) -> tuple[nn.Module, tuple[Any, ...]]:
    if not path.exists():
        raise CaptureError(f"{path} does not exist; a model is {MODEL_FORMS}")
    try:
        program = torch.export.load(path)
    except Exception as error:
        raise CaptureError(f"{path} is no program that torch.export.load reads: {error}") from error
    if program.example_inputs is None:
        raise CaptureError(f"{path} has no example inputs: save it with torch.export.save from torch.export.export")
    if program.example_inputs[1]:
        names = ", ".join(program.example_inputs[1])
        raise CaptureError(
            f"{path} takes keyword inputs ({names}), which the command line cannot give: use aimc.compile"
        )
    return program.module(check_guards=False), tuple(program.example_inputs[0])


def _called(
    reference: str, kind: type[AimcError], what: str, forms: str, then: Callable[[Any], Any] = lambda found: found
) -> Any:
    """``then`` of what the named function returns; what goes wrong in the user's code, with its place."""
    function = named_function(reference, kind, what, forms)
    try:
        return then(function())
    except AimcError:
        raise
    except Exception as error:
        raise kind(f"{reference} fails, called without arguments: {where(error, __file__)}") from error
