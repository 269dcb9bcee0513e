"""Folded batch norms: exact, the weight untouched, the statistics kept; those that cannot fold stay digital."""

import pytest
import torch
from networks import NETWORKS, prepared
from torch import Tensor, nn

from aimc_compiler.graph import capture
from aimc_compiler.graph.ir import Graph, op_name


def digital_ops(graph: Graph) -> list[str]:
    return [op_name(node) for node in graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["linear", "conv1d", "conv2d"])
def test_folding_is_exact(kind: str, bias: bool, affine: bool) -> None:
    torch.manual_seed(0)
    layers: dict[str, tuple[nn.Module, nn.Module, Tensor]] = {
        "linear": (nn.Linear(7, 5, bias=bias), nn.BatchNorm1d(5, affine=affine), torch.randn(4, 7)),
        "conv1d": (nn.Conv1d(3, 5, 3, bias=bias), nn.BatchNorm1d(5, affine=affine), torch.randn(4, 3, 8)),
        "conv2d": (nn.Conv2d(3, 5, 3, bias=bias), nn.BatchNorm2d(5, affine=affine), torch.randn(4, 3, 8, 6)),
    }
    layer, norm, x = layers[kind]
    model, x = prepared(nn.Sequential(layer, norm)).double(), x.double()
    if affine:
        with torch.no_grad():
            norm.weight.copy_(torch.tensor([0.0, -1.5, 1e-3, 2.0, -0.2]))
    graph = capture(model, (x,))
    assert digital_ops(graph) == []
    with torch.no_grad():
        assert (graph(x) - model(x)).abs().max() <= 1e-12 * model(x).abs().max()
    module = graph.matrix_modules()["0"]
    assert torch.equal(module.weight, layer.weight)
    assert module.norm is not None
    assert torch.equal(module.norm.mean, norm.running_mean)
    assert torch.equal(module.norm.var, norm.running_var)
    assert module.norm.eps == norm.eps
    assert (module.norm.gamma is None) == (not affine)


def test_statistics_can_be_measured_again() -> None:
    torch.manual_seed(0)
    model = prepared(nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))).double()
    x = torch.randn(2, 2, 5, 5, dtype=torch.float64)
    graph = capture(model, (x,))
    module = graph.matrix_modules()["0"]
    assert module.norm is not None
    model[1].running_mean += 0.5
    model[1].running_var *= 3
    module.norm.mean.copy_(model[1].running_mean)
    module.norm.var.copy_(model[1].running_var)
    module.fold_norm(module.norm)
    with torch.no_grad():
        assert (graph(x) - model(x)).abs().max() <= 1e-12


class SharedOutput(nn.Module):
    """The convolution's output is read before the norm, too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.norm(y) + y


class SequenceNorm(nn.Module):
    """A norm over dimension 1 of a sequence is not along the outputs of the linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(4, 3), nn.BatchNorm1d(5)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(x))


@pytest.mark.parametrize(
    ("model", "shape", "left"),
    [
        (SharedOutput(), (2, 1, 6, 6), 1),
        (SequenceNorm(), (2, 5, 4), 1),
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.BatchNorm2d(2)), (2, 1, 6, 6), 1),
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.BatchNorm2d(2)), (2, 1, 6, 6), 1),
    ],
)
def test_what_cannot_fold_stays_digital(model: nn.Module, shape: tuple[int, ...], left: int) -> None:
    model, x = prepared(model), torch.randn(shape)
    graph = capture(model, (x,))
    assert digital_ops(graph).count("batch_norm") == left
    with torch.no_grad():
        assert torch.allclose(graph(x), model(x), atol=1e-5)


def test_every_norm_of_the_residual_network_folds() -> None:
    graph = capture(*NETWORKS["small_resnet"]())
    assert "batch_norm" not in digital_ops(graph)
    assert sum(module.norm is not None for module in graph.matrix_modules().values()) == 12
