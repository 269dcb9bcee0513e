"""The rule of the input range, in torch's operations and in the compiled pass, against a loop over inputs."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from aimc_compiler.analog import Contraction
from aimc_compiler.training import prepare_hwa
from aimc_compiler.training.fused import FusedBlock, Passes, multiplied
from aimc_compiler.training.ranges import RangeRule, scaled


def by_hand(x: Tensor, r: float, behind: Tensor, decay: float, inside: float) -> float:
    """The rule, an input at a time. behind: dL/dx behind the clip."""
    total, within = 0.0, 0
    for value, gradient in zip(x.flatten().tolist(), behind.flatten().tolist(), strict=True):
        if value >= r:
            total += min(gradient, 0.0)
        elif value <= -r:
            total -= max(gradient, 0.0)
        else:
            within += 1
    return r * total + (decay * r if within / x.numel() > inside else 0.0)


def compiled_outputs(x: Tensor, ranges: Tensor, rule: RangeRule, step: float = 0.0) -> Tensor:
    """Codes times their range: the product with a matrix of ones on the diagonal. x: (batch, windows, rows), or (batch,
    groups, channels, *spatial) where there are several ranges."""
    groups, channels = (1, x.shape[-1]) if x.dim() == 3 else x.shape[1:3]
    diagonal = torch.eye(channels).expand(groups, channels, channels)
    contraction, kernel = Contraction(kind="linear"), diagonal.contiguous()
    if x.dim() > 3:
        contraction = Contraction(kind="conv2d", kernel=(1, 1), stride=(1, 1), padding=(0, 0), dilation=(1, 1))
        kernel = diagonal[..., None, None].contiguous()
    how = Passes(contraction=contraction, step=step, rule=rule, read=0.0, output=0.0, out_step=0.0, bound=9e9, key=0)
    block = FusedBlock(main=kernel, magnitude=torch.empty(0))
    return multiplied(x, ranges, block, torch.ones(groups, channels), how)


@settings(deadline=None, max_examples=60)
@given(
    r=st.floats(0.2, 4.0),
    count=st.integers(1, 60),
    seed=st.integers(0, 10_000),
    inside=st.sampled_from([0.0, 0.5, 0.95]),
    compiled=st.booleans(),
)
def test_the_gradient_of_a_range_is_the_rule(r: float, count: int, seed: int, inside: float, compiled: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 1, count, generator=generator).requires_grad_()
    weights = torch.randn(2, 1, count, generator=generator)
    ranges = torch.tensor([r]).requires_grad_()
    rule = RangeRule(decay=1e-3, inside=inside, learns=True)
    if compiled:
        y = compiled_outputs(x, ranges, rule)
    else:
        y = scaled(x, ranges, rule.decay, rule.inside, learns=True) * ranges.detach()
    torch.testing.assert_close(y, x.clamp(-r, r), rtol=1e-5, atol=1e-6)
    (y * weights).sum().backward()
    assert ranges.grad is not None
    assert x.grad is not None
    assert float(ranges.grad) == pytest.approx(by_hand(x.detach(), r, weights, 1e-3, inside), rel=1e-4, abs=1e-5)
    kept = x.detach().abs() <= r
    torch.testing.assert_close(x.grad, torch.where(kept, weights, torch.zeros(())), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("compiled", [True, False])
def test_each_group_has_the_rule_of_its_own_inputs(compiled: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x, weights = torch.randn(2, 3, 2, 4, 4, 5, generator=generator)
    ranges = torch.tensor([0.7, 1.9]).requires_grad_()
    rule = RangeRule(decay=1e-3, inside=0.5, learns=True)
    if compiled:
        y = compiled_outputs(x.requires_grad_(), ranges, rule)
    else:
        own = ranges.reshape(-1, 1, 1, 1)
        y = scaled(x, own, rule.decay, rule.inside, learns=True) * own.detach()
    (y * weights).sum().backward()
    assert ranges.grad is not None
    for group, r in enumerate([0.7, 1.9]):
        expected = by_hand(x[:, group].detach(), r, weights[:, group], 1e-3, 0.5)
        assert float(ranges.grad[group]) == pytest.approx(expected, rel=1e-4)


def test_codes_of_the_compiled_pass_are_the_converters() -> None:
    x, r, step = torch.linspace(-3, 3, 601).reshape(1, 1, -1), torch.tensor([2.0]), 2 / 254
    y = compiled_outputs(x, r, RangeRule(decay=0.0, inside=1.0, learns=False), step)
    expected = ((x / r).clamp(-1, 1) / step).round() * step
    assert torch.equal(y, expected.clamp(-1, 1) * r)


def test_a_range_follows_the_inputs_first_and_is_learned_then() -> None:
    torch.manual_seed(0)
    trained = prepare_hwa(nn.Linear(64, 8), "analog-fabric", {"range_batches": 3, "range_sigmas": 3.0}).train()
    parameter = trained.analog.input_range
    expected = 0.0
    for number in range(5):
        x = torch.randn(50, 64) * (number + 1)
        trained.zero_grad()
        trained(x).square().sum().backward()
        if number < 3:
            expected = (expected * number + 3 * float(x.std(correction=0))) / (number + 1)
            assert float(parameter.detach()) == pytest.approx(expected, rel=1e-5)
            assert float(parameter.grad) == 0.0
        else:
            assert float(parameter.detach()) == pytest.approx(expected, rel=1e-5)
            assert float(parameter.grad) != 0.0


def test_inputs_that_are_all_zero_leave_a_range() -> None:
    trained = prepare_hwa(nn.Linear(4, 2), "analog-fabric").train()
    trained(torch.zeros(3, 4))
    assert float(trained.analog.input_range.detach()) == 1.0


def test_the_range_of_a_loop_follows_all_its_steps() -> None:
    torch.manual_seed(0)
    trained = prepare_hwa(nn.GRU(4, 16, batch_first=True), "analog-fabric", {"range_sigmas": 3.0}).train()
    recurrent = trained.analog["weight_hh_l0"]
    outputs, _ = trained(torch.randn(8, 6, 4))
    states = torch.cat([torch.zeros(8, 1, 16), outputs[:, :-1]], 1)
    power = torch.stack([state.var(correction=0) for state in states.unbind(1)]).mean()
    assert float(recurrent.input_range.detach()) == pytest.approx(3 * float(power.detach().sqrt()), rel=1e-4)


def test_fixed_ranges_have_no_gradient() -> None:
    trained = prepare_hwa(nn.Linear(4, 2), "analog-fabric", {"ranges": "fixed", "range_batches": 2}).train()
    for _ in range(4):
        trained(torch.randn(9, 4)).sum().backward()
    assert trained.analog.input_range.grad is None


@pytest.mark.parametrize(("sigmas", "sign"), [(1.5, 1), (2.8, -1)])  # many inputs are clipped, or few
@pytest.mark.parametrize("kind", ["linear", "windows", "conv"])
def test_the_gradient_of_a_range_is_the_same_where_inputs_have_none(kind: str, sigmas: float, sign: int) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(4, 8, 3, padding=1) if kind == "conv" else nn.Linear(40, 30)
    x = torch.randn({"linear": (64, 40), "windows": (16, 4, 40), "conv": (16, 4, 9, 9)}[kind])
    found = []
    for wanted in (False, True):
        torch.manual_seed(1)
        trained = prepare_hwa(plain, "analog-fabric", {"range_batches": 1, "range_sigmas": sigmas}).train()
        trained(x)
        (sign * trained(x.clone().requires_grad_(wanted)).square().sum()).backward()
        found.append(float(trained.analog.input_range.grad))
    assert found[0] == pytest.approx(found[1], rel=5e-3)
    assert found[0] < 0
