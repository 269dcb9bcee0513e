"""How each kind of digital operation is cut into windows: the layout of its result and its access to each input."""

from collections.abc import Callable
from math import prod

from torch import fx

from aimc_compiler.errors import InternalError
from aimc_compiler.graph.access import (
    ALL,
    SAME,
    Layout,
    broadcast_access,
    carried_layouts,
    sizes,
    sliding,
    stretched,
)
from aimc_compiler.graph.arguments import arguments, number, spread
from aimc_compiler.graph.ir import op_name
from aimc_compiler.graph.layout import SPATIAL, natural_layout
from aimc_compiler.graph.ops import ADAPTIVE_POOLS, OP_COSTS, POOLS
from aimc_compiler.graph.values import TensorValue, tensor_of, value_of
from aimc_compiler.records import record
from aimc_compiler.workload.ir import Access


@record
class Plan:
    """layout: of the result; inputs: the layout in which each input is read; accesses: one an input."""

    layout: Layout
    inputs: tuple[Layout, ...]
    accesses: tuple[Access, ...]


@record
class Step:
    """A digital operation to plan. node: it; result: the node of its (one) tensor, itself or a getitem of it;
    sources: tensors it reads, with their layouts; wanted: the layout that readers of the result want."""

    node: fx.Node
    result: fx.Node
    sources: tuple[fx.Node, ...]
    layouts: tuple[Layout, ...]
    wanted: Layout

    @property
    def name(self) -> str:
        return op_name(self.node)

    @property
    def value(self) -> TensorValue:
        return tensor_value(self.result)


def tensor_value(node: fx.Node) -> TensorValue:
    """The recorded tensor of a node that has one."""
    value = tensor_of(node)
    if value is None:
        raise InternalError(f"{node.name} returns no tensor, but was used as one")
    return value


def plan(step: Step) -> Plan:
    """The plan of a digital operation; what no rule knows needs all of every input."""
    cost = OP_COSTS.get(step.name)
    if step.name in _PLANNERS:
        return _PLANNERS[step.name](step)
    if cost is not None and len(step.sources) == 1 and (cost.cost_class in ("free", "movement")):
        return _rearrangement(step)
    if cost is not None and cost.cost_class in ("elementwise", "transcendental"):
        return _by_element(step)
    if cost is not None and cost.cost_class == "reduction":
        return _reduction(step)
    return _whole(step, step.wanted)


def work(step: Step) -> int:
    """Elements (or multiply-accumulates) a sample, as the cost class counts them."""
    cost = OP_COSTS.get(step.name)
    count = cost.count if cost is not None else "none"
    written = prod(step.value.shape)
    if count == "output":
        return written
    if count == "input":
        return sum(prod(tensor_value(source).shape) for source in step.sources)
    if count == "kernel":
        return written * prod(_kernel(step))
    if count == "macs":
        return written * _summed(step)
    return 0


def _summed(step: Step) -> int:
    """Length of the sums of a product of activations."""
    values = arguments(step.node)
    left = values.get("batch1", values.get("mat1", values["self"]))
    value = value_of(left)
    assert isinstance(value, TensorValue)
    return value.shape[-1] if value.shape else 1


def _kernel(step: Step) -> tuple[int, ...]:
    return spread(arguments(step.node)["kernel_size"], SPATIAL[step.name])


def _whole(step: Step, layout: Layout) -> Plan:
    """Every window of the result needs all of every input."""
    single = sizes(step.value, layout)[0] == 1
    accesses = tuple(
        SAME if single and sizes(tensor_value(source), own)[0] == 1 else ALL
        for source, own in zip(step.sources, step.layouts, strict=True)
    )
    return Plan(layout=layout, inputs=step.layouts, accesses=accesses)


def _rearrangement(step: Step) -> Plan:
    """Views and moves of one tensor: window for window where some layout of the result keeps the windows."""
    carried = carried_layouts(step.result, step.sources[0], step.layouts[0])
    if not carried:
        kept = step.layouts[0] if len(step.value.shape) == len(tensor_value(step.sources[0]).shape) else None
        return _whole(step, kept if step.wanted is None else step.wanted)
    layout = next((axis for axis in (step.wanted, step.layouts[0]) if axis in carried), carried[-1])
    return Plan(layout=layout, inputs=step.layouts, accesses=(SAME,))


