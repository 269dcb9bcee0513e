"""Capture: the Graph is the network, in normal form, for any number of samples; what cannot be is said."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import NETWORKS, Tied, prepared
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from aimc_compiler.errors import BatchError, CaptureError, DataError
from aimc_compiler.graph import Graph, MatrixModule, capture
from aimc_compiler.graph.ir import op_name


def largest_difference(graph: Graph, model: nn.Module, args: Any, kwargs: Any) -> float:
    with torch.no_grad():
        ours, spec = pytree.tree_flatten(graph(*args, **kwargs))
        theirs, expected = pytree.tree_flatten(model(*args, **kwargs))
    assert spec == expected
    return max(float((a - b).abs().max() / b.abs().max().clamp_min(1e-9)) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("name", sorted(NETWORKS))
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_graph_equals_the_network(name: str, dtype: torch.dtype, tolerance: float) -> None:
    model, args, kwargs = NETWORKS[name]()
    model = model.to(dtype)
    args, kwargs = pytree.tree_map_only(Tensor, lambda leaf: leaf.to(dtype), (args, kwargs))
    before = copy.deepcopy(model.state_dict())
    graph = capture(model, args, kwargs)
    assert graph.batch.dynamic, graph.batch.reason
    assert largest_difference(graph, model, args, kwargs) <= tolerance
    # Any number of samples, and one.
    for count in (1, 5):
        again = pytree.tree_map_only(Tensor, lambda leaf, n=count: leaf[:1].repeat(n, *[1] * (leaf.dim() - 1)), args)
        more = pytree.tree_map_only(Tensor, lambda leaf, n=count: leaf[:1].repeat(n, *[1] * (leaf.dim() - 1)), kwargs)
        assert largest_difference(graph, model, again, more) <= tolerance
        assert graph.sample_count(*again, **more) == count
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_normal_form(name: str) -> None:
    graph = capture(*NETWORKS[name]())
    for node in graph.nodes:
        assert node.op in ("placeholder", "get_attr", "call_function", "call_module", "output")
        assert node.op in ("placeholder", "output") or node.users
        if node.op == "call_function" and hasattr(node.target, "_schema"):
            assert not node.target._schema.is_mutable
            assert op_name(node) not in ("linear", "conv1d", "conv2d", "dropout", "contiguous", "clone", "detach")
    assert all(isinstance(module, MatrixModule) for module in graph.matrix_modules().values())


def test_training_the_network_further_does_not_change_the_graph() -> None:
    model, args, kwargs = NETWORKS["mlp"]()
    graph = capture(model, args, kwargs)
    before = graph(*args)
    with torch.no_grad():
        model[0].weight.zero_()
    assert torch.equal(graph(*args), before)


def test_a_graph_module_takes_the_same_way() -> None:
    model, args, kwargs = NETWORKS["fashion_resnet"]()
    for traced in (torch.fx.symbolic_trace(model), torch.export.export(model, args).module()):
        graph = capture(traced, args)
        assert largest_difference(graph, model, args, kwargs) <= 1e-5
        assert "stages.1.first.0" in graph.matrix_modules()


def test_tied_weights_are_one_parameter() -> None:
    modules = capture(*NETWORKS["tied"]()).matrix_modules()
    assert list(modules) == ["first", "first@2", "second", "w", "v"]
    assert modules["first"].weight is modules["first@2"].weight is modules["second"].weight
    assert {modules[name].parameter for name in ("first", "first@2", "second")} == {"first.weight"}
    assert modules["second"].bias is None


def test_blocks_have_row_channel_times_places_plus_place() -> None:
    conv = nn.Conv2d(4, 6, (2, 3), groups=2).eval()
    module = capture(conv, (torch.randn(1, 4, 5, 5),)).matrix_modules()["weight"]
    assert module.blocks().shape == (2, 3, 2 * 6)
    assert module.blocks()[1, 2, 1 * 6 + 1 * 3 + 2] == conv.weight[5, 1, 1, 2]
    twin = module.with_blocks(module.blocks() * 2, with_bias=False)
    x = torch.randn(1, 4, 5, 5)
    assert torch.allclose(twin(x), 2 * module.product(x))


def test_with_modules_replaces_and_shares() -> None:
    graph = capture(*NETWORKS["fashion_resnet"]())
    x = torch.randn(3, 1, 28, 28)

    class Negated(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            return -self.inner(x)

    modules = graph.matrix_modules()
    other = graph.with_modules({"head": Negated(modules["head"])})
    assert torch.equal(other(x), -graph(x))
    assert torch.equal(graph.with_modules({})(x), graph(x))


class TimeFirst(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).cumsum(0)


def test_batch_dim_one() -> None:
    model, x = TimeFirst().eval(), torch.randn(6, 1, 4)
    graph = capture(model, (x,), batch_dim=1)
    assert graph.batch.inputs == (1,)
    assert graph.batch.outputs == (1,)
    y = torch.randn(6, 5, 4)
    assert torch.allclose(graph(y), model(y), atol=1e-6)
    assert graph.sample_count(y) == 5


@pytest.mark.parametrize("example", [torch.randn(6, 1, 4), torch.zeros(1, 2, 4), torch.ones(3, 2, 4)])
def test_a_network_that_mixes_the_batch_is_refused(example: Tensor) -> None:
    with pytest.raises(BatchError, match=r"output \[0\] mixes the samples of a batch.*batch_dim=1"):
        capture(TimeFirst().eval(), (example,))


class BatchStatistics(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4, track_running_stats=False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"plain": x * 2, "normed": self.norm(x)}


def test_a_norm_over_the_batch_is_refused_by_name() -> None:
    with pytest.raises(BatchError, match=r"output \['normed'\] mixes.*batch_dim=None"):
        capture(BatchStatistics().eval(), (torch.ones(1, 4, 3),))
    graph = capture(BatchStatistics().eval(), (torch.randn(3, 4, 3),), batch_dim=None)
    assert graph.batch.reason == "the whole example is one sample: batch_dim=None"
    assert graph.sample_count(torch.randn(3, 4, 3)) == 1


def test_an_output_without_batch_dimension_is_refused() -> None:
    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean()

    with pytest.raises(BatchError, match=r"output \[0\] has no batch dimension: its shape is \(\) for one sample"):
        capture(Mean().eval(), (torch.randn(2, 3),))


def test_a_batch_that_cannot_vary_makes_the_example_one_sample() -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(x.reshape(2, 6))

    graph = capture(Fixed().eval(), (torch.randn(2, 6),))
    assert not graph.batch.dynamic
    assert graph.batch.reason.startswith("the whole example is one sample: its batch cannot vary (")


def test_inputs_without_batch_dimension_are_named() -> None:
    class Scaled(nn.Module):
        def forward(self, x: Tensor, scale: Tensor) -> Tensor:
            return x * scale

    x, scale = torch.randn(2, 3), torch.tensor(2.0)
    with pytest.raises(BatchError, match=r"input \[0\]\[1\] is a tensor of shape \(\), which has no dimension 0"):
        capture(Scaled().eval(), (x, scale))
    with pytest.raises(BatchError, match="batch_dim has 1 entries for 2 inputs"):
        capture(Scaled().eval(), (x, scale), batch_dim=(0,))
    graph = capture(Scaled().eval(), (x, scale), batch_dim=(0, None))
    assert torch.equal(graph(x, scale * 2), x * 4)


def test_integer_inputs_keep_their_values() -> None:
    class Lookup(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(5, 4), nn.Linear(4, 3)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(self.table(tokens)).argmax(-1)

    model, tokens = Lookup().eval(), torch.tensor([[0, 4, 2]])
    graph = capture(model, (tokens,))
    assert torch.equal(graph(tokens.repeat(3, 1)), model(tokens.repeat(3, 1)))


def test_training_mode_is_an_error() -> None:
    with pytest.raises(CaptureError, match=r"Tied: the network is in training mode.*call model.eval\(\)"):
        capture(Tied(), (torch.randn(1, 6),))
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout()).eval()
    model[1].train()
    with pytest.raises(CaptureError, match="its module '1' is in training mode"):
        capture(model, (torch.randn(1, 3),))


def test_capture_failure_names_the_line_of_the_user() -> None:
    class Branch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(CaptureError) as caught:
        capture(Branch().eval(), (torch.randn(2, 3),))
    text = str(caught.value)
    assert "Branch cannot be captured by torch.export (test_graph_capture.py:" in text
    assert "in forward, `return x if x.sum() > 0 else -x`" in text


def test_changing_an_input_or_a_buffer_is_an_error() -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.count += 1
            return x * self.count

    class Changes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.add_(1) * 2

    for model, code in ((Counter().eval(), "self.count += 1"), (Changes().eval(), "return x.add_(1) * 2")):
        with pytest.raises(CaptureError, match="changes an input or one of its own buffers in forward") as caught:
            capture(model, (torch.randn(2, 3),))
        assert "(test_graph_capture.py:" in str(caught.value)
        assert f"in forward, `{code}`)" in str(caught.value)


def test_random_numbers_in_forward_are_an_error() -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.randn_like(x)

    torch.manual_seed(0)
    with pytest.raises(CaptureError, match=r"differs from the network's.*does forward draw random numbers"):
        capture(Noisy().eval(), (torch.randn(2, 3),), allow_unpriced=True)


def test_inputs_unlike_the_example_are_an_error() -> None:
    model, args, kwargs = NETWORKS["two_inputs"]()
    graph = capture(model, args, kwargs)
    with pytest.raises(DataError, match=r"captured with 2 and \['gain'\].*nested alike \(x, side_vector, gain"):
        graph(*args)
    with pytest.raises(CaptureError, match="example_inputs is a Tensor: give a tuple"):
        capture(model, args[0])


def test_inputs_that_are_no_tensors_are_built_in() -> None:
    model, args, kwargs = NETWORKS["two_inputs"]()
    graph = capture(model, args, {**kwargs, "power": 3})
    assert largest_difference(graph, model, args, {"power": 3, **kwargs}) <= 1e-5
    with pytest.raises(DataError, match="input power was 3 when captured, which is built into the graph, and is 2 now"):
        graph(*args, **kwargs, power=2)


def test_inputs_of_another_shape_are_an_error() -> None:
    graph = capture(*NETWORKS["fashion_resnet"]())
    with pytest.raises(DataError, match=r"input x has shape \(1, 1, 32, 32\), but .* captured for \(any, 1, 28, 28\)"):
        graph(torch.zeros(1, 1, 32, 32))
    with pytest.raises(
        DataError, match=r"input x is float64, but .* captured with float32: give x\.to\(torch\.float32\)"
    ):
        graph(torch.zeros(1, 1, 28, 28, dtype=torch.float64))
    with pytest.raises(DataError, match="input x was a tensor when captured and is a int now"):
        graph(3)


def test_squeezing_the_batch_away_is_refused() -> None:
    class Squeezed(nn.Module):
        def __init__(self, last: nn.Module) -> None:
            super().__init__()
            self.last = last

        def forward(self, x: Tensor) -> Tensor:
            return self.last(x.squeeze())

    with pytest.raises(BatchError, match=r"has shape \(4,\) for one sample and \(2, 4\) for two.*name the dimensions"):
        capture(Squeezed(nn.Linear(4, 4)).eval(), (torch.randn(2, 4, 1),))
    with pytest.raises(BatchError, match="captured for two samples and fails on one"):
        capture(Squeezed(nn.Softmax(1)).eval(), (torch.randn(2, 4, 1),))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_networks_of_lower_precision(dtype: torch.dtype) -> None:
    """Another order of rounding is no other network."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.Flatten()]
    model = prepared(nn.Sequential(*layers, nn.Linear(128, 64), nn.GELU(), nn.Linear(64, 5))).to(dtype)
    x = torch.randn(2, 3, 8, 8, dtype=dtype)
    graph = capture(model, (x,))
    assert graph(x).dtype == dtype
    assert largest_difference(graph, model, (x,), {}) <= 4 * torch.finfo(dtype).eps

    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.randn_like(x)

    with pytest.raises(CaptureError, match="does forward draw random numbers"):
        capture(Noisy().eval(), (x,), allow_unpriced=True)


