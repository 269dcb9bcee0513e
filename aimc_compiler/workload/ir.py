"""Data of the Workload: matrices, their uses, digital operations and tensors of one sample, in execution order.

A *window* is the unit of pipelining: one spatial position of an activation (all its channels), one step of a
sequence, or the whole tensor where there is no such order. A matrix operation makes one analog matrix-vector
multiplication (MVM) a window for each piece of its matrix. All counts are per sample.

A recurrent layer is a loop: an operation reads, with access "previous", what an operation behind it makes in the step
before. Everything else is read from operations in front.
"""

from collections.abc import Iterable
from dataclasses import replace
from math import prod
from typing import Literal

from aimc_compiler.records import record


@record
class Access:
    """Which windows of one input an output window needs.

    kind: "same" (window k needs window k), "all" (every window needs the whole input), "sliding" (a kernel moved
    over a grid in raster order: convolutions and pools; the tuples have one entry a spatial dimension) or "stretched"
    (input windows spread out, ``stride`` apart, over a larger grid: transposed convolutions; no kernel or dilation).
    "previous": window k needs window k - 1, window 0 nothing; the one kind that may read what is made further behind.
    "dealt": ``input_size`` windows of a sequence are dealt to an expert, which sees ``output_size`` of them, or
    gathered from it: window k needs the share of the input that it stands for, and all before it.
    """

    kind: Literal["same", "all", "sliding", "stretched", "previous", "dealt"]
    input_size: tuple[int, ...] = ()
    output_size: tuple[int, ...] = ()
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()

    def last_needed(self, window: int, input_windows: int) -> int:
        """The last input window, in raster order, that output window ``window`` needs; -1 where it needs none."""
        if self.kind == "previous":
            return min(window, input_windows) - 1
        if self.kind == "same":
            return min(window, input_windows - 1)
        if self.kind == "all":
            return input_windows - 1
        if self.kind == "dealt":
            return -(-(window + 1) * self.input_size[0] // self.output_size[0]) - 1
        repeat, window = divmod(window, prod(self.output_size))
        last = 0
        for axis in range(len(self.output_size)):
            inner = prod(self.output_size[axis + 1 :])
            place = window // inner % self.output_size[axis]
            if self.kind == "stretched":
                reach = (place + self.padding[axis]) // self.stride[axis]
            else:
                reach = place * self.stride[axis] - self.padding[axis] + self.dilation[axis] * (self.kernel[axis] - 1)
            last = last * self.input_size[axis] + min(max(reach, 0), self.input_size[axis] - 1)
        return repeat * prod(self.input_size) + last


@record
class TensorShape:
    """A value between operations: ``windows`` windows of ``width`` elements of ``itemsize`` bytes, per sample."""

    name: str
    windows: int
    width: int
    itemsize: int = 4

    @property
    def elements(self) -> int:
        return self.windows * self.width

    @property
    def bytes(self) -> int:
        return self.elements * self.itemsize


#: (parameter, groups): what identifies a matrix.
MatrixKey = tuple[str, int]


@record
class Matrix:
    """A weight matrix: ``groups`` blocks of ``rows`` inputs by ``columns`` outputs.

    name: the module path of its first use; parameter: the path of the weight, its identity (tied weights are one
    Matrix). kernel: rows per input channel (1 for linear, kernel height x width for a convolution); row
    ``channel * kernel + place`` multiplies that place of that channel.
    """

    name: str
    parameter: str
    rows: int
    columns: int
    groups: int = 1
    kernel: int = 1

    @property
    def key(self) -> MatrixKey:
        return self.parameter, self.groups

    @property
    def cells(self) -> int:
        return self.groups * self.rows * self.columns


@record
class Routing:
    """How the tokens of a mixture of experts are assumed to be dealt, for time, energy and counts; values follow the
    true routing.

    mixture: module path of the experts; experts, active: ``active`` of ``experts`` for each token. balance: "even", all
    experts see equally many tokens (the first ones one more, where that does not divide), or "worst", all tokens go to
    the first ``active``. expert: which one an operation belongs to, None for all of them in the groups of one matrix.
    choices: windows are the choices of tokens, ``active`` for each token, instead of the tokens themselves.
    """

    mixture: str
    experts: int
    active: int
    balance: Literal["even", "worst"] = "even"
    expert: int | None = None
    choices: bool = False

    def windows_of(self, windows: int) -> int:
        """Of so many windows those that this expert is assumed to see; groups of one matrix see all equally many."""
        chosen = windows * (1 if self.choices else self.active)
        if self.expert is None:
            return -(-chosen // self.experts)
        if self.balance == "worst":
            return chosen // self.active if self.expert < self.active else 0
        return chosen // self.experts + (self.expert < chosen % self.experts)

    @property
    def assumption(self) -> str:
        """In words."""
        how = "balanced" if self.balance == "even" else "the same ones for all tokens"
        return f"{self.active} of {self.experts} experts a token, {how}"


@record
class MatrixOp:
    """One use of a matrix: ``windows`` MVMs of each of its pieces a sample.

    analog: on tiles or, by a rule, on digital units (then priced as ``macs`` of cost class "activation_product").
    reason: why, in words. source: "file:line" in the user's code. initial: with access "previous", the tensor of one
    window that window 0 multiplies, the first state of a recurrent layer; without it that state is a constant.
    groups_per_tile: groups of its matrix that may share a tile, None for as many as fit. routing: of an expert, by
    which ``windows`` are those it is assumed to see, none if it is idle (its output is then as large as it would be
    otherwise, and nothing makes it); computed: the windows that its values are computed for, which are all.
    """

    name: str
    matrix: str
    kind: Literal["linear", "conv1d", "conv2d", "conv3d"]
    windows: int
    input: str
    output: str
    access: Access
    analog: bool
    reason: str
    tile_type: str = "tile"
    source: str = ""
    initial: str = ""
    groups_per_tile: int | None = None
    routing: Routing | None = None
    computed: int = 0

    @property
    def computed_windows(self) -> int:
        """Windows that values are computed for: ``windows``, but for an expert."""
        return self.computed or self.windows

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input, self.initial) if self.initial else (self.input,)

    @property
    def accesses(self) -> tuple[Access, ...]:
        # Only window 0 reads the initial state. Windows pass in order, so the others find it there anyway.
        return (self.access, Access(kind="all")) if self.initial else (self.access,)


@record
class DigitalOp:
    """An operation of the digital units.

    op: the ATen name without namespace and overload ("relu"); cost_class: what it is priced as
    (``aimc_compiler.chip.COST_CLASSES``, or "free" with no work); work: elements processed a sample (what the class's
    rate counts); accesses: one per input.
    """

    name: str
    op: str
    cost_class: str
    inputs: tuple[str, ...]
    accesses: tuple[Access, ...]
    output: str
    work: int
    source: str = ""


@record
class Workload:
    """One sample's work. ops: in execution order; inputs, outputs: names of tensors."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tensors: tuple[TensorShape, ...]
    matrices: tuple[Matrix, ...]
    ops: tuple[MatrixOp | DigitalOp, ...]

    def tensor(self, name: str) -> TensorShape:
        return next(tensor for tensor in self.tensors if tensor.name == name)

    def matrix(self, name: str) -> Matrix:
        return next(matrix for matrix in self.matrices if matrix.name == name)

    @property
    def matrix_ops(self) -> tuple[MatrixOp, ...]:
        return tuple(op for op in self.ops if isinstance(op, MatrixOp))

    @property
    def analog_ops(self) -> tuple[MatrixOp, ...]:
        return tuple(op for op in self.matrix_ops if op.analog)

    @property
    def routings(self) -> tuple[Routing, ...]:
        """What is assumed of each mixture of experts, in execution order."""
        return distinct_routings(op.routing for op in self.matrix_ops)


def distinct_routings(routings: Iterable[Routing | None]) -> tuple[Routing, ...]:
    """One routing a mixture, of no expert in particular."""
    found = (routing for routing in routings if routing is not None)
    return tuple({routing.mixture: replace(routing, expert=None) for routing in found}.values())
