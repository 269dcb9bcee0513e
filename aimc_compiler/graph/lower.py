"""Lowering a Graph to a Workload: one sample's matrices, operations and tensors, as shapes alone.

Each tensor is cut into windows (``access.py``): one position of an image with all its channels, one vector of a
sequence, or the whole. Views that keep the windows disappear; the others become operations of class "free" with no
work, which pass on when their input is there. Constants are no inputs of an operation, and what does not depend on an
input at all is no operation.
"""

import operator
from collections.abc import Mapping
from math import prod

from torch import fx
from torch.fx.node import Argument

from aimc_compiler.chip.costs import FREE
from aimc_compiler.errors import InternalError
from aimc_compiler.graph.access import ALL, SAME, Layout, sizes, sliding
from aimc_compiler.graph.check_ops import input_dependent
from aimc_compiler.graph.digital import Plan, Step, plan, tensor_value, work
from aimc_compiler.graph.ir import BESIDE, Graph, matrix_name
from aimc_compiler.graph.layout import natural_layout, wanted_layout
from aimc_compiler.graph.lower_recurrent import Loop, LoopMatrix, lower_loop, one_window
from aimc_compiler.graph.matrix import MatrixModule
from aimc_compiler.graph.ops import OP_COSTS
from aimc_compiler.graph.origin import Origin
from aimc_compiler.graph.partition import Partition
from aimc_compiler.graph.recurrent import RecurrentModule
from aimc_compiler.graph.values import tensor_of
from aimc_compiler.workload.experts import deal_windows
from aimc_compiler.workload.ir import Access, DigitalOp, Matrix, MatrixKey, MatrixOp, TensorShape, Workload

#: The name of a matrix by its key.
MatrixNames = Mapping[MatrixKey, str]


def lower(graph: Graph, partition: Partition, names: MatrixNames | None = None) -> Workload:
    """One sample's work, with each matrix operation where ``partition`` puts it, and the windows it deals to experts.

    names: what matrices are called that other entries use as well (``lower_entries``); the others after their
    first use, also where that is a product with a constant, which is no operation of the workload.

    Raises RuleError where experts cannot be timed as a rule says.
    """
    return deal_windows(_Lowering(graph, partition, names or {}).run())