def test_a_norm_of_higher_precision_than_its_layer_keeps_the_type() -> None:
    model = prepared(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    model[0].half()
    x = torch.randn(2, 3, 8, 8).half()
    graph = capture(model, (x,))
    assert graph(x).dtype == model(x).dtype == torch.float16
    assert largest_difference(graph, model, (x,), {}) <= 4 * torch.finfo(torch.float16).eps


def test_a_network_that_treats_one_sample_differently_is_refused() -> None:
    class Alone(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.shape[0] > 1 else 2 * x

    for count in (1, 2):
        with pytest.raises(BatchError, match=r"output \[0\] of a single sample differs from .* by 0.5 of the largest"):
            capture(Alone().eval(), (torch.randn(count, 3),))


def test_a_square_weight_and_its_transpose_are_told_apart() -> None:
    class Square(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.randn(4, 4))

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.w.permute(0, 1)) + x @ self.w + F.linear(x, self.w.mT) + F.linear(x, self.w)

    model, x = Square().eval(), torch.randn(2, 4)
    graph = capture(model, (x,))
    assert [module.parameter for module in graph.matrix_modules().values()] == ["w", "w.T", "w.T", "w"]
    assert largest_difference(graph, model, (x,), {}) <= 1e-5


@st.composite
def small_networks(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    """A few convolutions with norms, activations and pools, then linear layers; or the latter alone."""
    layers: list[nn.Module] = []
    channels, size = draw(st.integers(1, 4)), draw(st.integers(6, 9))
    shape = (channels, size, size)
    for _ in range(draw(st.integers(0, 3))):
        outputs = draw(st.integers(1, 3)) * channels
        groups = draw(st.sampled_from([1, channels]))
        kernel, stride = draw(st.integers(1, 3)), draw(st.integers(1, 2))
        layers.append(
            nn.Conv2d(
                channels, outputs, kernel, stride, draw(st.integers(1, 2)), groups=groups, bias=draw(st.booleans())
            )
        )
        if draw(st.booleans()):
            layers.append(nn.BatchNorm2d(outputs, affine=draw(st.booleans())))
        layers.append(draw(st.sampled_from([nn.ReLU(inplace=True), nn.Tanh(), nn.Identity(), nn.Dropout(0.5)])))
        channels = outputs
    if draw(st.booleans()):
        layers.append(nn.AdaptiveAvgPool2d(draw(st.integers(1, 2))))
    layers.append(nn.Flatten())
    features = nn.Sequential(*layers).eval()
    torch.manual_seed(draw(st.integers(0, 99)))
    width = features(torch.zeros(1, *shape)).shape[1]
    norm = [nn.BatchNorm1d(3)] if draw(st.booleans()) else []
    model = nn.Sequential(features, nn.Linear(width, 3), *norm, nn.GELU(), nn.Linear(3, 2))
    return prepared(model).double(), torch.randn(2, *shape, dtype=torch.float64)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(small_networks())
def test_random_networks_equal_eager(network: tuple[nn.Module, Tensor]) -> None:
    model, x = network
    graph = capture(model, (x,))
    with torch.no_grad():
        assert (graph(x) - model(x)).abs().max() <= 1e-10 * model(x).abs().max().clamp_min(1)


def test_functional_convolution_is_named_by_its_parameter() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = nn.Parameter(torch.randn(2, 1, 3))

        def forward(self, x: Tensor) -> Tensor:
            return F.conv1d(x, self.kernel)

    model = nn.Sequential(Functional()).eval()
    assert list(capture(model, (torch.randn(1, 1, 5),)).matrix_modules()) == ["0.kernel"]