def _by_element(step: Step) -> Plan:
    main = _main(step)
    layout = _aligned(step, main)
    accesses = tuple(
        broadcast_access(tensor_value(source), own, step.value, layout)
        for source, own in zip(step.sources, step.layouts, strict=True)
    )
    return Plan(layout=layout, inputs=step.layouts, accesses=accesses)


def _main(step: Step) -> int:
    """The input whose layout the result takes: the first of the result's shape, else the largest."""
    values = [tensor_value(source) for source in step.sources]
    exact = [index for index, value in enumerate(values) if value.shape == step.value.shape]
    return exact[0] if exact else max(range(len(values)), key=lambda index: (prod(values[index].shape), -index))


def _aligned(step: Step, index: int) -> Layout:
    """An input's layout on the result, dimensions counted from the last as broadcasting does."""
    layout = step.layouts[index]
    if layout is None:
        return None
    shifted = layout + len(step.value.shape) - len(tensor_value(step.sources[index]).shape)
    return shifted if 0 <= shifted < len(step.value.shape) else None


def _reduction(step: Step) -> Plan:
    value, layout = tensor_value(step.sources[0]), step.layouts[0]
    values = arguments(step.node)
    if values.get("dim") is None or layout is None:
        return _whole(step, step.wanted)
    reduced = [axis % len(value.shape) for axis in _axes(number(values["dim"]))]
    if len(step.value.shape) < len(value.shape):
        layout = None if layout in reduced else layout - sum(axis < layout for axis in reduced)
    if layout is None or sizes(step.value, layout)[0] != sizes(value, step.layouts[0])[0]:
        return _whole(step, layout)
    # A reduction inside each window, or over dimensions of size one; cumulative ones run across windows.
    inside = all(axis == step.layouts[0] or value.shape[axis] == 1 for axis in reduced)
    return Plan(layout=layout, inputs=step.layouts, accesses=(SAME,)) if inside else _whole(step, layout)


def _axes(dim: int | list[int]) -> list[int]:
    return [dim] if isinstance(dim, int) else list(dim)


def _pool(step: Step) -> Plan:
    value, spatial = tensor_value(step.sources[0]), SPATIAL[step.name]
    layout = natural_layout(step.name, value)
    values = arguments(step.node)
    kernel = _kernel(step)
    access = sliding(
        value,
        step.value,
        kernel,
        spread(values["stride"] or kernel, spatial),
        spread(values["padding"], spatial),
        spread(values.get("dilation", 1), spatial),
    )
    return Plan(layout=layout, inputs=(layout,), accesses=(access,))


def _overlap(step: Step) -> Plan:
    """Products of a transposed convolution that are added up: an output position needs the inputs that reach it."""
    value = tensor_value(step.sources[0])
    layout = natural_layout(step.name, value)
    access = stretched(
        value,
        step.value,
        **{name: spread(arguments(step.node)[name], SPATIAL[step.name]) for name in ("stride", "padding")},
    )
    return Plan(layout=layout, inputs=(layout,), accesses=(access,))


