"""`compare`: where along the network the chip's values leave those of the float network, operation by operation.

The signal-to-noise ratio of an operation is ``10 log10(sum y_float^2 / sum (y_chip - y_float)^2)`` in dB, over all
samples, elements and chips: once with what arrives on the chip (accumulated), once with the float network's input, for
operations on tiles (own).
"""

import math
import statistics
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, fx

from aimc_compiler.analog.fast import Precision
from aimc_compiler.chip.costs import FREE
from aimc_compiler.compiler import CompiledModel
from aimc_compiler.errors import DataError
from aimc_compiler.executor import CompiledEntry, Device, as_call
from aimc_compiler.graph import OP_COSTS, MatrixModule
from aimc_compiler.graph.check_ops import run_time_operations
from aimc_compiler.graph.ir import matrix_name, op_name
from aimc_compiler.graph.origin import Origin, read_origin
from aimc_compiler.records import record
from aimc_compiler.study.recalibration import Recalibration
from aimc_compiler.study.times import require_times

THRESHOLD_DB = 10.0


@record
class OpComparison:
    """One operation. kind: "conv2d", "relu"; tiles: 0 where it is digital; view: whether it only renames or moves what
    another has made; output: of the network; snr_db: accumulated, infinite where no bit differs, None where ``note``
    says why there is none; own_db: the same of the operation alone, None where it is digital; spread_db: standard
    deviation of snr_db over chips, None for one chip or where it is not finite."""

    name: str
    kind: str
    analog: bool
    tiles: int
    view: bool
    output: bool
    origin: Origin
    snr_db: float | None
    own_db: float | None
    spread_db: float | None
    note: str


@record
class Comparison:
    """Operations in execution order; threshold_db: below it an operation counts as broken."""

    network: str
    chip: str
    time_s: float
    n_samples: int
    n_chips: int
    seed: int
    recalibration: str
    threshold_db: float
    ops: tuple[OpComparison, ...]

    @property
    def first_break(self) -> OpComparison | None:
        """The first operation whose accumulated ratio is below the threshold."""
        return next((op for op in self.ops if op.snr_db is not None and op.snr_db < self.threshold_db), None)

    @property
    def weakest(self) -> OpComparison | None:
        """The operation on tiles with the least ratio of its own."""
        own = [op for op in self.ops if op.own_db is not None]
        return min(own, key=lambda op: op.own_db if op.own_db is not None else math.inf, default=None)


def compare(
    compiled: CompiledModel,
    data: Iterable[Any],
    time_s: float = 86_400.0,
    n_chips: int = 1,
    seed: int = 0,
    *,
    threshold_db: float = THRESHOLD_DB,
    recalibration: str | Recalibration = "always",
    precision: Precision = "auto",
    entry: str | None = None,
) -> Comparison:
    """Run the float network and programmed chips on the same samples, side by side.

    data: batches of inputs alone, as for ``calibrate``; of each batch only sums are kept. time_s: seconds after
    programming; recalibration, precision, entry: as for ``evaluate``. Raises DataError on data that does not run and on
    figures out of range, CalibrationError without input ranges.

    Example:
        >>> compare(compiled, images.split(100)).first_break.name  # doctest: +SKIP
        'stages.2.second.0'
    """
    (time_s,) = require_times((time_s,))
    batches = list(data)
    if n_chips < 1 or not batches or not math.isfinite(threshold_db):
        raise DataError(
            f"comparing takes at least one chip, one batch of inputs and a finite threshold, not {n_chips} chips, "
            f"{len(batches)} batches and {threshold_db} dB"
        )
    policy = Recalibration.of(recalibration)
    ran = compiled.entry(entry)
    operations = run_time_operations(ran.graph.module.graph)
    sums = {node.name: _Sums() for node in operations if op_name(node) != "getitem"}
    count = 0
    for chip_index in range(n_chips):
        chip = compiled.deploy(seed, chip_index=chip_index, precision=precision)
        chip.recalibrate(policy.last_s(time_s))
        for each in sums.values():
            each.begin()
        count = _run(chip, batches, time_s, sums, ran.name)
    return Comparison(
        network=ran.workload.name,
        chip=compiled.chip.name,
        time_s=time_s,
        n_samples=count,
        n_chips=n_chips,
        seed=seed,
        recalibration=str(policy),
        threshold_db=float(threshold_db),
        ops=_rows(ran, [node for node in operations if node.name in sums], sums),
    )


