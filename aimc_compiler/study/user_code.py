"""Functions of the user, named as ``package.module:function`` or ``file.py:function``."""

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aimc_compiler.errors import AimcError


def named_function(reference: str, kind: type[AimcError], what: str, forms: str) -> Callable[..., Any]:
    """The function of a reference. kind: the error that says what is wrong; what: it names ("model"); forms: others.

    Raises ``kind`` on a reference of another form, a module that cannot be imported, a function that is not there.
    """
    place, colon, name = reference.rpartition(":")
    if not colon or not place or not name:
        raise kind(f"{reference!r} names no {what}: write {forms}")
    try:
        module = _load_file(Path(place)) if place.endswith(".py") else _import(place)
    except Exception as error:
        raise kind(f"{reference!r}: {place} cannot be imported: {where(error)}") from error
    found = getattr(module, name, None)
    if found is None:
        raise kind(f"{reference!r}: {place} has no function {name!r}; it has {_functions(module)}")
    if not callable(found):
        raise kind(f"{reference!r}: {name} is a {type(found).__name__}, no function: give one that returns it")
    function: Callable[..., Any] = found
    return function


def where(error: Exception, *ours: str) -> str:
    """The error in one line, with the line of code that raised it. ours: files that are not the user's."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError | FileNotFoundError):
        return text
    passed = (__file__, importlib.__file__, *ours)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename not in passed and not frame.filename.startswith("<") and "site-packages" not in frame.filename
    ]
    return text if not frames else f"{text} ({frames[-1].filename}:{frames[-1].lineno})"


def _import(name: str) -> Any:
    sys.path.insert(0, str(Path.cwd()))  # as `python -m` does
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


def _functions(module: Any) -> str:
    """Functions that the module itself defines, else all that it has."""
    found = {key: value for key, value in vars(module).items() if callable(value) and not key.startswith("_")}
    own = [key for key, value in found.items() if getattr(value, "__module__", None) == module.__name__]
    return ", ".join(own or found) or "none"


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
