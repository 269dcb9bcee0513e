"""The table of operations, and what is said of those that are not in it."""

from collections.abc import Callable

import pytest
import torch
from networks import NETWORKS
from torch import Tensor, nn

from aimc_compiler.chip.costs import COST_CLASSES, FREE
from aimc_compiler.errors import UnsupportedOpError
from aimc_compiler.graph import OP_COSTS, capture
from aimc_compiler.graph.partition import Assignment, Partition


class Foo(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(x)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.Sequential(Foo(), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return torch.special.i1(self.stages(x))


def test_table_holds_operations_of_torch_and_classes_of_the_chip() -> None:
    for name, cost in OP_COSTS.items():
        assert cost.cost_class in (*COST_CLASSES, FREE), name
        assert hasattr(torch.ops.aten, name), name
        assert (cost.cost_class == FREE) == (cost.count == "none"), name


def test_all_operations_without_cost_class_are_listed() -> None:
    with pytest.raises(UnsupportedOpError) as caught:
        capture(Two().eval(), (torch.rand(2, 3),))
    first, second = str(caught.value).splitlines()
    assert first.startswith("aten.special_bessel_j0.default at 'stages.0' (test_graph_ops.py:")
    assert "in forward, `return torch.special.bessel_j0(x)`): has no cost class (elementwise, " in first
    assert "or allow it unpriced (allow_unpriced=True)" in first
    assert second.startswith("aten.special_i1.default at the top level (test_graph_ops.py:")


def test_unpriced_operations_can_be_allowed() -> None:
    graph = capture(Two().eval(), (torch.rand(2, 3),), allow_unpriced=True)
    assert [line.partition(" at ")[0] for line in graph.unpriced] == [
        "aten.special_bessel_j0.default",
        "aten.special_i1.default",
    ]


def test_weights_computed_from_the_input_are_refused() -> None:
    class Dynamic(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.nn.functional.linear(x, x.mean(0, keepdim=True))

    with pytest.raises(UnsupportedOpError, match="its weight or bias is computed from the input"):
        capture(Dynamic().eval(), (torch.randn(2, 3),), batch_dim=None)


def blanked(x: Tensor) -> Tensor:
    """Assignment of a number to a part."""
    y = x * 2
    y[..., 0] = 0
    return y


UNARY: tuple[Callable[[Tensor], Tensor], ...] = (
    *(torch.relu, nn.functional.relu6, nn.functional.hardtanh, nn.functional.leaky_relu, nn.functional.elu),
    *(nn.functional.gelu, nn.functional.silu, nn.functional.hardswish, nn.functional.hardsigmoid, torch.sigmoid),
    *(torch.tanh, nn.functional.softplus, nn.functional.mish, torch.neg, torch.abs, torch.exp, torch.log, torch.sqrt),
    *(torch.rsqrt, torch.erf, torch.zeros_like, nn.functional.logsigmoid),
    *(lambda x: x**2, lambda x: 2 - x, lambda x: 1 / x, lambda x: x.clamp(min=0), lambda x: torch.maximum(x, -x)),
    *(lambda x: torch.where(x > 0, x, -x), lambda x: x.expand(-1, -1, -1, -1), lambda x: x.mean((2, 3))),
    *(
        lambda x: x.sum(-1, keepdim=True),
        lambda x: x.amax((2, 3)),
        lambda x: x.flatten(1),
        lambda x: x.permute(0, 2, 3, 1),
    ),
    *(
        lambda x: torch.stack([x, x], 1),
        lambda x: x.split([1, 3], 1)[1],
        lambda x: x[:, ::2, 1:],
        lambda x: x.softmax(1),
    ),
    *(lambda x: x.transpose(1, 2), lambda x: x.argmax(1), lambda x: x.max(1).values, lambda x: x.unbind(1)[0]),
    *(lambda x: nn.functional.pad(x, (1, 2)), lambda x: nn.functional.interpolate(x, scale_factor=2.0)),
    *(
        lambda x: nn.functional.interpolate(x, size=(9, 9), mode="bilinear"),
        lambda x: nn.functional.pixel_shuffle(x, 2),
    ),
    *(lambda x: nn.functional.max_pool2d(x, 2, ceil_mode=True), lambda x: nn.functional.avg_pool2d(x, 3, 1, 1)),
    *(lambda x: nn.functional.adaptive_avg_pool2d(x, 3), lambda x: nn.functional.adaptive_max_pool2d(x, 1)),
    *(lambda x: x @ x.transpose(2, 3), lambda x: nn.functional.layer_norm(x, (5,)), lambda x: x.repeat(1, 1, 2, 1)),
    *(
        lambda x: nn.functional.group_norm(x, 2),
        lambda x: torch.cat([x, x + 1], 2),
        lambda x: x.std((2, 3)),
        torch.isnan,
    ),
    *(
        lambda x: nn.functional.normalize(x, dim=1),
        lambda x: x.narrow(1, 0, 2),
        lambda x: x.flip(2),
        lambda x: x.half().float(),
    ),
    *(nn.functional.hardshrink, nn.functional.softshrink, lambda x: nn.functional.glu(x, 1), lambda x: (x / 2).logit()),
    *(lambda x: x.median(1).values, lambda x: torch.var_mean(x, (2, 3))[0], lambda x: x.cummax(1).values),
    *(lambda x: nn.functional.unfold(x, 2), lambda x: x.unfold(2, 3, 3), lambda x: torch.hstack([x, x]), torch.fliplr),
    *(lambda x: nn.functional.one_hot((x > 0.5).long(), 2), lambda x: (x > 0) ^ (x < 1), torch.nan_to_num),
    *(
        lambda x: nn.functional.interpolate(x, scale_factor=2.0, mode="nearest-exact"),
        lambda x: nn.functional.interpolate(x, scale_factor=0.5, mode="bilinear", antialias=True),
        lambda x: nn.functional.max_unpool2d(*nn.functional.max_pool2d(x[..., :4], 2, return_indices=True), 2),
        lambda x: x.scatter(1, x.argmax(1, keepdim=True), 0.0),
    ),
    *(lambda x: torch.linalg.norm(x, dim=1), lambda x: x.diagonal(0, 2, 3), lambda x: blanked(x)),
    *(lambda x: x.reshape(x.shape[0], -1, x.shape[3]), lambda x: x.sort(1).values, lambda x: x.topk(2, 1).values),
)


class Calls(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@pytest.mark.parametrize("function", UNARY, ids=range(len(UNARY)))
def test_operations_of_real_networks_are_captured_and_lowered(function: Callable[[Tensor], Tensor]) -> None:
    from aimc_compiler.graph import lower
    from aimc_compiler.workload import verify_workload

    x = torch.rand(2, 4, 6, 5) + 0.1
    graph = capture(Calls(function).eval(), (x,))
    assert torch.allclose(graph(x).double(), function(x).double())
    workload = lower(graph, Partition(assignments=()))
    verify_workload(workload)
    per_sample = graph(x[:1])
    assert workload.tensor(workload.outputs[0]).elements == per_sample.numel()
    assert workload.tensor(workload.outputs[0]).bytes == per_sample.numel() * per_sample.element_size()


def test_assignments_are_found_by_operation() -> None:
    one = Assignment(op="a", path="a", parameter="a.weight", analog=True, tile_type="tile", reason="")
    assert Partition(assignments=(one,)).of("a") is one


def test_text_of_a_graph_names_path_and_line() -> None:
    text = str(capture(*NETWORKS["mlp"]()))
    assert text.startswith(
        "graph Sequential  # any number of samples along dimensions 0\n  %input_1: float32[1, 50] = input"
    )
    assert "linear '0' (%input_1)  # 0" in text
