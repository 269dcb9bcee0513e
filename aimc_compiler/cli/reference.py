"""What a user names on the command line: a model, a data set."""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable
from itertools import starmap
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from aimc_compiler.errors import CaptureError, DataError
from aimc_compiler.zoo import DATASETS, NETWORKS

MODEL_FORMS = "zoo:NAME, package.module:function, file.py:function, or file.pt2"
DATA_FORMS = "file.npz (arrays `inputs` and `labels`), package.module:function, file.py:function, or zoo:NAME"


def find_model(reference: str) -> tuple[nn.Module, tuple[Any, ...]]:
    """(model, example inputs) of a reference. Raises CaptureError that says what forms there are."""
    if reference.endswith(".pt2"):
        return _exported(Path(reference))
    if reference.startswith("zoo:"):
        name = reference.removeprefix("zoo:")
        if name not in NETWORKS:
            raise CaptureError(f"the zoo has no network {name!r}: there is {', '.join(NETWORKS)}")
        return NETWORKS[name]()
    found = _function(reference, CaptureError, "model", MODEL_FORMS)()
    if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], nn.Module)):
        raise CaptureError(f"{reference} must return (model, example inputs), not {type(found).__name__}")
    model, example = found
    return model, tuple(example) if isinstance(example, tuple | list) else (example,)


def find_data(reference: str, batch: int) -> list[tuple[Any, Any]]:
    """Batches of (inputs, targets) of a reference. Raises DataError."""
    if reference.startswith("zoo:"):
        name = reference.removeprefix("zoo:")
        if name not in DATASETS:
            raise DataError(f"the zoo has no data called {name!r}: there is {', '.join(DATASETS)}")
        return list(DATASETS[name]())
    if reference.endswith(".npz"):
        return _arrays(Path(reference), batch)
    found = _function(reference, DataError, "data", DATA_FORMS)()
    if not isinstance(found, Iterable):
        raise DataError(f"{reference} must return batches of (inputs, targets), not {type(found).__name__}")
    return list(found)


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


def _arrays(path: Path, batch: int) -> list[tuple[Any, Any]]:
    if not path.exists():
        raise DataError(f"{path} does not exist; data is {DATA_FORMS}")
    with np.load(path, allow_pickle=False) as file:
        missing = [name for name in ("inputs", "labels") if name not in file.files]
        if missing:
            raise DataError(f"{path} lacks {' and '.join(missing)}: it holds {', '.join(file.files) or 'nothing'}")
        inputs, labels = torch.from_numpy(file["inputs"]), torch.from_numpy(file["labels"])
    if len(inputs) != len(labels):
        raise DataError(f"{path}: {len(inputs)} inputs but {len(labels)} labels")
    return list(zip(torch.split(inputs, batch), torch.split(labels, batch), strict=True))


def _exported(path: Path) -> tuple[nn.Module, tuple[Any, ...]]:
    if not path.exists():
        raise CaptureError(f"{path} does not exist; a model is {MODEL_FORMS}")
    try:
        program = torch.export.load(path)
    except Exception as error:
        raise CaptureError(f"{path} is no program that torch.export.load reads: {error}") from error
    if program.example_inputs is None:
        raise CaptureError(f"{path} has no example inputs: save it with torch.export.save from torch.export.export")
    return program.module(check_guards=False), tuple(program.example_inputs[0])


def _function(reference: str, kind: type[Exception], what: str, forms: str) -> Callable[[], Any]:
    place, colon, name = reference.rpartition(":")
    if not colon or not place or not name:
        raise kind(f"{reference!r} names no {what}: write {forms}")
    try:
        module = _load_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except (ImportError, FileNotFoundError) as error:
        raise kind(f"{reference!r}: {place} cannot be imported: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        there = ", ".join(key for key, value in vars(module).items() if callable(value) and not key.startswith("_"))
        raise kind(f"{reference!r}: {place} has no function {name!r}; it has {there or 'none'}")
    return function  # type: ignore[no-any-return]


def _load_file(path: Path) -> Any:
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    sys.path.insert(0, str(path.parent.resolve()))  # so that the file finds its neighbours
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


def inputs_of(batches: list[tuple[Any, Any]]) -> list[Any]:
    """The inputs of (inputs, targets) batches."""
    return list(starmap(lambda inputs, targets: inputs, batches))
