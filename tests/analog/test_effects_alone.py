"""Every effect of the table alone: it moves outputs, and leaves alone what is not its own."""

from typing import Any

import pytest
import torch
from analog_chips import pieces

from aimc_compiler.analog import Contraction, MatrixOnTiles
from aimc_compiler.chip import EFFECTS, ChipSpec, active, load_chip, only, override

MVM, DEVICE, DIGITAL, DEFECTS = (f"nonidealities.{section}" for section in ("mvm", "device", "digital", "defects"))
HOUR_S = 3600.0
#: Strength of each effect that the standard chip does not have, or has too weak to see on a small matrix. A new effect
#: is off here until it has an entry, which the first test does not let pass.
STRENGTH: dict[str, Any] = {
    f"{MVM}.sigma_in": 0.05,
    f"{MVM}.input_asymmetry": 0.1,
    f"{DIGITAL}.activation_bits": 3,
    "tile.dac.inl": 2,
    f"{MVM}.ir_drop": 100.0,
    f"{MVM}.v_offset_std": 0.1,
    f"{MVM}.r_series": 0.1,
    f"{MVM}.output_asymmetry": 0.1,
    # A power of two: its square, which adds to other variances, has an exact root.
    f"{MVM}.sigma_out": 1 / 32,
    f"{MVM}.s_shape": 0.5,
    f"{MVM}.sigma_out_spread": 0.2,
    "tile.adc.out_bound": 2.0,
    "tile.adc.gain_std": 0.1,
    "tile.adc.offset_std": 0.05,
    "tile.adc.inl": 2,
    f"{DIGITAL}.column_scale_bits": 3,
    f"{DIGITAL}.partial_sums": "bf16",
    f"{DEVICE}.drift_tile_spread": 0.5,
    DEFECTS: {
        "stuck_at_zero": 0.1,
        "stuck_at_g_max": 0.1,
        "stuck_random": 0.1,
        "dead_rows": 0.1,
        "dead_columns": 0.1,
        "dead_tiles": 0.3,
        "map": [{"tile": 0, "row": 1, "column": 2, "polarity": "plus", "value": 0.37}],
    },
}
ALL_ON = override(load_chip("analog-fabric"), STRENGTH)
#: Effects that are nothing without another one.
NEEDS = {
    "dac_nonlinearity": ("dac_quantisation",),
    "adc_nonlinearity": ("adc_quantisation",),
    "output_noise_spread": ("output_noise",),
    "drift_tile_spread": ("drift",),
    # Scales and weights go together, so that without steps in between nothing is lost.
    "column_scale_precision": ("adc_quantisation",),
}
#: Effects of another stage that change what the cells are to hold: scales that are rounded up leave smaller weights.
RESCALING = {"column_scale_precision"}
every_effect = pytest.mark.parametrize("name", EFFECTS)


def chip_with(*names: str) -> ChipSpec:
    return only(ALL_ON, names)


