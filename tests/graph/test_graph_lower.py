"""Lowering: sizes as recorded while the Graph runs, windows and accesses as the operations need them."""

import itertools
from math import ceil, prod
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import NETWORKS, resnet18
from torch import Tensor, fx, nn

from aimc_compiler.graph import Graph, Partition, capture, lower
from aimc_compiler.graph.check_ops import input_dependent
from aimc_compiler.graph.partition import Assignment
from aimc_compiler.graph.recurrent import RecurrentModule
from aimc_compiler.workload import DigitalOp, Workload, verify_workload


def all_analog(graph: Graph) -> Partition:
    return Partition(
        assignments=tuple(
            Assignment(op=name, path=name, parameter=module.parameter, analog=True, tile_type="tile", reason="test")
            for name, module in graph.matrix_modules().items()
        )
    )


def lowered(model: nn.Module, *args: Any, **kwargs: Any) -> Workload:
    graph = capture(model.eval(), args, kwargs)
    workload = lower(graph, all_analog(graph))
    verify_workload(workload)
    return workload


class Recorder(fx.Interpreter):
    """Bytes and multiply-accumulates of each node, from the tensors themselves."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.bytes: dict[str, int] = {}
        self.macs: dict[str, int] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.bytes[n.name] = result.numel() * result.element_size()
        if n.op == "call_module":
            module = self.module.get_submodule(str(n.target))
            if isinstance(module, RecurrentModule):
                self._loop(n.name, module, result[0])
            else:
                self.macs[n.name] = result.numel() * prod(module.weight.shape[1:])
        return result

    def _loop(self, name: str, module: RecurrentModule, y: Tensor) -> None:
        """y: outputs of all steps."""
        steps = y.numel() // y.shape[-1]
        for tensor, part in ((f"{name}.fed", module.recurrent), (name, module.projection)):
            if part is not None:
                self.macs[tensor] = steps * part.weight.numel()
        self.bytes[name] = y.numel() * y.element_size()
        self.bytes[f"{name}.fed"] = steps * module.recurrent.weight.shape[0] * y.element_size()
        self.bytes[f"{name}.cell"] = steps * module.units * y.element_size()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_sizes_are_those_recorded_while_the_graph_runs(name: str, dtype: torch.dtype) -> None:
    model, args, kwargs = NETWORKS[name]()
    args, kwargs = torch.utils._pytree.tree_map_only(Tensor, lambda leaf: leaf[:1].to(dtype), (args, kwargs))
    graph = capture(model.to(dtype), args, kwargs)
    workload = lower(graph, all_analog(graph))
    verify_workload(workload)
    recorder = Recorder(graph.module)
    recorder.run(*graph.flatten(*args, **kwargs))
    for tensor in workload.tensors:
        whole = tensor.name if tensor.name in recorder.bytes else tensor.name.partition(".")[0]
        # One window that stands for the initial states of several sequences holds one of them.
        assert tensor.bytes == recorder.bytes[whole] // (2 if tensor.name.endswith(".first") else 1)
    for op in workload.matrix_ops:
        assert op.windows * workload.matrix(op.matrix).cells == recorder.macs[op.output]
    depends = input_dependent(graph.module.graph)
    placed = [name for name, node in graph.matrix_nodes().items() if node in depends]
    assert [op.name for op in workload.matrix_ops] == placed


def test_resnet18_needs_132500_row_group_activations_at_128() -> None:
    """Two independent compilers give this count for 224 x 224 images on 128 x 128 tiles."""
    with torch.device("meta"):
        workload = lowered(resnet18(), torch.empty(1, 3, 224, 224))
    rows = {matrix.name: matrix.rows for matrix in workload.matrices}
    assert sum(op.windows * ceil(rows[op.matrix] / 128) for op in workload.matrix_ops) == 132_500
    assert sum(op.windows * workload.matrix(op.matrix).cells for op in workload.matrix_ops) == 1_814_073_344
    assert len(workload.matrix_ops) == 21


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.tuples(st.integers(5, 9), st.integers(5, 9)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(0, 2), st.integers(0, 2)),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
    st.booleans(),
)
def test_windows_need_what_the_gradient_says(
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    pool: bool,
) -> None:
    """The last input place that an output place depends on, against the gradient of that output."""
    padding = (min(padding[0], kernel[0] // 2), min(padding[1], kernel[1] // 2))
    layer: nn.Module = nn.Conv2d(1, 1, kernel, stride, padding, dilation, bias=False)
    if pool:
        layer = nn.AvgPool2d(kernel, stride, padding, ceil_mode=True)
    else:
        nn.init.ones_(layer.weight)
    workload = lowered(layer, torch.randn(1, 1, *size))
    access = workload.ops[0].accesses[0]
    x = torch.randn(1, 1, *size, requires_grad=True)
    outputs = layer(x).flatten()
    assert len(outputs) == workload.tensor(workload.outputs[0]).windows
    for window, output in enumerate(outputs):
        (gradient,) = torch.autograd.grad(output, x, retain_graph=True)
        touched = gradient.flatten().nonzero().flatten().tolist()
        needed = access.last_needed(window, prod(size))
        # A window in the padding alone needs nothing and names the nearest place; a dilated kernel whose last place
        # lies in the padding names the place at the edge.
        assert not touched or needed >= max(touched)
        assert not touched or needed == max(touched) or (dilation != (1, 1) and not pool)


def kinds(workload: Workload) -> list[tuple[str, str, list[str]]]:
    return [
        (op.name, getattr(op, "cost_class", "matrix"), [access.kind for access in op.accesses]) for op in workload.ops
    ]


def test_operations_and_accesses_of_a_branching_network() -> None:
    workload = lowered(NETWORKS["inception"]()[0], torch.randn(1, 3, 8, 8))
    assert kinds(workload) == [
        ("left", "matrix", ["sliding"]),
        ("right.0", "matrix", ["sliding"]),
        ("right.2/hardtanh", "elementwise", ["same"]),
        ("cat", "movement", ["same", "same"]),
        ("mean", "reduction", ["all"]),
        ("down", "matrix", ["same"]),
        ("gelu", "transcendental", ["same"]),
        ("up", "matrix", ["same"]),
        ("sigmoid", "transcendental", ["same"]),
        ("mul", "elementwise", ["same", "all"]),
        ("getitem", "free", ["same"]),
        ("getitem_1", "free", ["same"]),
        ("add", "elementwise", ["same"]),
        ("slice_3", "free", ["all"]),
        ("pad", "movement", ["sliding"]),
        ("cat_1", "movement", ["same", "same"]),
        ("adaptive_avg_pool2d", "pooling", ["sliding"]),
        ("upsample_nearest2d", "movement", ["all"]),
        ("getitem_2", "pooling", ["sliding"]),
        ("flatten", "free", ["all"]),
        ("head", "matrix", ["same"]),
        ("log_softmax", "softmax", ["same"]),
        ("amax", "reduction", ["same"]),
        ("abs_1", "elementwise", ["same"]),
        ("sum_1", "reduction", ["all"]),
    ]


def test_views_that_keep_the_windows_disappear() -> None:
    class Tokens(nn.Module):
        """An image as a sequence of its places, and back."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.linear, self.back = nn.Conv2d(3, 6, 2), nn.Linear(6, 4), nn.Conv1d(4, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x).flatten(2).transpose(1, 2)
            return self.back(self.linear(x).permute(0, 2, 1))

    workload = lowered(Tokens(), torch.randn(1, 3, 5, 4))
    assert [op.name for op in workload.ops] == ["conv", "linear", "back"]
    assert [op.windows for op in workload.matrix_ops] == [12, 12, 12]
    assert [op.input for op in workload.matrix_ops][1:] == [op.output for op in workload.matrix_ops][:-1]