def _adaptive_pool(step: Step) -> Plan:
    """A pool of equal windows where the sizes divide; else (or to a single place) all of the input."""
    value, spatial = tensor_value(step.sources[0]), SPATIAL[step.name]
    layout = natural_layout(step.name, value)
    ins, outs = value.shape[-spatial:], step.value.shape[-spatial:]
    if any(size % parts for size, parts in zip(ins, outs, strict=True)):
        return Plan(layout=layout, inputs=(layout,), accesses=(ALL,))
    step_size = tuple(size // parts for size, parts in zip(ins, outs, strict=True))
    access = sliding(value, step.value, step_size, step_size, (0,) * spatial, (1,) * spatial)
    return Plan(layout=layout, inputs=(layout,), accesses=(access,))


def _natural(access: Access) -> Callable[[Step], Plan]:
    """Operations with a layout of their own that take the windows one by one, or all of them."""

    def planner(step: Step) -> Plan:
        layout = natural_layout(step.name, tensor_value(step.sources[0]))
        rest = tuple(step.layouts[1:])
        return Plan(layout=layout, inputs=(layout, *rest), accesses=(access, *(ALL for _ in rest)))

    return planner


def _layer_norm(step: Step) -> Plan:
    """Window by window where it normalises over the last dimension alone."""
    if len(arguments(step.node)["normalized_shape"]) == 1:
        return _natural(SAME)(step)
    return _whole(step, step.layouts[0])


def _softmax(step: Step) -> Plan:
    """Window by window where it runs along the elements of a window."""
    value, layout = tensor_value(step.sources[0]), step.layouts[0]
    inside = layout is not None and arguments(step.node)["dim"] % len(value.shape) == layout
    return Plan(layout=layout, inputs=(layout,), accesses=(SAME,)) if inside else _whole(step, layout)


def _product(step: Step) -> Plan:
    """A product of activations: a window of the left operand gives one of the result, all of the right is needed."""
    if len(step.value.shape) < 2:
        return _whole(step, None)
    last = len(step.value.shape) - 1
    values = arguments(step.node)
    left = values.get("batch1", values.get("mat1", values["self"]))
    layouts: list[Layout] = []
    accesses = []
    for source, own in zip(step.sources, step.layouts, strict=True):
        value = tensor_value(source)
        as_rows = source is left and len(value.shape) >= 2
        layouts.append(len(value.shape) - 1 if as_rows else own)
        accesses.append(broadcast_access(value, layouts[-1], step.value, last) if as_rows else ALL)
    both_sides = len(step.sources) == 1 and step.node.args[1] is left
    return Plan(layout=last, inputs=tuple(layouts), accesses=(ALL,) if both_sides else tuple(accesses))


def _concatenation(step: Step) -> Plan:
    """Side by side inside the windows where it joins the dimension of the layout; else whole tensors after another."""
    axis = arguments(step.node)["dim"] % len(step.value.shape)
    layout = step.layouts[0]
    if axis == layout and all(own == layout for own in step.layouts):
        return Plan(layout=layout, inputs=step.layouts, accesses=(SAME,) * len(step.sources))
    return _whole(step, layout if layout is not None else step.wanted)


def _pad(step: Step) -> Plan:
    """Zero padding of the dimensions behind the channels is a window of one place that slides over the input."""
    value, layout, values = tensor_value(step.sources[0]), step.layouts[0], arguments(step.node)
    pads = list(number(values["pad"]))
    constant = values.get("mode", "constant") == "constant"
    spatial = 0 if layout is None else len(value.shape) - 1 - layout
    if not (constant and spatial > 0 and len(pads) // 2 <= spatial):
        return _whole(step, layout)
    before = tuple(reversed(pads[::2]))
    ones = (1,) * spatial
    access = sliding(value, step.value, ones, ones, (0,) * (spatial - len(before)) + before, ones)
    return Plan(layout=layout, inputs=(layout,), accesses=(access,))


def _lookup(step: Step) -> Plan:
    return _whole(step, len(step.value.shape) - 1 if step.value.shape else None)


def _patches(step: Step) -> Plan:
    """Columns of (sample, channels times places, positions), each of many positions of the image."""
    return _whole(step, len(step.value.shape) - 2)


_PLANNERS: dict[str, Callable[[Step], Plan]] = {
    **dict.fromkeys(POOLS, _pool),
    **dict.fromkeys(ADAPTIVE_POOLS, _adaptive_pool),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _overlap),
    **dict.fromkeys(("softmax", "log_softmax", "_softmax", "_log_softmax"), _softmax),
    **dict.fromkeys(("matmul", "bmm", "mm", "addmm", "baddbmm"), _product),
    **dict.fromkeys(("constant_pad_nd", "pad"), _pad),
    **dict.fromkeys([name for name in SPATIAL if "upsample" in name], _natural(ALL)),
    "batch_norm": _natural(SAME),
    "group_norm": _natural(ALL),
    "instance_norm": _natural(ALL),
    "layer_norm": _layer_norm,
    "rms_norm": _layer_norm,
    "cat": _concatenation,
    "embedding": _lookup,
    "one_hot": _lookup,
    "im2col": _patches,
}
