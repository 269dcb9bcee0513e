"""Which layers and which columns deserve protection: what is gained where they are exempt from the chip's effects.

A layer is one matrix: exempt alone, and alone on the chip. A column is one output of an operation; there are too many
to exempt each, so they are ranked by what their errors change the loss, first order: with e the error of the output on
the chip and g the gradient of the loss in the floating-point network, both of one sample and one window, the mean over
samples and chips of ``(sum over windows of g e)^2``. The first of them are then exempt to check the ranking, beside as
many drawn by chance. Chips that rank are not among those that are scored.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from aimc_compiler.errors import DataError
from aimc_compiler.executor import CompiledEntry, Device, as_call
from aimc_compiler.executor.exempt import Exempt
from aimc_compiler.graph import MatrixModule
from aimc_compiler.graph.ir import matrix_name
from aimc_compiler.graph.recurrent import RecurrentModule
from aimc_compiler.rng import stream_key, uniforms
from aimc_compiler.study.chip_scores import ChipScores
from aimc_compiler.study.confidence import Bootstrap
from aimc_compiler.study.sensitivity_results import ColumnSensitivity, ColumnShare, LayerSensitivity, ProtectedPoint

Loss = Callable[[Any, Any], Tensor]
#: Shares of all columns that are exempt.
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
#: Chips whose errors rank the columns.
RANKING_CHIPS = 4
_TOP = 20
_MOST_POINTS = 12


def cross_entropy(outputs: Any, targets: Any) -> Tensor:
    """The summed loss of a batch of logits (n, classes) against class indices (n,)."""
    return nn.functional.cross_entropy(outputs, targets.to(torch.int64), reduction="sum")


def rank_layers(
    scores: ChipScores, ran: CompiledEntry, own: tuple[float, ...], bootstrap: Bootstrap
) -> tuple[LayerSensitivity, ...]:
    """Every matrix on tiles, the most sensitive first."""
    layers = _layers(ran)
    every = {name: None for names in layers.values() for name in names}
    choices: list[Exempt] = [dict.fromkeys(names) for names in layers.values()]
    choices += [{name: None for name in every if name not in names} for names in layers.values()]
    found = scores.exempting(choices)
    modules = ran.graph.matrix_modules()
    rows = []
    for place, (matrix, names) in enumerate(layers.items()):
        exempt, alone = found[place], found[place + len(layers)]
        rows.append(
            LayerSensitivity(
                matrix=matrix,
                operations=names,
                parameters=modules[names[0]].weight.numel(),
                gain=bootstrap.estimate([one - other for one, other in zip(exempt, own, strict=True)]),
                alone=bootstrap.estimate([scores.float_a_star - value for value in alone]),
            )
        )
    return tuple(sorted(rows, key=lambda row: (-round(row.gain.mean, 9), row.parameters)))


def protect_layers(
    scores: ChipScores, layers: Sequence[LayerSensitivity], target: float, bootstrap: Bootstrap
) -> tuple[ProtectedPoint, ...]:
    """The most sensitive layers exempt, one more at each point, until A* reaches ``target``."""
    total = sum(layer.parameters for layer in layers)
    points = []
    for count in _counts(len(layers)):
        exempt = {name: None for layer in layers[:count] for name in layer.operations}
        estimate = bootstrap.estimate(scores.exempting([exempt])[0])
        share = sum(layer.parameters for layer in layers[:count]) / total
        points.append(ProtectedPoint(count=count, parameters=share, a_star=estimate))
        if estimate.mean >= target:
            break
    return tuple(points)


def _layers(ran: CompiledEntry) -> dict[str, tuple[str, ...]]:
    """Operations of each matrix on tiles, in execution order."""
    found: dict[str, tuple[str, ...]] = {}
    for op in ran.workload.analog_ops:
        found[op.matrix] = (*found.get(op.matrix, ()), op.name)
    return found


def _counts(most: int) -> list[int]:
    """1, 2, 3, ... up to ``most``; of many, fewer and fewer."""
    if most <= _MOST_POINTS:
        return list(range(1, most + 1))
    return sorted({round(most ** (step / _MOST_POINTS)) for step in range(_MOST_POINTS + 1)})


def rank_columns(
    scores: ChipScores,
    ran: CompiledEntry,
    batches: Sequence[tuple[Any, Any]],
    loss: Loss,
    bootstrap: Bootstrap,
    shares: Sequence[float] = SHARES,
) -> ColumnSensitivity:
    """Outputs ranked, and A* with the first of them exempt. Raises DataError where the loss gives no gradient."""
    modules = {op.name: ran.graph.matrix_modules()[op.name] for op in ran.workload.analog_ops}
    loops = {name for node in ran.graph.nodes if node.op == "call_module" for name in _of_loop(ran, node)}
    ranked = {name: module for name, module in modules.items() if name not in loops}
    if not ranked:
        raise DataError("no operation on tiles stands outside a recurrent loop, so no column has a gradient to rank by")
    changes = _Changes(ran, ranked, loss)
    for index in range(scores.n_chips, scores.n_chips + RANKING_CHIPS):
        device = scores.deployed(index)
        for number, (inputs, targets) in enumerate(batches):
            changes.add(device, scores.time_s, inputs, targets, number)
    places = [(name, index) for name, found in changes.sums.items() for index in range(len(found))]
    values = torch.cat(list(changes.sums.values()))
    order = torch.argsort(values, descending=True, stable=True).tolist()
    drawn = uniforms(stream_key(scores.seed, "sensitivity", "columns"), len(places)).argsort().tolist()
    counts = sorted({max(1, round(share * len(places))) for share in shares})
    total = float(values.sum()) or 1.0

    def exempt(picked: Sequence[int]) -> list[ProtectedPoint]:
        chosen = [_by_operation([places[index] for index in picked[:count]]) for count in counts]
        every = sum(module.weight.numel() for module in modules.values())
        held = [sum(len(outputs) * modules[name].rows for name, outputs in each.items()) / every for each in chosen]
        return [
            ProtectedPoint(count=count, parameters=share, a_star=bootstrap.estimate(found))
            for count, share, found in zip(counts, held, scores.exempting(chosen), strict=True)
        ]

    return ColumnSensitivity(
        columns=len(places),
        top=tuple(
            ColumnShare(operation=places[index][0], output=places[index][1], share=float(values[index]) / total)
            for index in order[:_TOP]
        ),
        protected=tuple(exempt(order)),
        random=tuple(exempt(drawn)),
        left_out=tuple(name for name in modules if name in loops),
    )


def _of_loop(ran: CompiledEntry, node: fx.Node) -> tuple[str, ...]:
    called = ran.graph.called(node)
    return tuple(ran.graph.held(node)) if isinstance(called, RecurrentModule) else ()


def _by_operation(places: Sequence[tuple[str, int]]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for name, index in places:
        found.setdefault(name, []).append(index)
    return found


class _Changes:
    """Squared first-order changes of the loss by the errors of each output, summed; (outputs,) of each operation."""

    def __init__(self, ran: CompiledEntry, modules: Mapping[str, MatrixModule], loss: Loss) -> None:
        self._ran, self._loss, self._modules = ran, loss, modules
        self._taps = {name: _Tap(module) for name, module in modules.items()}
        self._graph = ran.graph.with_modules(dict(self._taps))
        self.sums = {name: torch.zeros(module.weight.shape[0], dtype=torch.float64) for name, module in modules.items()}

    def add(self, device: Device, time_s: float, inputs: Any, targets: Any, number: int) -> None:
        """One batch on one chip."""
        args, kwargs = as_call(inputs)
        with torch.enable_grad():
            try:
                value = self._loss(self._graph(*args, **kwargs), targets)
                value.backward()  # type: ignore[no-untyped-call]
            except (TypeError, ValueError, RuntimeError, AttributeError) as error:
                raise DataError(
                    f"the loss of batch {number} gives no gradient: {error}. Give loss=lambda outputs, targets: ..., a "
                    "tensor of one number, higher where it is worse, or leave the columns out"
                ) from error

        def visit(node: fx.Node, plain: Any, on_chip: Any, own: Any) -> None:
            name = matrix_name(node) if node.op == "call_module" else ""
            if name in self._taps and own is not None:
                self._add(name, own - plain)

        device.beside(visit, *args, time_s=time_s, entry=self._ran.name, **kwargs)

    def _add(self, name: str, error: Tensor) -> None:
        gradient = self._taps[name].gradient
        if gradient is None:  # the loss does not depend on it
            return
        axis = error.dim() - 1 - self._modules[name].spatial
        change = (gradient * error).movedim(axis, -1)
        per_sample = change.reshape(change.shape[0], -1, change.shape[-1]) if change.dim() > 1 else change[None, None]
        self.sums[name] += per_sample.double().sum(dim=1).square().sum(dim=0).cpu()


class _Tap(nn.Module):
    """An operation in floating point whose output can be asked for the gradient of the loss."""

    def __init__(self, module: MatrixModule) -> None:
        super().__init__()
        self.module = module
        self._added: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.module(x)
        self._added = torch.zeros_like(y, requires_grad=True)
        return y + self._added

    @property
    def gradient(self) -> Tensor | None:
        """Of the last output."""
        return None if self._added is None else self._added.grad
