"""Calling torch.export: its noise kept in, its errors told with the user's line."""

import sysconfig
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from aimc_compiler.errors import CaptureError

#: Warnings of torch about its own internals, or about what the normal form does away with: (message, category).
_INTERNAL_WARNINGS = (
    (r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning),
    (r"The tensor attributes? .*_flat_weights.* (was|were) assigned during export", UserWarning),
    (r"Using padding='same' with even kernel lengths", UserWarning),
)
_VARIABLE = torch.export.Dim.DYNAMIC
_FOREIGN = (str(Path(torch.__file__).parent), str(Path(__file__).parent))
_STANDARD_LIBRARY = sysconfig.get_paths()["stdlib"]


class FlatNetwork(nn.Module):
    """A network with flat inputs and outputs; ``out_spec`` says how the outputs of the last call nested.

    Flat arguments let one rule say which dimension of which input varies, however the network takes them. method: what
    is called, "forward" or another of its methods; paths of modules and parameters are the same for all.
    """

    def __init__(self, network: nn.Module, in_spec: pytree.TreeSpec, method: str = "forward") -> None:
        super().__init__()
        self.network = network
        self.in_spec = in_spec
        self.method = method
        self.out_specs: list[pytree.TreeSpec] = []
        # Not train(): that would change the modes of the network's own modules.
        self.training = network.training

    def forward(self, *leaves: Any) -> tuple[Any, ...]:
        args, kwargs = pytree.tree_unflatten(list(leaves), self.in_spec)
        # Called as a module where it can be: that runs the user's hooks.
        call = self.network if self.method == "forward" else getattr(self.network, self.method)
        nested = call(*args, **kwargs)
        outputs, spec = pytree.tree_flatten(nested)
        _check_outputs(type(self.network).__name__, nested)
        self.out_specs[:] = [spec]
        return tuple(outputs)


def _check_outputs(name: str, nested: Any) -> None:
    for path, leaf in pytree.tree_flatten_with_path(nested)[0]:
        if leaf is not None and not isinstance(leaf, torch.Tensor | int | float | bool | str | torch.SymInt):
            raise CaptureError(
                f"{name}: output {pytree.keystr(path) or '[0]'} is a {type(leaf).__name__}, which holds state instead "
                "of being a tensor: return tensors, numbers and lists, tuples or dictionaries of them (of a Hugging "
                "Face network that returns a cache: config.use_cache = False)"
            )


#: What torch.export puts before the names of a FlatNetwork's own network.
NETWORK_PREFIX = "network"


def export(network: FlatNetwork, leaves: tuple[Any, ...], dims: tuple[int | None, ...] | None) -> Any:
    """The ExportedProgram; dims: the batch dimension of each flat input, to be left variable (None: none is).

    Never with the default decompositions: layers stay whole. Raises whatever torch.export raises.
    """
    shapes = None if dims is None else {"leaves": tuple(None if dim is None else {dim: _VARIABLE} for dim in dims)}
    # Under no_grad a network's own no_grad blocks stay in the graph instead of becoming nested ones.
    with quiet(), torch.no_grad():
        return torch.export.export(network, leaves, dynamic_shapes=shapes, strict=False)


def functionalised(program: Any) -> Any:
    """The program without operations in place, layers still whole (but for batch norm)."""
    with quiet(), torch.no_grad():
        return program.run_decompositions({})


def graph_module(program: Any) -> fx.GraphModule:
    with quiet():
        module = program.module(check_guards=False)
    assert isinstance(module, fx.GraphModule)
    return module


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings that torch.export gives about itself; all others pass."""
    with warnings.catch_warnings():
        for message, category in _INTERNAL_WARNINGS:
            warnings.filterwarnings("ignore", message=message, category=category)
        yield


def capture_error(name: str, error: Exception) -> CaptureError:
    """What torch.export said, in a line, with the user's line where the traceback holds one."""
    place = _user_line(error)
    return CaptureError(
        f"{name} cannot be captured by torch.export{f' ({place})' if place else ''}: {first_line(error)}. Make forward "
        "independent of the values of tensors (no `if` on them, no .item()), and free of what torch.export refuses"
    )


def first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].rstrip('.')}" if lines else type(error).__name__


def _user_line(error: Exception) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame.filename)]
    if not frames:
        return ""
    frame = frames[-1]
    return f"{Path(frame.filename).name}:{frame.lineno} in {frame.name}, `{(frame.line or '').strip()}`"


def _is_users(file: str) -> bool:
    if file.startswith((*_FOREIGN, "<")):
        return False
    return not file.startswith(_STANDARD_LIBRARY) or "site-packages" in file
