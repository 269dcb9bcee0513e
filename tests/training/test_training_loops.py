"""The loop of a recurrent layer as one operation: the steps one by one, gradients, noise, ranges, checkpointing."""

import math
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from aimc_compiler.training import on_chip, prepare_hwa, recurrent
from aimc_compiler.training.loops import run_loop

LAYERS: dict[str, tuple[type[nn.RNNBase], dict[str, Any]]] = {
    "lstm": (nn.LSTM, {}),
    "lstm of two directions": (nn.LSTM, {"bidirectional": True, "num_layers": 2, "batch_first": True}),
    "gru": (nn.GRU, {"num_layers": 2}),
    "gru without bias": (nn.GRU, {"bias": False}),
    "rnn": (nn.RNN, {"bidirectional": True}),
    "rnn relu": (nn.RNN, {"nonlinearity": "relu"}),
}
QUIET = {"read_noise": 0.0, "output_noise": 0.0, "converters": False}


class Counted:
    """``run_loop`` that counts the layers it ran, or runs none."""

    def __init__(self, *, runs: bool = True) -> None:
        self.runs, self.count = runs, 0

    def __call__(self, *given: Any) -> tuple[Tensor, ...] | None:
        found = run_loop(*given) if self.runs else None
        self.count += found is not None
        return found

    def patched(self) -> Any:
        return mock.patch.object(recurrent, "run_loop", self)


def inputs(layer: nn.RNNBase) -> tuple[Tensor, list[Tensor]]:
    """(6 steps of 4 samples, or the other way around, initial states)."""
    generator = torch.Generator().manual_seed(7)
    states = layer.num_layers * (2 if layer.bidirectional else 1)
    x = torch.randn(6, 4, layer.input_size, generator=generator)
    first = [torch.randn(states, x.shape[not layer.batch_first], layer.hidden_size, generator=generator) * 0.4
             for _ in range(2 if layer.mode == "LSTM" else 1)]  # fmt: skip
    return x.transpose(0, 1) if not layer.batch_first and x.shape[0] == 4 else x, first


def found(layer: nn.RNNBase, *, at_once: bool, **recipe: Any) -> dict[str, Tensor]:
    """Outputs, last states, ranges and gradients of a third mini-batch."""
    counted = Counted(runs=at_once)
    trained = prepare_hwa(layer, "analog-fabric", {"range_batches": 1, "range_sigmas": 1.3, **recipe}).train()
    x, states = inputs(layer)
    leaves = [each.requires_grad_() for each in (x.clone(), *(state.clone() for state in states))]
    with counted.patched():
        for batch in range(3):
            torch.manual_seed(batch)
            y, ends = trained(leaves[0], tuple(leaves[1:]) if len(states) > 1 else leaves[1])
    assert (counted.count > 0) == at_once
    ends = ends if isinstance(ends, tuple) else (ends,)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    ((y * weights).sum() + sum((end**2).sum() for end in ends)).backward()
    kept = {"y": y} | {f"end {k}": end for k, end in enumerate(ends)} | dict(trained.named_buffers())
    kept |= {f"gradient {k}": each.grad for k, each in enumerate(leaves) if each.grad is not None}
    for name, parameter in trained.named_parameters():
        kept[name] = parameter
        if parameter.grad is not None:
            kept[f"gradient of {name}"] = parameter.grad
    return {name: value.detach() for name, value in kept.items()}


def far(one: Tensor, other: Tensor) -> float:
    """The error of ``one`` over the size of ``other``."""
    return float((one.double() - other.double()).norm()) / max(float(other.double().norm()), 1e-9)