def test_another_cut_is_an_operation_that_waits_for_all() -> None:
    class Mixer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.rows = nn.Conv2d(1, 3, 1), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.rows(self.conv(x))

    workload = lowered(Mixer(), torch.randn(1, 1, 4, 5))
    assert kinds(workload) == [
        ("conv", "matrix", ["sliding"]),
        ("conv/conv.dim3", "free", ["all"]),
        ("rows", "matrix", ["same"]),
    ]
    assert workload.matrix_ops[1].windows == 12


def test_grouped_convolutions_count_by_group() -> None:
    workload = lowered(nn.Conv2d(8, 12, 3, groups=4), torch.randn(1, 8, 6, 6))
    (matrix,) = workload.matrices
    assert (matrix.rows, matrix.columns, matrix.groups, matrix.kernel) == (18, 3, 4, 9)


def test_tied_matrices_are_one_and_keep_their_uses() -> None:
    workload = lowered(NETWORKS["tied"]()[0], torch.randn(1, 6))
    assert [matrix.name for matrix in workload.matrices] == ["first", "w", "v"]
    assert [(op.name, op.matrix) for op in workload.matrix_ops][:3] == [
        ("first", "first"),
        ("first@2", "first"),
        ("second", "first"),
    ]


def test_work_is_counted_by_the_table() -> None:
    class Works(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            pooled = nn.functional.max_pool2d(x, 3, 2, 1)
            return pooled, x @ x.transpose(2, 3), x.softmax(1), x.sum((2, 3)), *x.max(1)

    workload = lowered(Works(), torch.randn(1, 4, 6, 8))
    works = [(op.op, op.work) for op in workload.ops if op.cost_class != "free"]
    assert works == [
        ("max_pool2d", 4 * 3 * 4 * 9),
        ("matmul", 4 * 6 * 6 * 8),
        ("softmax", 192),
        ("sum", 192),
        ("max", 192),
    ]


def test_each_result_of_an_operation_waits_for_it() -> None:
    class Sorts(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            return *x.sort(-1), *x.max(-1)

    workload = lowered(Sorts(), torch.randn(1, 6, 8))
    assert [(op.op, op.cost_class, op.inputs, op.output) for op in workload.ops if isinstance(op, DigitalOp)] == [
        ("sort", "reduction", ("x",), "getitem"),
        ("sort", "free", ("getitem",), "getitem_1"),
        ("max", "reduction", ("x",), "getitem_2"),
        ("max", "free", ("getitem_2",), "getitem_3"),
    ]


def test_a_whole_example_is_a_sample() -> None:
    torch.manual_seed(0)
    graph = capture(NETWORKS["conv1d"]()[0], (torch.randn(3, 2, 40),), batch_dim=None)
    whole = lower(graph, all_analog(graph))
    verify_workload(whole)
    single = lowered(NETWORKS["conv1d"]()[0], torch.randn(3, 2, 40))
    assert [3 * op.windows for op in single.matrix_ops] == [op.windows for op in whole.matrix_ops]


def test_batch_dimensions_inside_the_graph_are_recorded() -> None:
    class Swapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x.transpose(0, 1)).transpose(0, 1)

    graph = capture(Swapped().eval(), (torch.randn(1, 6, 4),))
    (node,) = graph.matrix_nodes().values()
    assert node.meta["value"].shape == (6, 1, 4)
    assert node.meta["value"].batch == 1


def test_order_and_names_are_stable() -> None:
    first, second = (lowered(NETWORKS["inception"]()[0], torch.randn(1, 3, 8, 8)) for _ in range(2))
    assert first == second
    names = [op.name for op in first.ops]
    assert all(a != b for a, b in itertools.combinations(names, 2))
