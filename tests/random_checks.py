"""What must hold for every network: compiled on the ideal chip it gives what it gave, whole, timed and saved."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

import aimc_compiler as aimc
from aimc_compiler.compiler import CompiledModel
from aimc_compiler.errors import UnsupportedOpError
from aimc_compiler.graph.arguments import arguments
from aimc_compiler.graph.extract import Constants
from aimc_compiler.graph.ir import op_name

_DISTURBANCE = 1e-9


class Disturbed(TorchDispatchMode):
    """Every operation's floating results are off by up to ``_DISTURBANCE`` of their largest value."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if any(returned.alias_info is not None for returned in func._schema.returns):
            return result
        return pytree.tree_map(_off, result)


def _off(value: object) -> object:
    if not isinstance(value, Tensor) or value.dtype != torch.float64 or value.numel() == 0:
        return value
    finite = torch.where(value.isfinite(), value, torch.zeros_like(value))
    return value + _DISTURBANCE * finite.abs().max() * (2 * torch.rand_like(value) - 1)


def rounding_tolerances(model: nn.Module, args: tuple, kwargs: dict, expected: list[Tensor]) -> list[float]:
    """How far rounding may take each output, in float64.

    A sum of n products is off by at most n u of its largest term (Higham, "Accuracy and Stability of Numerical
    Algorithms", 2002, section 3.1; u = 2**-53), and a network of that depth hands each step's error on with a gain of
    its own. That gain is measured: with every operation off by d of its largest value the output moves by D, so sums of
    n terms may move it by (n u / d) D. n: the largest number of values of a sample, taken as 4096.
    """
    torch.manual_seed(0)
    with torch.no_grad(), Disturbed():
        moved = [leaf for leaf in pytree.tree_leaves(model(*args, **kwargs)) if isinstance(leaf, Tensor)]
    steps = 4096 * 2.0**-53 / _DISTURBANCE
    return [float((a - b).abs().max()) * steps + 1e-15 for a, b in zip(moved, expected, strict=True)]


def check_network(
    model: nn.Module,
    example: tuple[tuple, dict],
    other: tuple[tuple, dict],
    folder: Path,
    tile: tuple[int, int] = (40, 24),
) -> CompiledModel | None:
    """Compile for the ideal chip and check all properties; None where an operation is refused, in the right words.

    example, other: (args, kwargs) of two calls; compiled with the first, checked with the second.
    """
    chip = aimc.load_chip("ideal", overrides=(f"tile.rows={tile[0]}", f"tile.columns={tile[1]}"))
    try:
        compiled = aimc.compile(model, chip, example[0], example_kwargs=example[1])
    except UnsupportedOpError as error:
        for line in str(error).splitlines():
            assert " at " in line, line
            assert ".py:" in line, line
        return None
    outputs = check_outputs(model, compiled, other)
    check_cells(compiled)
    check_products(compiled)
    assert compiled.timing.latency_ticks >= 0
    loaded = aimc.load(compiled.save(folder / "network.aimc"))
    for found, wanted in zip(pytree.tree_leaves(loaded.deploy()(*other[0], **other[1])), outputs, strict=True):
        assert torch.equal(found, wanted)
    return compiled


def check_outputs(model: nn.Module, compiled: CompiledModel, call: tuple[tuple, dict]) -> list[Tensor]:
    """The ideal chip's outputs, which are the network's but for rounding."""
    args, kwargs = call
    with torch.no_grad():
        nested = model(*args, **kwargs)
    outputs = compiled.deploy()(*args, **kwargs)
    expected, spec = pytree.tree_flatten(nested)
    found, found_spec = pytree.tree_flatten(outputs)
    assert spec == found_spec
    allowed = rounding_tolerances(model, args, kwargs, expected)
    for ours, theirs, limit in zip(found, expected, allowed, strict=True):
        assert ours.shape == theirs.shape
        assert ours.dtype == theirs.dtype
        difference = float((ours - theirs).abs().max())
        assert difference <= limit, f"off by {difference:.3g}, rounding explains {limit:.3g}"
        assert limit <= 1e-6 * max(1.0, float(theirs.abs().max())), f"ill-conditioned: {limit:.3g}"
    return found


def check_products(compiled: CompiledModel) -> None:
    """No weight is left in a digital product, but for outer products."""
    root = compiled.graph.module
    constants = Constants(root)
    for node in compiled.graph.nodes:
        if node.op == "call_function" and op_name(node) in ("matmul", "mm", "bmm", "addmm", "baddbmm", "einsum", "mv"):
            values = arguments(node)
            pair = [values.get(name) for name in ("self", "other", "mat1", "mat2", "batch1", "batch2")]
            weights = [constants.find(operand) for operand in pair if operand is not None]
            assert all(found is None or 1 in found[0].shape for found in weights), node.format_node()


def check_cells(compiled: CompiledModel) -> None:
    """Every element of every matrix in exactly one cell of its tiles, and no cell with two."""
    cells: set[tuple[int, int, int]] = set()
    modules = compiled.graph.matrix_modules()
    for matrix in compiled.workload.matrices:
        pieces = compiled.mapping.pieces_of(matrix.name)
        held = torch.zeros(matrix.groups, matrix.rows, matrix.columns, dtype=torch.int64)
        for piece in pieces:
            assert piece.replica == 0
            rows = slice(piece.first_row, piece.first_row + piece.rows)
            held[piece.group, rows, piece.first_column : piece.first_column + piece.columns] += 1
            mine = {
                (piece.tile, piece.tile_row + row, piece.tile_column + column)
                for row in range(piece.rows)
                for column in range(piece.columns)
            }
            assert not cells & mine
            cells |= mine
        assert bool((held == 1).all())
        assert held.numel() == modules[matrix.name].weight.numel()