@pytest.mark.parametrize("converters", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_all_steps_at_once_are_the_steps_one_by_one(name: str, converters: bool) -> None:
    torch.manual_seed(0)
    kind, options = LAYERS[name]
    layer = kind(5, 12, **options)
    recipe = QUIET | {"converters": converters}
    one, other = (found(layer, at_once=at_once, **recipe) for at_once in (True, False))
    assert one.keys() == other.keys()
    assert sum(key.startswith("gradient of") for key in one) == len(one.keys() & {f"gradient of {key}" for key in one})
    for key, value in one.items():
        assert far(value, other[key]) < 5e-6, key


def test_a_state_of_several_row_blocks_is_the_steps_one_by_one() -> None:
    torch.manual_seed(0)
    layer = nn.LSTM(5, 600)
    one, other = (found(layer, at_once=at_once, **QUIET) for at_once in (True, False))
    assert one["analog.weight_hh_l0.input_range"].shape == (1, 2)
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert far(value, other[key]) < 2e-5, key


@pytest.mark.parametrize(
    "recipe",
    [{"drop_connect": 0.2, "drift_s": (1.0, 1e6)}, {"noise": "gaussian"}, {"ranges": "fixed"}, {"range_batches": 9}],
)
def test_recipes_of_other_weights_and_ranges_run_at_once(recipe: dict[str, Any]) -> None:
    torch.manual_seed(0)
    layer = nn.LSTM(5, 12)
    one, other = (found(layer, at_once=at_once, **QUIET, **recipe) for at_once in (True, False))
    for key, value in one.items():
        assert far(value, other[key]) < 5e-6, key


@pytest.mark.parametrize("recipe", [{"column_gain": True}, {"clip": "learned"}, {"ir_drop": True}])
def test_other_models_go_step_by_step(recipe: dict[str, Any]) -> None:
    counted = Counted()
    with counted.patched():
        prepare_hwa(nn.LSTM(5, 12), "analog-fabric", recipe).train()(torch.randn(3, 2, 5))
        prepare_hwa(nn.LSTM(5, 12), "analog-fabric").double().train()(torch.randn(3, 2, 5).double())
        prepare_hwa(nn.LSTM(5, 12, proj_size=3), "analog-fabric").train()(torch.randn(3, 2, 5))
        trained = prepare_hwa(nn.LSTM(5, 12), "analog-fabric").eval()
        trained(torch.randn(3, 2, 5))
    assert not counted.count


def test_gradients_are_finite_differences_where_the_model_is_smooth() -> None:
    """Along random directions of everything that is learned: weights, biases, inputs, states."""
    for kind in (nn.LSTM, nn.GRU, nn.RNN):
        torch.manual_seed(0)
        layer = kind(4, 6)
        trained = prepare_hwa(layer, "analog-fabric", QUIET | {"noise": "none", "range_sigmas": 30.0}).train()
        x, states = inputs(layer)
        trained(x)
        values = {name: value for name, value in trained.named_parameters() if "range" not in name}

        def loss(trained: nn.Module = trained, x: Tensor = x, states: list[Tensor] = states) -> Tensor:
            y, _ = trained(x, tuple(states) if len(states) > 1 else states[0])
            return y.double().square().sum()

        leaves = {**values, "x": x.requires_grad_(), **{f"state {k}": s.requires_grad_() for k, s in enumerate(states)}}
        loss().backward()
        for name, leaf in leaves.items():
            assert leaf.grad is not None
            direction = leaf.grad / leaf.grad.norm()
            ends = []
            for shift in (0.01, -0.01):
                with torch.no_grad():
                    leaf += shift * direction
                    ends.append(float(loss()))
                    leaf -= shift * direction
            assert (ends[0] - ends[1]) / 0.02 == pytest.approx(float(leaf.grad.norm()), rel=2e-3), name


def test_noise_of_a_step_is_the_models_and_anew() -> None:
    """One step of an RNN far above 0, where its relu does nothing."""
    torch.manual_seed(0)
    plain = nn.RNN(3, 40, nonlinearity="relu")
    with torch.no_grad():
        plain.weight_ih_l0.zero_()
        plain.bias_ih_l0.fill_(20.0)
        plain.weight_hh_l0.mul_(1e-3)
    recipe = {"noise": "none", "converters": False, "range_batches": 1, "range_sigmas": 20.0}
    trained = prepare_hwa(plain, "analog-fabric", recipe).train()
    h = torch.rand(1, 1, 40).expand(1, 3000, 40).contiguous()
    x = torch.zeros(1, 3000, 3)
    with torch.no_grad():
        trained.analog.weight_hh_l0.input_range.fill_(30.0)
        trained.analog.weight_hh_l0.seen.fill_(5)
        trained.analog.weight_ih_l0.settings = trained.analog.weight_ih_l0.quiet
        one, other = trained(x, h)[0][0], trained(x, h)[0][0]
        quiet = torch.relu(20.0 + plain.bias_hh_l0 + h[0] @ plain.weight_hh_l0.T)
    s, r = plain.weight_hh_l0.detach().abs().amax(1), 30.0
    power = ((plain.weight_hh_l0 / s[:, None]).abs() * (h[0, 0] / r) ** 2).sum(1).detach()
    errors = (one - quiet) / (s * r)
    assert float((errors.var(0) / (0.0175**2 * power + 0.04**2)).mean()) == pytest.approx(1.0, rel=0.02)
    assert float(errors.mean()) == pytest.approx(0.0, abs=5 * 0.05 / math.sqrt(errors.numel()))
    again = (other - quiet) / (s * r)
    assert abs(float((errors * again).mean() / errors.var())) < 0.02


def test_noise_of_steps_and_samples_is_independent_and_does_not_depend_on_the_batch() -> None:
    torch.manual_seed(0)
    recipe = {"noise": "none", "converters": False, "range_batches": 1, "range_sigmas": 20.0}
    plain = nn.RNN(3, 8)
    with torch.no_grad():
        plain.weight_hh_l0.mul_(1e-3)  # no noise of a step is seen in the next
    trained = prepare_hwa(plain, "analog-fabric", recipe).train()
    x = torch.randn(1, 1, 3).expand(40, 50, 3).contiguous()
    with torch.no_grad():
        trained(x)
        trained.analog.weight_ih_l0.settings = trained.analog.weight_ih_l0.quiet  # noise of the loop alone
        torch.manual_seed(1)
        whole = trained(x)[0]
        torch.manual_seed(1)
        part = trained(x[:, :20])[0]
    torch.testing.assert_close(whole[:, :20], part, rtol=0, atol=1e-6)
    noise = whole - whole.mean(1, keepdim=True)
    assert float(noise.std()) > 1e-5
    noise /= noise.std((0, 1))
    for rows in (noise.flatten(1), noise.transpose(0, 1).flatten(1)):
        apart = torch.corrcoef(rows) - torch.eye(len(rows))
        assert float(apart.square().mean()) < 1.3 / rows.shape[1]


def test_threads_do_not_change_the_noise() -> None:
    torch.manual_seed(0)
    trained = prepare_hwa(nn.LSTM(8, 64), "analog-fabric", {"converters": False, "range_batches": 1}).train()
    x, made, threads = torch.randn(64, 64, 8), [], torch.get_num_threads()
    trained(x)
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            torch.manual_seed(2)
            trained.zero_grad()
            y = trained(x)[0]
            y.square().sum().backward()
            made.append((y.detach(), trained.weight_hh_l0.grad.clone(), trained.analog.weight_hh_l0.input_range.grad))
    finally:
        torch.set_num_threads(threads)
    for one, other in zip(*made, strict=True):
        assert far(one, other) < 1e-5


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_meets_the_same_noise_again(reentrant: bool) -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.saves = nn.LSTM(4, 10, 2), False

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = (
                checkpoint(lambda z: self.lstm(z)[0], x, use_reentrant=reentrant) if self.saves else self.lstm(x)[0]
            )
            return y

    torch.manual_seed(0)
    trained = prepare_hwa(Network(), "analog-fabric", {"range_batches": 1}).train()
    x, gradients = torch.randn(5, 3, 4), []
    trained(x)
    for saves in (True, False):
        torch.manual_seed(1)
        trained.zero_grad()
        trained.saves = saves
        y = trained(x.requires_grad_())
        y.square().sum().backward()
        gradients.append({name: p.grad.clone() for name, p in trained.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name


def test_without_gradients_values_are_the_same() -> None:
    torch.manual_seed(0)
    for kind in (nn.LSTM, nn.GRU, nn.RNN):
        trained = prepare_hwa(kind(4, 10), "analog-fabric", {"range_batches": 1}).train()
        x, made = torch.randn(5, 3, 4), []
        trained(x)
        for wants in (True, False):
            torch.manual_seed(1)
            with torch.set_grad_enabled(wants):
                y, ends = trained(x)
            made.append([y, *(ends if isinstance(ends, tuple) else (ends,))])
        assert all(torch.equal(one, other) for one, other in zip(*made, strict=True))


def test_an_attached_chip_runs_in_training_mode_too() -> None:
    torch.manual_seed(0)
    trained = prepare_hwa(nn.LSTM(4, 10), "analog-fabric").train()
    x, counted = torch.randn(5, 3, 4), Counted()
    trained(x)
    with counted.patched(), on_chip(trained, seed=1), torch.no_grad():
        trained(x)
    assert not counted.count