def matrix(spec: ChipSpec, name: str = "layer", weight: torch.Tensor | None = None) -> MatrixOnTiles:
    """40 x 24 on four tiles, in float64, so that bytes do not hang on the order of sums."""
    if weight is None:
        weight = torch.randn(1, 24, 40, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert spec.tile is not None
    held = pieces(1, (23, 17), (13, 11), matrix=name)
    return MatrixOnTiles(
        weight, Contraction(kind="linear"), held, spec.tile, spec.nonidealities, seed=5, chip=2, dtype=torch.float64
    )


def inputs() -> torch.Tensor:
    return torch.randn(200, 40, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def outputs(made: MatrixOnTiles, x: torch.Tensor) -> torch.Tensor:
    return made.forward(x, torch.full((1, 2), 1.5), HOUR_S)


def same(first: torch.Tensor, second: torch.Tensor) -> bool:
    return first.numpy().tobytes() == second.numpy().tobytes()


def test_every_effect_of_the_table_is_on_here() -> None:
    assert active(ALL_ON) == tuple(EFFECTS)
    assert set(NEEDS) | RESCALING <= set(EFFECTS)


@every_effect
def test_alone_it_moves_outputs(name: str) -> None:
    base, more = chip_with(*NEEDS.get(name, ())), chip_with(*NEEDS.get(name, ()), name)
    assert active(more) == tuple(effect for effect in EFFECTS if effect in (*NEEDS.get(name, ()), name))
    before, after = outputs(matrix(base), inputs()), outputs(matrix(more), inputs())
    assert float((after - before).norm() / before.norm()) > 1e-3


@every_effect
def test_only_devices_change_the_state_of_devices(name: str) -> None:
    noisy = ("programming_noise", "drift", "accumulated_read_noise")
    before = matrix(chip_with(*noisy)).state(HOUR_S).weights
    after = matrix(chip_with(*noisy, *NEEDS.get(name, ()), name)).state(HOUR_S).weights
    own = EFFECTS[name].stage == "device" or name in RESCALING
    assert same(before, after) == (not own or name in noisy)


def noise_with(name: str, *names: str) -> torch.Tensor:
    """What is drawn at each multiplication, alone: inputs of zero, no compensation, which would scale it.

    Devices hold weights, so that theirs are there to be changed; otherwise weights are zero, too.
    """
    spec = override(chip_with(*names), {"nonidealities.drift_compensation": "off"})
    weight = None if EFFECTS[name].stage == "device" else torch.zeros(1, 24, 40, dtype=torch.float64)
    return outputs(matrix(spec, weight=weight), torch.zeros(200, 40, dtype=torch.float64))


@pytest.mark.parametrize("name", [name for name, effect in EFFECTS.items() if effect.stage != "output"])
def test_what_comes_before_the_output_leaves_its_noise(name: str) -> None:
    needs = ("output_noise", *NEEDS.get(name, ()))
    before = noise_with(name, *needs)
    assert torch.count_nonzero(before) == before.numel()
    assert same(before, noise_with(name, *needs, name))


@pytest.mark.parametrize(
    "name", [name for name, effect in EFFECTS.items() if effect.stage == "output" and name != "output_noise"]
)
def test_what_comes_at_the_output_works_on_the_same_noise(name: str) -> None:
    """Bent, scaled or rounded, it is still the same draws: fresh ones would not be correlated."""
    needs = ("output_noise", *NEEDS.get(name, ()))
    noises = [y - y.mean(dim=0) for y in (noise_with(name, *needs), noise_with(name, *needs, name))]
    assert float((noises[0] * noises[1]).sum() / (noises[0].norm() * noises[1].norm())) > 0.7


def test_read_noise_and_output_noise_are_one_draw() -> None:
    """Nothing stands between them; so the one that comes second scales the draws of the first."""
    quiet, read, both = (
        outputs(matrix(chip_with(*names)), inputs()) for names in ((), ("read_noise",), ("read_noise", "output_noise"))
    )
    one, other = (read - quiet).reshape(-1), (both - quiet).reshape(-1)
    assert float(torch.corrcoef(torch.stack([one, other]))[0, 1]) > 0.7


@every_effect
def test_another_matrix_of_the_chip_does_not_notice(name: str) -> None:
    """One matrix runs with the effect and without it; then comes another one, with noise of every kind."""
    noise = ("input_noise", "read_noise", "output_noise", "programming_noise", "accumulated_read_noise", "adc_offset")

    def other_after(*names: str) -> torch.Tensor:
        outputs(matrix(chip_with(*names)), inputs())
        return outputs(matrix(chip_with(*noise), "other"), inputs())

    assert same(other_after(), other_after(*NEEDS.get(name, ()), name))


@pytest.mark.parametrize("name", [name for name, effect in EFFECTS.items() if effect.path.startswith(DEFECTS)])
def test_devices_that_are_not_struck_are_as_they_were(name: str) -> None:
    noisy = ("programming_noise", "drift", "accumulated_read_noise")
    before = matrix(chip_with(*noisy)).state(HOUR_S).weights
    after = matrix(chip_with(*noisy, name)).state(HOUR_S).weights
    kept = (before == after).double().mean()
    assert 0.3 < float(kept) < 1
