"""The noise of weights: its statistics, what it leaves alone, and that a mini-batch sees it once."""

import math

import pytest
import torch
from torch import Tensor, nn

from aimc_compiler.analog.models import statistics_of
from aimc_compiler.chip import load_chip
from aimc_compiler.errors import RecipeError
from aimc_compiler.training import Recipe, mini_batch, prepare_hwa
from aimc_compiler.training.disturbance import Disturbance, disturbed
from aimc_compiler.training.fused import side_type
from aimc_compiler.training.weights import WeightNoise


def noise(chip: str = "analog-fabric", *settings: str, **recipe: object) -> WeightNoise:
    spec = load_chip(chip, list(settings))
    chosen = Recipe(**({"noise_factor": 3.0, "drift_s": None} | recipe))  # type: ignore[arg-type]
    return WeightNoise.of(chosen, spec.tile_types["tile"], spec.nonidealities, spec.evaluation.times_s)


def programming_sd(r: Tensor) -> Tensor:
    """Of doped Ge2Sb2Te5 (Nandakumar et al., ICECS 2019), over g_max."""
    return (0.26348 + 1.9650 * r - 1.1731 * r**2) / 25


@pytest.mark.parametrize("factor", [1.0, 3.0])
@pytest.mark.parametrize("target", [0.4, -0.8])
def test_programming_noise_has_its_deviation(factor: float, target: float) -> None:
    w = torch.full((1, 400, 500), target)
    found = noise(noise_factor=factor).disturb(w, 0, seed=1, name="a")
    expected = factor * float(programming_sd(torch.tensor(abs(target))))
    assert float(found.mean()) == pytest.approx(target, abs=5 * expected / math.sqrt(w.numel()))
    assert float(found.std()) == pytest.approx(expected, rel=0.01)


def test_noise_flips_no_sign_and_leaves_zeros() -> None:
    w = torch.cat([torch.full((1, 100, 500), 0.01), torch.zeros(1, 100, 500), torch.full((1, 100, 500), -0.01)], 1)
    found = noise(noise_factor=5.0).disturb(w, 0, seed=1, name="a")
    assert bool((found[:, :100] >= 0).all())
    assert bool((found[:, :100] == 0).any())
    assert bool((found[:, 100:200] == 0).all())
    assert bool((found[:, 200:] <= 0).all())


def test_the_factor_rises_along_the_ramp() -> None:
    ramp = noise(noise_factor=4.0, noise_ramp=100)
    assert [ramp.ramp(batch) for batch in (0, 25, 100, 500)] == [0.0, 0.25, 1.0, 1.0]
    w = torch.full((1, 5, 5), 0.3)
    assert torch.equal(ramp.disturb(w, 0, seed=1, name="a"), w)
    aged = noise(noise_ramp=100, drift_s=(1.0, 3.15e7))
    off = [aged.disturb(w, batch, seed=1, name="a") - w for batch in (0, 25, 100, 500)]
    torch.testing.assert_close(off[0], torch.zeros(1, 5, 5), atol=1e-7, rtol=0)
    torch.testing.assert_close(off[1], 0.25 * off[2], atol=1e-6, rtol=1e-5)
    assert torch.equal(off[2], off[3])


def test_several_pairs_a_weight_average_their_noise() -> None:
    w = torch.full((1, 400, 500), 0.5)
    one = noise(noise_factor=1.0).disturb(w, 0, 1, "a").std()
    two = noise("analog-fabric", "tile.device.pairs=2", noise_factor=1.0).disturb(w, 0, 1, "a").std()
    assert float(two / one) == pytest.approx(1 / math.sqrt(2), rel=0.01)


def test_gaussian_noise_and_dropped_connections() -> None:
    w = torch.full((1, 400, 500), 0.5)
    found = noise(noise="gaussian", noise_factor=2.0, gaussian_sd=0.03).disturb(w, 0, 1, "a")
    assert float(found.std()) == pytest.approx(0.06, rel=0.01)
    dropped = noise(noise="none", drop_connect=0.01).disturb(w, 0, 1, "a")
    assert float((dropped == 0).double().mean()) == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize("time_s", [3600.0, 3.15e7])
def test_drift_aware_weights_are_those_of_an_aged_chip(time_s: float) -> None:
    w = torch.full((1, 400, 500), 0.5)
    found = noise(noise_factor=1.0, drift_s=(time_s, time_s)).disturb(w, 0, 1, "a")
    # Devices of 12.5 uS have 12.50 +- 0.955 after programming, 9.71 +- 1.06 after an hour, 6.26 +- 0.99 after a year.
    mean, sd = {3600.0: (9.71, 1.06), 3.15e7: (6.26, 0.99)}[time_s]
    assert float(found.mean()) == pytest.approx(0.5, rel=0.01)
    assert float(found.std() / found.mean()) == pytest.approx(sd / mean, rel=0.05)


