"""aimc_compiler: a compiler and a virtual chip for analog in-memory computing.

    import aimc_compiler as aimc
    compiled = aimc.compile(model, aimc.load_chip("hermes"), example_inputs=(x,), calibration=batches)
    print(compiled.utilization, compiled.timing)
    y = compiled.deploy(seed=0)(x, time_s=3600.0)
    result = aimc.evaluate(compiled, data)

The names below are imported on first use, so that ``import aimc_compiler`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from aimc_compiler.version import __version__

if TYPE_CHECKING:
    from aimc_compiler.chip import ChipSpec, load_chip
    from aimc_compiler.compiler import CompiledModel, compile, load  # noqa: A004
    from aimc_compiler.executor import Device
    from aimc_compiler.graph import Entry
    from aimc_compiler.study import compare, evaluate, sensitivity
    from aimc_compiler.training import Recipe, on_chip, prepare_hwa

_PLACES = {
    "ChipSpec": "chip",
    "load_chip": "chip",
    "CompiledModel": "compiler",
    "compile": "compiler",
    "load": "compiler",
    "Device": "executor",
    "Entry": "graph",
    "compare": "study",
    "evaluate": "study",
    "Recipe": "training",
    "on_chip": "training",
    "prepare_hwa": "training",
    "sensitivity": "study",
}

__all__ = [
    "ChipSpec",
    "CompiledModel",
    "Device",
    "Entry",
    "Recipe",
    "__version__",
    "compare",
    "compile",
    "evaluate",
    "load",
    "load_chip",
    "on_chip",
    "prepare_hwa",
    "sensitivity",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'aimc_compiler' has no attribute {name!r}")
    return getattr(import_module(f"aimc_compiler.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
