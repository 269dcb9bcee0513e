"""A step of training: the compiled passes against torch's operations, gradients against finite differences and the
straight-through rule, noise against the model, checkpointing."""

import copy
import math
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from trained_networks import BothWays

from aimc_compiler.training import Recipe, hold_weights, prepare_hwa
from aimc_compiler.training.matrix import TrainedMatrix

SHAPES: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "linear": (nn.Linear(30, 12), (5, 30)),
    "linear of two row blocks": (nn.Linear(1100, 12), (5, 1100)),
    "sequence": (nn.Linear(30, 12), (5, 7, 30)),
    "conv": (nn.Conv2d(8, 6, 3, padding=1), (3, 8, 6, 6)),
    "conv of groups": (nn.Conv2d(8, 6, 3, stride=2, groups=2), (3, 8, 7, 7)),
    "conv of two row blocks": (nn.Conv2d(70, 6, 3), (3, 70, 5, 5)),
    "conv1d": (nn.Conv1d(8, 6, 3), (3, 8, 9)),
}


def run(module: nn.Module, x: Tensor, *, fused: bool, **recipe: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """The output of the second mini-batch and the gradients of its squares."""
    torch.manual_seed(0)
    trained = prepare_hwa(module, "analog-fabric", Recipe(range_batches=1, range_sigmas=2.0, **recipe)).train()
    with mock.patch.object(TrainedMatrix, "_fuses", (lambda *_: True) if fused else (lambda *_: False)):
        trained(x.detach())
        x = x.detach().requires_grad_()
        y = trained(x)
        y.square().sum().backward()
    assert x.grad is not None
    return y.detach(), {"x": x.grad} | {name: p.grad for name, p in trained.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("converters", [True, False])
@pytest.mark.parametrize("name", SHAPES)
def test_the_compiled_passes_are_torchs_operations(name: str, converters: bool) -> None:
    torch.manual_seed(1)
    module, shape = SHAPES[name]
    x = torch.randn(shape)
    quiet = {"read_noise": 0.0, "output_noise": 0.0, "converters": converters}
    y, gradients = run(module, x, fused=True, **quiet)
    expected, theirs = run(module, x, fused=False, **quiet)
    step = 20 / 254 * float(expected.abs().max()) if converters else 1e-5 * float(expected.abs().max())
    same = (y - expected).abs() <= 1e-5 * expected.abs().max()
    assert float(same.double().mean()) > (0.98 if converters else 0.999)  # a sum may round to the code beside
    assert float((y - expected).abs().max()) <= step
    assert gradients.keys() == theirs.keys()
    for key, gradient in gradients.items():
        assert float((gradient - theirs[key]).norm()) <= (0.02 if converters else 1e-4) * float(theirs[key].norm()), key


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_noise_of_reading_and_of_outputs_is_the_models(kind: str, fused: bool) -> None:
    torch.manual_seed(0)
    plain = nn.Linear(40, 50) if kind == "linear" else nn.Conv2d(5, 50, 3)
    x = torch.rand(1, 40) if kind == "linear" else torch.rand(1, 5, 3, 3)
    recipe = Recipe(noise="none", converters=False, range_batches=1, range_sigmas=20.0)
    trained = prepare_hwa(plain, "analog-fabric", recipe).train()
    with (
        mock.patch.object(TrainedMatrix, "_fuses", (lambda *_: True) if fused else (lambda *_: False)),
        torch.no_grad(),
    ):
        batch = x.expand(4000, *x.shape[1:])
        y = trained(batch).reshape(4000, 50)
    w = plain.weight.detach().reshape(50, -1)
    s, r = w.abs().amax(1), float(trained.analog.input_range.detach())
    variance = 0.0175**2 * ((w / s[:, None]).abs() * (x.reshape(-1) / r) ** 2).sum(1) + 0.04**2
    found = (y - plain(x).detach().reshape(50)) / (s * r)
    assert float(found.mean()) == pytest.approx(0.0, abs=5 * 0.06 / math.sqrt(found.numel()))
    assert float((found.var(0) / variance).mean()) == pytest.approx(1.0, rel=0.015)
    flat = found.flatten()
    assert abs(float((flat[1:] * flat[:-1]).mean() / flat.var())) < 0.02


def test_gradients_are_finite_differences_where_the_model_is_smooth() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    recipe = Recipe(noise="none", read_noise=0.0, output_noise=0.0, converters=False, range_batches=1, ir_drop=True,
                    range_sigmas=30.0, column_gain=True, remap_every=10**9)  # fmt: skip
    trained = prepare_hwa(plain, "analog-fabric", recipe).double().train()
    x = torch.randn(4, 6, dtype=torch.float64)
    trained(x)
    names = [name for name, parameter in trained.named_parameters() if "range" not in name]
    values = dict(trained.named_parameters())

    def loss(*changed: Tensor) -> Tensor:
        y: Tensor = torch.func.functional_call(trained, dict(zip(names, changed, strict=True)), (x,))
        return y

    inputs = tuple(values[name].detach().clone().requires_grad_() for name in names)
    assert torch.autograd.gradcheck(loss, inputs, eps=1e-6, atol=1e-6)  # scales are constants of a step


def test_rounding_passes_gradients_and_clipping_stops_them() -> None:
    trained = prepare_hwa(nn.Linear(1, 1, bias=False), "analog-fabric", {"noise": "none", "read_noise": 0.0,
                          "output_noise": 0.0, "range_batches": 1}).train()  # fmt: skip
    with torch.no_grad():
        trained.weight.fill_(0.5)
        trained.analog.input_range.fill_(2.0)
        trained.analog.seen.fill_(1)
    x = torch.tensor([[0.3], [1.99], [2.5], [-3.0]], requires_grad=True)
    trained(x).sum().backward()
    assert x.grad is not None
    assert x.grad.flatten().tolist() == pytest.approx([0.5, 0.5, 0.0, 0.0])
    codes = 2.0 * ((x.detach() / 2).clamp(-1, 1) * 127).round() / 127
    assert float(trained.weight.grad) == pytest.approx(float(codes.sum()), rel=1e-6)


def test_the_gradient_of_a_weight_is_that_of_the_disturbed_network() -> None:
    torch.manual_seed(0)
    trained = prepare_hwa(nn.Linear(8, 4, bias=False), "analog-fabric", {"read_noise": 0.0, "output_noise": 0.0,
                          "converters": False, "range_batches": 1, "range_sigmas": 30.0}).train()  # fmt: skip
    x = torch.randn(5, 8)
    trained(x)
    y = trained(x)
    y.square().sum().backward()
    expected = 2 * y.detach().T @ x
    torch.testing.assert_close(trained.weight.grad, expected, rtol=1e-4, atol=1e-5)


def test_learned_gains_and_bounds_have_gradients_and_are_exported() -> None:
    torch.manual_seed(0)
    plain = nn.Linear(600, 4)
    trained = prepare_hwa(plain, "analog-fabric", {"column_gain": True, "clip": "learned"}).train()
    x = torch.randn(5, 600)
    trained(x)
    trained(x).square().sum().backward()
    assert trained.analog.column_gain.shape == trained.analog.column_bound.shape == (2, 1, 4)
    assert bool((trained.analog.column_gain.grad != 0).all())
    with torch.no_grad():
        trained.analog.column_gain.fill_(2.0)
        trained.analog.column_bound.mul_(0.5)
    exported = trained.__aimc_export__()[0].weight
    bound = trained.analog.column_bound.detach()
    parts = [part.T for part in plain.weight.detach().T.split(300)]
    expected = torch.cat([2 * torch.clamp(p, -b.T, b.T) for p, b in zip(parts, bound, strict=True)], 1)
    torch.testing.assert_close(exported, expected)


@pytest.mark.parametrize("clip", ["column", "k-sigma"])
def test_weights_are_held_to_their_bounds_after_an_update(clip: str) -> None:
    torch.manual_seed(0)
    trained = prepare_hwa(
        nn.Linear(40, 4), "analog-fabric", {"clip": clip, "clip_sigmas": 1.0, "remap_every": 100}
    ).train()
    x = torch.randn(5, 40)
    trained(x)
    largest = trained.weight.detach().abs().amax(1)
    with torch.no_grad():
        trained.weight.mul_(3.0)
        deviation = trained.weight.square().mean().sqrt()
    trained(x)
    bound = largest if clip == "column" else deviation.expand(4)
    assert bool((trained.weight.detach().abs().amax(1) <= bound * (1 + 1e-6)).all())
    assert bool((trained.weight.detach().abs().amax(1) < 3 * largest * (1 - 1e-6)).any())


def test_a_transposed_convolution_is_clipped_too() -> None:
    torch.manual_seed(0)
    plain = nn.ConvTranspose1d(6, 4, 3, groups=2)
    trained = prepare_hwa(plain, "analog-fabric", {"clip": "column", "remap_every": 100}).train()
    x = torch.randn(5, 6, 7)
    trained(x)
    torch.testing.assert_close(trained.weight.detach(), plain.weight.detach())
    with torch.no_grad():
        trained.weight.mul_(3.0)
    trained(x).square().sum().backward()
    assert trained.weight.grad is not None
    columns = trained.weight.detach().reshape(2, 3, 2, 3).abs().amax(1)
    torch.testing.assert_close(columns, plain.weight.detach().reshape(2, 3, 2, 3).abs().amax(1))


def test_weights_stored_in_any_order_are_clipped() -> None:
    torch.manual_seed(0)
    trained = prepare_hwa(nn.Conv2d(3, 4, 3), "analog-fabric", {"clip_sigmas": 1.0}).train()
    trained.weight.data = trained.weight.data.contiguous(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 8, 8)
    trained(x)
    with torch.no_grad():
        deviation = float(trained.weight.mul_(2.0).square().mean().sqrt())
    trained(x)
    assert float(trained.weight.detach().abs().max()) == pytest.approx(deviation)


def test_equal_weights_are_no_outliers() -> None:
    """Deviations are from 0: of weights that are all the same none is far out."""
    plain = nn.Linear(6, 3)
    nn.init.constant_(plain.weight, 0.5)
    trained = prepare_hwa(plain, "analog-fabric").train()
    trained(torch.randn(5, 6))
    with torch.no_grad():
        trained.weight.mul_(2.0)
    trained(torch.randn(5, 6))
    torch.testing.assert_close(trained.weight.detach(), 2 * plain.weight.detach())


@pytest.mark.parametrize("form", ["self", "shared", "separate"])
def test_packed_weights_of_attention_are_clipped_once_an_update(form: str) -> None:
    torch.manual_seed(0)
    plain = nn.MultiheadAttention(8, 2, batch_first=True)
    x = torch.randn(2, 5, 8)
    inputs = {"self": (x, x, x), "shared": (x, y := x + 1, y), "separate": (x, x + 1, x + 2)}[form]
    trained = prepare_hwa(plain, "analog-fabric", {"clip_sigmas": 1.0}, example_inputs=inputs).train()
    for _ in range(2):  # no update between: nothing is held
        trained(*inputs)[0].square().sum().backward()
    assert torch.equal(trained.in_proj_weight, plain.in_proj_weight)
    with torch.no_grad():
        trained.in_proj_weight.mul_(2.0)
    trained(*inputs)[0].square().sum().backward()
    rows = {"self": (24,), "shared": (8, 16), "separate": (8, 8, 8)}[form]
    for held, part in zip(trained.in_proj_weight.split(rows), plain.in_proj_weight.split(rows), strict=True):
        bound = 2 * float(part.detach().square().mean().sqrt())
        torch.testing.assert_close(held, (2 * part).clamp(-bound, bound))
    kept = trained.in_proj_weight.detach().clone()
    trained(*inputs)
    assert torch.equal(trained.in_proj_weight, kept)


UPDATES = {
    "fused": lambda weights: torch.optim.AdamW(weights, lr=1.0, fused=True),
    "plain": lambda weights: torch.optim.AdamW(weights, lr=1.0),
}


@pytest.mark.parametrize("kind", UPDATES)
def test_every_optimiser_is_followed(kind: str) -> None:
    """Fused ones do not count what they write."""
    torch.manual_seed(0)
    trained = prepare_hwa(nn.Linear(40, 4), "analog-fabric", {"clip_sigmas": 1.0}).train()
    optimiser, x = UPDATES[kind]([trained.weight]), torch.randn(5, 40)
    for _ in range(3):
        trained(x).square().sum().backward()
        optimiser.step()
    bound = float(trained.weight.detach().square().mean().sqrt())
    hold_weights(trained)
    assert float(trained.weight.detach().abs().max()) == pytest.approx(bound)
    kept = trained.weight.detach().clone()
    for twin in (trained, copy.deepcopy(trained)):  # without an update nothing is held again
        hold_weights(twin)
        twin(x)
        assert torch.equal(twin.weight, kept)


def test_weights_that_are_not_trained_stay() -> None:
    torch.manual_seed(0)
    trained = prepare_hwa(nn.Linear(40, 4), "analog-fabric", {"clip_sigmas": 1.0}).train()
    kept = trained.weight.requires_grad_(False).clone()
    for _ in range(3):
        trained(torch.randn(5, 40))
        with torch.no_grad():
            trained.bias.add_(1.0)
    assert torch.equal(trained.weight, kept)


def test_shared_weights_are_held_once() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    plain[1].weight = plain[0].weight
    trained = prepare_hwa(plain, "analog-fabric", {"clip_sigmas": 1.0}).train()
    x = torch.randn(5, 6)
    trained(x)
    with torch.no_grad():
        bound = float(trained[0].weight.mul_(2.0).square().mean().sqrt())
    for _ in range(3):
        trained(x)
    assert float(trained[1].weight.detach().abs().max()) == pytest.approx(bound)


@pytest.mark.parametrize("clip", ["column", "k-sigma"])
def test_a_weight_that_is_stored_both_ways_is_held_once(clip: str) -> None:
    torch.manual_seed(0)
    network = BothWays(nn.Conv1d(4, 8, 3, padding=1), nn.ConvTranspose1d(8, 4, 3, padding=1))
    trained, x = prepare_hwa(network, "analog-fabric", {"clip": clip}).train(), torch.randn(3, 4, 9)
    trained(x)
    with torch.no_grad():
        trained.there.weight.copy_(torch.randn(8, 4, 3) ** 3)
    trained(x)
    held = trained.there.weight.detach().clone()
    for _ in range(3):
        trained(x)
    assert torch.equal(trained.there.weight, held)


def test_columns_are_scaled_anew_in_time() -> None:
    trained = prepare_hwa(nn.Linear(40, 4), "analog-fabric", {"remap_every": 3, "clip": "none"}).train()
    seen = []
    for _ in range(5):
        trained(torch.randn(5, 40))
        seen.append(float(trained.analog.column_scale[0, 0, 0]))
        with torch.no_grad():
            trained.weight.mul_(1.5)
    assert seen[0] == seen[1] == seen[2]
    assert seen[3] == seen[4] == pytest.approx(seen[0] * 1.5**3)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_meets_the_same_noise_again(reentrant: bool) -> None:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(3))
            self.saves = False

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = checkpoint(layer, x, use_reentrant=reentrant) if self.saves else layer(x)
                x = torch.tanh(x)
            return x

    torch.manual_seed(0)
    plain, x = Deep(), torch.randn(4, 16, requires_grad=True)
    found = []
    for saves in (False, True):
        trained = prepare_hwa(plain, "analog-fabric", {"range_batches": 1}).train()
        trained.saves = saves
        torch.manual_seed(1)
        for _ in range(3):
            trained.zero_grad()
            y = trained(x)
            y.square().sum().backward()
        found.append([y.detach(), *(p.grad for p in trained.parameters())])
        assert [int(layer.analog.seen) for layer in trained.layers] == [3, 3, 3]
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("kind", ["linear", "lstm"])
def test_checkpointing_of_the_whole_network_is_no_new_mini_batch(kind: str, reentrant: bool) -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 9) if kind == "linear" else nn.LSTM(6, 9)

        def forward(self, x: Tensor) -> Tensor:
            y = self.layer(x)
            return y if isinstance(y, Tensor) else y[0]  # type: ignore[no-any-return]

    torch.manual_seed(0)
    plain, parts, found = Network(), [torch.randn(4, 3, 6, requires_grad=True) for _ in range(2)], []
    for saves in (False, True):
        trained = prepare_hwa(plain, "analog-fabric", {"range_batches": 2}).train()
        torch.manual_seed(1)
        made: list[Tensor] = []
        for batches in ((parts[:1],) * 2, (parts,) * 2):  # ranges follow the first two; then two at a time
            for together in batches:
                trained.zero_grad()
                made = [checkpoint(trained, x, use_reentrant=reentrant) if saves else trained(x) for x in together]
                for y in made:
                    y.square().sum().backward()
        assert trained.hwa.batches.number == 6
        found.append([*(y.detach() for y in made), *(p.grad for p in trained.parameters())])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_a_step_is_a_function_of_the_seed_alone() -> None:
    def weights(threads: int) -> dict[str, Tensor]:
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        trained = prepare_hwa(nn.Sequential(nn.Linear(300, 300), nn.ReLU(), nn.Linear(300, 4)), "analog-fabric").train()
        optimiser = torch.optim.SGD(trained.parameters(), lr=0.1)
        for _ in range(3):
            optimiser.zero_grad()
            trained(torch.randn(300, 300)).square().mean().backward()
            optimiser.step()
        return dict(trained.state_dict())

    before = torch.get_num_threads()
    try:
        one, same = weights(1), weights(1)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one[name], same[name]) for name in one)