@pytest.mark.parametrize("chip", ["analog-fabric", "hermes", "neurram"])
@pytest.mark.parametrize("time_s", [1.0, 5000.0, 1.7e5])
def test_curves_are_moments_of_pairs_of_devices(chip: str, time_s: float) -> None:
    """Against the devices' own functions with independent draws, between targets and times of the grid, too."""
    made = noise(chip, noise_factor=1.5, drift_s=(1.0, 1.7e5))
    assert made.ageing is not None
    effects = made.effects.model_copy(
        update={
            "programming_noise": 1.5 * made.effects.programming_noise,
            "accumulated_read_noise": 1.5 * made.effects.accumulated_read_noise,
        }
    )
    r = torch.tensor([0.0, 0.004, 0.03, 0.1234, 0.5, 0.777, 1.0], dtype=torch.float64)
    targets = torch.stack([r, torch.zeros_like(r)]).unsqueeze(1).expand(2, 60_000, 7)
    generator = torch.Generator().manual_seed(3)
    held: dict[tuple[str, ...], torch.Tensor] = {}

    def draws(*names: str) -> torch.Tensor:
        return held.setdefault(names, torch.randn(targets.shape, generator=generator, dtype=torch.float64))

    one, zero = statistics_of(made.figures)(targets, draws, made.figures, effects, time_s)
    pair = one - zero
    mean, sd = made.ageing.at(math.log(time_s) / math.log(1.7e5)).at(r)
    expected = pair.std(0) * made.spread
    torch.testing.assert_close(sd, expected, rtol=0.02, atol=2e-4)
    assert bool(((mean - pair.mean(0)).abs() < 5 * pair.std(0) / math.sqrt(60_000) + 5e-4).all())


def test_a_mini_batch_is_at_one_time() -> None:
    """All matrices of a chip are as old as each other."""
    made = noise(drift_s=(1.0, 3.15e7))
    w = torch.full((1, 300, 300), 0.3)
    loss = [float(made.disturb(w, 0, seed, name).std()) for seed in range(3) for name in ("a", "b")]
    assert all(one == pytest.approx(two, rel=0.02) for one, two in zip(loss[::2], loss[1::2], strict=True))
    assert max(loss) > 1.1 * min(loss)


def test_resistive_devices_have_noise_of_their_own() -> None:
    w = torch.full((1, 400, 500), 0.5)
    found = noise("neurram", noise_factor=1.0).disturb(w, 0, 1, "a")
    sd = 0.348 + 16.030 / 2 - 43.853 / 4 + 45.393 / 8 - 16.815 / 16
    assert float(found.std()) == pytest.approx(sd / 40, rel=0.02)


def test_ideal_devices_have_none() -> None:
    w = torch.full((1, 5, 5), 0.3)
    assert torch.equal(noise("ideal").disturb(w, 0, 1, "a"), w)


@pytest.mark.parametrize("drift_s", [None, (1.0, 3.15e7)])
@pytest.mark.parametrize("ramp", [0.25, 1.0])
def test_the_compiled_pass_gives_the_same_weights(drift_s: tuple[float, float] | None, ramp: float) -> None:
    weight = torch.randn(2, 7, 3000, generator=torch.Generator().manual_seed(0))
    weight[0, 3] = 0
    made = noise(noise_factor=3.0, drift_s=drift_s, noise_ramp=100)
    scales = torch.empty(2, 7)
    key = made.key(5, "a")
    how = Disturbance(key=key, rescale=True, terms=made.polynomial or (), aged=made.curves(5), ramp=ramp)
    noisy, magnitude = disturbed(weight, scales, how, magnitude=True)
    largest = weight.abs().amax(2)
    assert torch.equal(scales, torch.where(largest > 0, largest, torch.ones(())))
    w = weight / scales.unsqueeze(-1)
    expected = made.disturb(w, round(100 * ramp), seed=5, name="a") * scales.unsqueeze(-1)
    torch.testing.assert_close(noisy, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(magnitude, noisy.abs().to(side_type()))
    assert made.in_few_passes


def test_a_mini_batch_sees_its_noise_once_and_the_next_another() -> None:
    torch.manual_seed(0)
    trained = prepare_hwa(nn.Linear(20, 5), "analog-fabric", {"read_noise": 0.0, "output_noise": 0.0}).train()
    x = torch.randn(4, 20)
    with mini_batch(trained):
        first, again = trained(x), trained.forward(x)
    assert torch.equal(first, again)
    assert not torch.equal(trained(x), first)


def test_a_device_without_statistics_of_programming_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = load_chip("analog-fabric")
    monkeypatch.setattr("aimc_compiler.training.weights.devices_figures", lambda *_: object())
    with pytest.raises(RecipeError, match="set noise to gaussian"):
        WeightNoise.of(Recipe(drift_s=None), spec.tile_types["tile"], spec.nonidealities, (1.0,))