class _Sums:
    """Sums over the elements of one operation's results, of each chip."""

    def __init__(self) -> None:
        self.signal: list[float] = []
        self.error: list[float] = []
        self.own: list[float] = []
        self.types: dict[str, None] = {}
        self.compared = self.elements = self.not_finite = 0

    def begin(self) -> None:
        """The next chip."""
        for sums in (self.signal, self.error, self.own):
            sums.append(0.0)

    def add(self, plain: Any, chip: Any, own: Any) -> None:
        """Results of a batch: tensors, or tuples of them."""
        if isinstance(plain, tuple | list):
            for number, one in enumerate(plain):
                self.add(one, chip[number], None if own is None else own[number])
            return
        if not isinstance(plain, Tensor) or not (plain.is_floating_point() or plain.is_complex()):
            self.types[str(getattr(plain, "dtype", type(plain).__name__)).removeprefix("torch.")] = None
            return
        finite = plain.isfinite()
        self.compared += 1
        self.elements += plain.numel()
        self.not_finite += plain.numel() - int(finite.sum())
        self.signal[-1] += _energy(torch.where(finite, plain, torch.zeros_like(plain)))
        self.error[-1] += _distance(plain, chip, finite)
        if own is not None:
            self.own[-1] += _distance(plain, own, finite)

    @property
    def note(self) -> str:
        """What is not compared, and why; "" where all is."""
        types = ", ".join(self.types)
        if not self.compared:
            return f"{types} values have no signal-to-noise ratio" if types else "no results"
        if not sum(self.signal):
            return "the float values are all zero"
        parts = [f"results of {types} are left out"] if types else []
        if self.not_finite:
            parts.append(f"{100 * self.not_finite / self.elements:.3g} % of the float values are not finite: left out")
        return "; ".join(parts)


def _distance(plain: Tensor, other: Tensor, finite: Tensor) -> float:
    """Squared distance; where the float values are not finite, nothing if the others are the same, else infinite."""
    if plain is other:
        return 0.0
    same = finite | (plain == other) | (plain.isnan() & other.isnan())
    if not bool(same.all()):
        return math.inf
    return _energy(torch.where(finite, other - plain, torch.zeros_like(plain)))


def _energy(values: Tensor) -> float:
    """The sum of squares, in double precision; infinite where it is no number."""
    values = torch.view_as_real(values) if values.is_complex() else values
    found = float(torch.linalg.vector_norm(values, dtype=torch.float64)) ** 2 if values.numel() else 0.0
    return math.inf if math.isnan(found) else found


def _run(chip: Device, batches: list[Any], time_s: float, sums: dict[str, _Sums], entry: str) -> int:
    """Add every batch to the sums; the number of samples."""

    def visit(node: fx.Node, plain: Any, on_chip: Any, own: Any) -> None:
        if node.name in sums:
            sums[node.name].add(plain, on_chip, own)

    for number, batch in enumerate(batches):
        args, kwargs = as_call(batch)
        try:
            chip.beside(visit, *args, time_s=time_s, entry=entry, **kwargs)
        except (TypeError, ValueError, RuntimeError, DataError) as error:
            raise DataError(
                f"batch {number} cannot be compared: {error}. Each batch must be the network's inputs alone (a tensor, "
                "a tuple or a dict), without labels: (x for x, _ in loader)"
            ) from error
    return chip.samples


def _rows(ran: CompiledEntry, nodes: list[fx.Node], sums: dict[str, _Sums]) -> tuple[OpComparison, ...]:
    modules = ran.graph.matrix_modules()
    pieces = {op.name: len(ran.mapping.pieces_of(op.matrix)) for op in ran.workload.analog_ops}
    returned = _returned(ran.graph.module.graph)
    rows = []
    for node in nodes:
        found, origin = sums[node.name], read_origin(node)
        matrix = matrix_name(node) if node.op == "call_module" else ""
        names = ran.graph.held(node) if matrix else {}  # of a loop, those of all its matrices
        cost = OP_COSTS.get(op_name(node))
        shown = bool(found.compared and sum(found.signal))
        rows.append(
            OpComparison(
                name=matrix or f"{origin.path}/{node.name}".removeprefix("/"),
                kind=_kind(modules, matrix) if matrix else op_name(node),
                analog=any(name in pieces for name in names),
                tiles=sum(pieces.get(name, 0) for name in names),
                view=not matrix and cost is not None and cost.cost_class == FREE,
                output=node in returned,
                origin=origin,
                snr_db=_decibels(sum(found.signal), sum(found.error)) if shown else None,
                own_db=_decibels(sum(found.signal), sum(found.own)) if shown and matrix in pieces else None,
                spread_db=_spread(found) if shown else None,
                note=found.note,
            )
        )
    return tuple(rows)


def _kind(modules: dict[str, MatrixModule], name: str) -> str:
    return modules[name].kind if name in modules else "recurrent"


def _returned(graph: fx.Graph) -> frozenset[fx.Node]:
    """Operations whose results the network returns, seen through the choice of one of several."""
    outputs = next(iter(graph.find_nodes(op="output"))).all_input_nodes
    makers = (node.all_input_nodes[0] if op_name(node) == "getitem" else node for node in outputs)
    return frozenset(makers)


def _decibels(signal: float, error: float) -> float:
    if error == 0:
        return math.inf
    return -math.inf if error == math.inf else 10 * math.log10(signal / error)


def _spread(found: _Sums) -> float | None:
    each = [_decibels(s, e) if s else math.nan for s, e in zip(found.signal, found.error, strict=True)]
    return statistics.stdev(each) if len(each) > 1 and all(map(math.isfinite, each)) else None