class _Lowering:
    def __init__(self, graph: Graph, partition: Partition, names: MatrixNames) -> None:
        self.graph = graph
        self.partition = partition
        self.modules = graph.matrix_modules()
        first_uses = {module.key: name for name, module in reversed(self.modules.items())}
        self.names = {**first_uses, **names}
        self.kinds = {node: self.modules[name].kind for name, node in graph.matrix_nodes().items()}
        self.depends = input_dependent(graph.module.graph)
        self.tensors: dict[str, TensorShape] = {}
        self.held: dict[fx.Node, tuple[str, Layout]] = {}
        self.matrices: dict[MatrixKey, Matrix] = {}
        self.ops: list[MatrixOp | DigitalOp] = []
        self.inputs: list[str] = []
        self.outputs: list[str] = []
        self.loops: dict[fx.Node, tuple[str, str, str]] = {}
        self.first_results: dict[fx.Node, fx.Node] = {}

    def run(self) -> Workload:
        for node in self.graph.nodes:
            if node.op == "output":
                returned = [source for source in node.all_input_nodes if source in self.held]
                self.outputs = list(dict.fromkeys(self.held[source][0] for source in returned))
            elif node in self.depends and (tensor_of(node) is not None or node.op == "call_module"):
                self._lower(node)
        return Workload(
            name=self.graph.name,
            inputs=tuple(self.inputs),
            outputs=tuple(self.outputs),
            tensors=tuple(self.tensors.values()),
            matrices=tuple(self.matrices.values()),
            ops=tuple(self.ops),
        )

    def _lower(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            if node.users:
                self.inputs.append(self._hold(node, wanted_layout(node, self.kinds)))
        elif node.op == "call_module":
            module = self.graph.called(node)
            if isinstance(module, RecurrentModule):
                self._loop(node, module)
            else:
                self._matrix(node, self.modules[matrix_name(node)])
        elif node.target is operator.getitem and node.args[0] in self.loops:
            self._loop_result(node)
        else:
            self._digital(node)

    def _matrix(self, node: fx.Node, module: MatrixModule) -> None:
        source = node.args[0]
        assert isinstance(source, fx.Node)
        name = matrix_name(node)
        value, result = tensor_value(source), tensor_value(node)
        taken = self._use(source, natural_layout(module.kind, value))
        output = self._hold(node, natural_layout(module.kind, result))
        access = SAME
        if module.kind != "linear":
            access = sliding(value, result, module.kernel, module.stride, module.padding, module.dilation)
        assignment = self.partition.of(name)
        self.ops.append(
            MatrixOp(
                name=name,
                matrix=self._matrix_of(module).name,
                kind=module.kind,
                windows=self.tensors[output].windows,
                input=taken,
                output=output,
                access=access,
                analog=assignment.analog,
                reason=assignment.reason,
                tile_type=assignment.tile_type,
                groups_per_tile=assignment.groups_per_tile,
                routing=assignment.routing,
                source=_source(node),
            )
        )

    def _loop(self, node: fx.Node, module: RecurrentModule) -> None:
        """The loop of a recurrent layer: as the tensor of all its outputs, and that from which its last c is taken."""
        given = node.args[0]
        assert isinstance(given, fx.Node)
        value = tensor_value(given)
        initial = [self._initial(state) for state in (*node.args[1:], None, None)]
        parts = {role: self._loop_matrix(name) for role, name in module.names.items()}
        loop = Loop(
            name=matrix_name(node),
            output=node.name,
            windows=sizes(value, 2)[0],
            itemsize=value.itemsize,
            gates=self._use(given, 2) if given in self.held else "",
            initial_h=initial[0],
            initial_c=initial[1],
            recurrent=parts["recurrent"],
            projection=parts.get("projection"),
            source=_source(node),
        )
        made = lower_loop(loop, module)
        self.tensors |= {tensor.name: tensor for tensor in made.tensors}
        self.ops += made.ops
        self.loops[node] = (node.name, node.name, made.cell)

    def _loop_matrix(self, name: str) -> LoopMatrix:
        module = self.modules[name]
        matrix = self._matrix_of(module).name
        return LoopMatrix(op=name, matrix=matrix, module=module, where=self.partition.of(name))

    def _initial(self, state: Argument) -> str:
        """The tensor of an initial state, in one window; "" for a constant."""
        if not isinstance(state, fx.Node) or state not in self.held:
            return ""
        held = self.tensors[self._use(state, 1)]
        if held.windows == 1:
            return held.name
        first, op = one_window(_digital_name(state), held, _source(state))
        if first.name not in self.tensors:
            self.tensors[first.name] = first
            self.ops.append(op)
        return first.name

    def _loop_result(self, node: fx.Node) -> None:
        """All outputs of a loop, or the last state, which is there when all of them are."""
        loop, place = node.args
        assert isinstance(loop, fx.Node)
        assert isinstance(place, int)
        if place == 0:
            self.held[node] = (self.loops[loop][0], 2)
        else:
            self._append(node, "getitem", FREE, (self.loops[loop][place],), (ALL,), 1, 0)

    def _matrix_of(self, module: MatrixModule) -> Matrix:
        return self.matrices.setdefault(
            module.key,
            Matrix(
                name=self.names[module.key],
                parameter=module.parameter,
                rows=module.rows,
                columns=module.columns,
                groups=module.groups,
                kernel=prod(module.kernel),
            ),
        )

    def _digital(self, node: fx.Node) -> None:
        step = self._step(node)
        chosen = plan(step)
        cost = OP_COSTS.get(step.name)
        cost_class = FREE if cost is None or BESIDE in node.meta else cost.cost_class
        first = self.first_results.setdefault(step.node, node)
        if first is not node and cost_class != FREE:
            self._further_result(node, step, first, chosen.layout)
            return
        if cost_class == FREE and cost is not None and self._renames(step, chosen):
            self.held[node] = (self.held[step.sources[0]][0], chosen.layout)
            return
        taken = tuple(self._use(source, layout) for source, layout in zip(step.sources, chosen.inputs, strict=True))
        self._append(node, step.name, cost_class, taken, chosen.accesses, chosen.layout, work(step))

    def _further_result(self, node: fx.Node, step: Step, first: fx.Node, layout: Layout) -> None:
        """Another result of an operation whose first is made already: it costs nothing more, and is there with it."""
        name, own = self.held[first]
        together = sizes(tensor_value(first), own)[0] == sizes(step.value, layout)[0]
        self._append(node, step.name, FREE, (name,), (SAME if together else ALL,), layout, 0)

    def _step(self, node: fx.Node) -> Step:
        producer = node
        if node.target is operator.getitem:
            first = node.args[0]
            assert isinstance(first, fx.Node)
            producer = first
        sources = tuple(source for source in producer.all_input_nodes if source in self.held)
        if not sources:
            raise InternalError(f"{node.name} depends on an input, but none of its operands was lowered")
        layouts = tuple(self.held[source][1] for source in sources)
        return Step(
            node=producer, result=node, sources=sources, layouts=layouts, wanted=wanted_layout(node, self.kinds)
        )

    def _renames(self, step: Step, chosen: Plan) -> bool:
        """Whether a free operation's result is its input's windows as they are."""
        before = sizes(tensor_value(step.sources[0]), step.layouts[0])
        return chosen.accesses == (SAME,) and sizes(step.value, chosen.layout) == before

    def _append(
        self,
        node: fx.Node,
        op: str,
        cost_class: str,
        inputs: tuple[str, ...],
        accesses: tuple[Access, ...],
        layout: Layout,
        amount: int,
    ) -> None:
        output = self._hold(node, layout)
        self.ops.append(
            DigitalOp(
                name=self._unique(_digital_name(node)),
                op=op,
                cost_class=cost_class,
                inputs=inputs,
                accesses=accesses,
                output=output,
                work=0 if cost_class == FREE else amount,
                source=_source(node),
            )
        )

    def _hold(self, node: fx.Node, layout: Layout) -> str:
        """Make the tensor of a node."""
        self._tensor(node.name, node, layout)
        self.held[node] = (node.name, layout)
        return node.name

    def _tensor(self, name: str, node: fx.Node, layout: Layout) -> None:
        value = tensor_value(node)
        windows, width = sizes(value, layout)
        self.tensors[name] = TensorShape(name=name, windows=windows, width=width, itemsize=value.itemsize)

    def _unique(self, name: str) -> str:
        """A name that no matrix operation has: one may stand at the module path "relu"."""
        return f"/{name}" if name in self.modules else name

    def _use(self, source: fx.Node, layout: Layout) -> str:
        """The tensor of ``source`` in a layout: as it is, or cut anew by a free operation that waits for all of it."""
        name, own = self.held[source]
        value = tensor_value(source)
        before, after = sizes(value, own), sizes(value, layout)
        if own == layout or (before == after and 1 in after):
            return name
        # Named after the node: a view of the same tensor may cut it otherwise.
        relaid = f"{source.name}.dim{layout}"
        if relaid not in self.tensors:
            self._tensor(relaid, source, layout)
            self.ops.append(
                DigitalOp(
                    name=f"{_digital_name(source)}.dim{layout}",
                    op="layout",
                    cost_class=FREE,
                    inputs=(name,),
                    accesses=(ALL,),
                    output=relaid,
                    work=0,
                    source=_source(source),
                )
            )
        return relaid


def _digital_name(node: fx.Node) -> str:
    """ "stages.0/relu_1": the module path and the node; the node alone at the top level."""
    return f"{_origin(node).path}/{node.name}".removeprefix("/")


def _source(node: fx.Node) -> str:
    return _origin(node).source


def _origin(node: fx.Node) -> Origin:
    origin = node.meta.get("origin")
    return origin if isinstance(origin, Origin) else Origin()
