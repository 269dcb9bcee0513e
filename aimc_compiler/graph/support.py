"""`support_of`: what of a network would be analog, digital or without a place, before anything is compiled.

Where ``capture`` raises an error, this goes on and lists all there is, so that one look tells what stands in the way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from torch import fx, nn

from aimc_compiler.chip.costs import FREE
from aimc_compiler.chip.spec import ChipSpec
from aimc_compiler.errors import BatchError, RuleError, SpecError
from aimc_compiler.graph.batch import BatchDim
from aimc_compiler.graph.capture import Traced, check_values, trace
from aimc_compiler.graph.check_ops import operation_faults, run_time_operations
from aimc_compiler.graph.digital import Step, work
from aimc_compiler.graph.ir import BESIDE, Graph, make_module, matrix_name, op_name
from aimc_compiler.graph.lower_recurrent import CELL_COSTS
from aimc_compiler.graph.matrix_cost import MatrixCost, matrix_costs
from aimc_compiler.graph.ops import OP_COSTS
from aimc_compiler.graph.origin import Origin, read_origin
from aimc_compiler.graph.partition import Assignment, partition
from aimc_compiler.graph.recurrent import RecurrentModule
from aimc_compiler.graph.rules import Rules
from aimc_compiler.graph.values import tensor_of
from aimc_compiler.mapping.assign import MATRIX_CLASS
from aimc_compiler.mapping.ticks import class_price
from aimc_compiler.records import record
from aimc_compiler.workload.ir import Routing, distinct_routings

Place = Literal["analog", "digital", "unsupported"]
#: A network on an unknown chip has every matrix analog.
_DEFAULT = "every matrix is analog, where no rule says otherwise"


@record
class OpSupport:
    """One operation. op: "linear", "relu"; cost_class: of a digital one ("" of the others); weights: of its matrix,
    0 for a further use; macs: multiply-accumulates a sample, where it makes products; tiles: 0 without a chip;
    reason: why it is there, or why it has no place."""

    name: str
    op: str
    place: Place
    cost_class: str
    origin: Origin
    weights: int
    macs: int
    tiles: int
    reason: str


@record
class Support:
    """A network's operations in execution order. chip: "" without one; samples: what a sample is, in words; faults:
    what else would stop the compiler (samples that influence each other, too few tiles); routings: how rules time each
    mixture of experts."""

    network: str
    chip: str
    samples: str
    ops: tuple[OpSupport, ...]
    faults: tuple[str, ...]
    routings: tuple[Routing, ...] = ()

    @property
    def unsupported(self) -> tuple[OpSupport, ...]:
        return tuple(op for op in self.ops if op.place == "unsupported")

    @property
    def supported(self) -> bool:
        """Whether ``compile`` would find a place for everything."""
        return not self.unsupported and not self.faults


def support_of(
    model: nn.Module,
    example_inputs: Sequence[Any],
    example_kwargs: Mapping[str, Any] | None = None,
    batch_dim: BatchDim = 0,
    *,
    method: str = "forward",
    chip: ChipSpec | None = None,
    rules: Rules | None = None,
) -> Support:
    """What would be analog, digital and unsupported; the network is captured as ``capture`` does.

    chip: then also tiles, prices that its digital units lack, and whether it has tiles enough; rules: as for
    ``compile``, with a chip only. Operations without a place and samples that influence each other are no errors here.
    Raises CaptureError where there is no graph to look at, and RuleError.

    Example:
        >>> support_of(nn.Sequential(nn.Linear(4, 2), nn.ReLU()).eval(), (torch.zeros(1, 4),)).supported
        True
    """
    if rules and chip is None:
        raise RuleError("rules place matrices on a chip's tiles: give the chip as well")
    traced, faults = _traced(model, example_inputs, example_kwargs, batch_dim, method)
    module = make_module(traced.root, traced.nodes)
    try:
        outputs = check_values(traced, module)
    except BatchError as error:
        outputs = ()
        faults.append(str(error))
    graph = traced.graph(module, outputs)
    assigned = () if chip is None else partition(graph, rules or (), chip).assignments
    ops = _operations(graph, chip, {each.op: each for each in assigned})
    return Support(
        network=graph.name,
        chip="" if chip is None else chip.name,
        samples=graph.batch.reason,
        ops=ops,
        faults=(*faults, *_too_few_tiles(ops, chip, {each.op: each.tile_type for each in assigned})),
        routings=distinct_routings(each.routing for each in assigned),
    )


def _traced(
    model: nn.Module,
    example_inputs: Sequence[Any],
    example_kwargs: Mapping[str, Any] | None,
    batch_dim: BatchDim,
    method: str,
) -> tuple[Traced, list[str]]:
    """The network in normal form; where it has no batch of samples, the whole example as one, and the fault."""
    try:
        return trace(model, example_inputs, example_kwargs, batch_dim, method), []
    except BatchError as error:
        return trace(model, example_inputs, example_kwargs, None, method), [str(error)]


def _operations(graph: Graph, chip: ChipSpec | None, assigned: Mapping[str, Assignment]) -> tuple[OpSupport, ...]:
    costs = matrix_costs(graph)
    faults = operation_faults(graph.module.graph)
    held: set[str] = set()
    found = []
    for node in run_time_operations(graph.module.graph):
        if op_name(node) == "getitem":  # one of several results, which the operation has made
            continue
        if node.op != "call_module":
            found.append(_digital(node, faults.get(node), chip))
            continue
        for name in graph.held(node):
            cost = costs[name]
            use = assigned.get(name)
            first = cost.matrix.parameter not in held
            held.add(cost.matrix.parameter)
            analog, shared = use is None or use.analog, _shared(graph, node)
            op = _matrix(node, cost, first=first, analog=analog, chip=chip, shared=shared)
            counts = chip is not None and use is not None and first and op.place == "analog"
            tiles = _tiles(cost, use, chip) if counts else 0
            found.append(replace(op, tiles=tiles, reason=op.reason or (_DEFAULT if use is None else use.reason)))
        module = graph.called(node)
        if isinstance(module, RecurrentModule):
            found.append(_cell(node, module, chip))
    return tuple(found)


def _tiles(cost: MatrixCost, use: Assignment | None, chip: ChipSpec | None) -> int:
    assert use is not None
    assert chip is not None
    return cost.tiles(chip.tile_types[use.tile_type], use.groups_per_tile)


def _cell(node: fx.Node, module: RecurrentModule, chip: ChipSpec | None) -> OpSupport:
    """What a loop does digitally at each step."""
    cost_class, origin = CELL_COSTS[module.mode][0], read_origin(node)
    reason = "" if chip is None else _unpriced(chip, cost_class, matrix_name(node), origin)
    return OpSupport(
        name=matrix_name(node),
        op=f"{module.mode}_cell",
        place="unsupported" if reason else "digital",
        cost_class=cost_class,
        origin=origin,
        weights=0,
        macs=0,
        tiles=0,
        reason=reason or f"priced as {cost_class}",
    )


def _matrix(
    node: fx.Node, cost: MatrixCost, *, first: bool, analog: bool, chip: ChipSpec | None, shared: bool
) -> OpSupport:
    fault = ""
    if analog and shared:
        fault = (
            "its input has no batch dimension, so all samples of a batch share it: give that input a batch dimension, "
            "or keep the operation digital by a rule"
        )
    elif not analog and chip is not None:
        fault = _unpriced(chip, MATRIX_CLASS, cost.op, read_origin(node))
    return OpSupport(
        name=cost.op,
        op=cost.kind,
        place="unsupported" if fault else "analog" if analog else "digital",
        cost_class="" if analog else MATRIX_CLASS,
        origin=read_origin(node),
        weights=cost.matrix.cells if first else 0,
        macs=cost.macs,
        tiles=0,
        reason=fault,
    )


def _digital(node: fx.Node, fault: tuple[str, bool] | None, chip: ChipSpec | None) -> OpSupport:
    name, origin = op_name(node), read_origin(node)
    cost_class = OP_COSTS[name].cost_class if name in OP_COSTS else ""
    cost_class = FREE if BESIDE in node.meta else cost_class
    reason = fault[0] if fault else ""
    if chip is not None and not fault and cost_class != FREE:
        reason = _unpriced(chip, cost_class, node.name, origin)
    return OpSupport(
        name=f"{origin.path}/{node.name}".removeprefix("/"),
        op=name,
        place="unsupported" if reason else "digital",
        cost_class=cost_class,
        origin=origin,
        weights=0,
        macs=_products(node, name),
        tiles=0,
        reason=reason or f"priced as {cost_class}",
    )


def _products(node: fx.Node, name: str) -> int:
    """Multiply-accumulates of a product of activations."""
    if name not in OP_COSTS or OP_COSTS[name].count != "macs" or tensor_of(node) is None:
        return 0
    return work(Step(node=node, result=node, sources=tuple(node.all_input_nodes), layouts=(), wanted=None))


def _shared(graph: Graph, node: fx.Node) -> bool:
    """Whether a matrix meets one input for all samples of a batch, which a chip would multiply anew for each."""
    operand = node.args[0]
    value = tensor_of(operand) if isinstance(operand, fx.Node) else None
    return graph.batch.dynamic and bool(graph.batch.outputs) and (value is None or value.batch is None)


def _unpriced(chip: ChipSpec, cost_class: str, name: str, origin: Origin) -> str:
    try:
        class_price(chip, cost_class, name, origin.source)
    except SpecError as error:
        return str(error)
    return ""


def _too_few_tiles(ops: tuple[OpSupport, ...], chip: ChipSpec | None, types: Mapping[str, str]) -> list[str]:
    faults = []
    for name, tile in ({} if chip is None else chip.tile_types).items():
        needed = sum(op.tiles for op in ops if op.tiles and types[op.name] == name)
        if tile.count != "auto" and needed > tile.count:
            faults.append(
                f"the network needs {needed:,} tiles of type {name!r}, the chip has {tile.count:,}: keep matrices "
                f"digital, as by the rule {{'*': {{'max_tiles': {tile.count}}}}}, or take a larger chip"
            )
    return faults
