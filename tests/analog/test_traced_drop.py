"""The exact IR drop inside the MVM: against the nodal solver, against the closed form, and what it leaves alone."""

from typing import Any, Literal

import pytest
import torch
from analog_chips import OFF, STANDARD, effects, pieces, standard_tile, tile
from torch import Tensor

import aimc_compiler as aimc
from aimc_compiler.analog import Contraction, MatrixOnTiles, MvmSettings, Streams, one_hot_outputs
from aimc_compiler.analog.contraction import WindowProduct
from aimc_compiler.analog.crossbar import Crossbar, Wires
from aimc_compiler.analog.mvm import block_weights, mvm
from aimc_compiler.analog.readout import read_columns
from aimc_compiler.analog.traced_drop import traced_loss
from aimc_compiler.chip import override
from aimc_compiler.errors import AimcError, NotBuiltError

Load = Literal["spread", "aligned", "grounded"]
LOADS: tuple[Load, ...] = ("spread", "aligned", "grounded")
LINEAR = Contraction(kind="linear")
ONE = torch.ones(1, 1)


def exact(load: str = "spread", **mvm_keys: Any) -> dict[str, Any]:
    return {"ir_drop": 1.0, "ir_drop_model": "exact", "ir_drop_load": load, **mvm_keys}


def outputs(
    weight: Tensor, x: Tensor, tile_row: int, mvm_keys: dict[str, Any], ranges: Tensor = ONE, **tile_keys: Any
) -> Tensor:
    """Noise-free float64 outputs of one piece."""
    held = pieces(weight.shape[0], (weight.shape[2],), (weight.shape[1],), tile_row=tile_row)
    spec = tile(dac=tile_keys.pop("dac", 6), **tile_keys), effects({"range_clip": True, **mvm_keys})
    return MatrixOnTiles(weight, LINEAR, held, *spec, dtype=torch.float64).forward(x, ranges)


def scaled(columns: int, rows: int, seed: int) -> Tensor:
    """(1, columns, rows) float64 weights of both signs with a maximum of 1 in each column."""
    weight = torch.randn(1, columns, rows, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return weight / weight.abs().amax(dim=2, keepdim=True)


def coded(vectors: int, rows: int, seed: int, low: float = -1.0) -> Tensor:
    """Inputs that are codes of a 6-bit converter."""
    x = torch.rand(vectors, rows, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return ((x * (1 - low) + low) * 31).round() / 31


def nodal(weight: Tensor, x: Tensor, tile_row: int, segment: float, load: Load) -> Tensor:
    """(vectors, columns) from the nodal solver in units of a full weight; signs counted after the solution.

    Both polarities load one wire with their magnitudes, so the array holds |w|, driven with magnitudes.
    """
    wires = Wires(column_ohm=segment, column_lead_ohm=tile_row * segment)
    g, sign = weight[0].abs().T, weight[0].sign().T
    if load == "grounded":
        unit = Crossbar(g, wires).solve(torch.diag(torch.ones(len(g), dtype=torch.float64))).output_a
        return x @ (unit * sign)
    levels = [1.0] if load == "spread" else sorted({float(v) for v in x.abs().flatten() if v > 0})
    total, before = torch.zeros(len(x), g.shape[1], dtype=torch.float64), 0.0
    for level in levels:
        for vector, output in zip(x, total, strict=True):
            on = vector.abs() if load == "spread" else (vector.abs() >= level).to(g)
            cell = Crossbar(g * on.unsqueeze(1), wires).solve(torch.ones(1, len(g))).cell_a[0]
            output += (level - before) * (cell * sign * vector.sign().unsqueeze(1)).sum(dim=0)
        before = level
    return total


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize(("rows", "tile_row"), [(1, 0), (1, 9), (40, 0), (40, 472)])
@pytest.mark.parametrize("segment", [1.75e-6, 1e-3])
def test_agrees_with_the_nodal_solver(load: Load, rows: int, tile_row: int, segment: float) -> None:
    weight, x = scaled(6, rows, 1), coded(3, rows, 2)
    found = outputs(weight, x, tile_row, exact(load, r_wire=f"{segment / 5e-6} ohm"))
    expected, ideal = nodal(weight, x, tile_row, segment, load), x @ weight[0].T
    assert torch.allclose(found, expected, rtol=0, atol=1e-12 * rows)
    assert torch.allclose(ideal - found, ideal - expected, rtol=1e-6, atol=1e-13 * rows)
    if rows > 1:
        assert float((found - ideal).abs().max()) > 1e-5


@pytest.mark.parametrize("load", LOADS)
def test_agrees_with_the_readout_of_one_polarity(load: Load) -> None:
    """Weights and inputs of one sign need no rule for signs: the array is the network itself."""
    weight, x = scaled(5, 30, 3).abs(), coded(2, 30, 4, low=0.0)
    found = outputs(weight, x, 100, exact(load, r_wire="100 ohm"))
    wires = Wires(column_ohm=5e-4, column_lead_ohm=0.05)
    assert torch.allclose(found, read_columns(weight[0].T, x, wires, load), rtol=1e-9)


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("sign", ["one polarity", "both"])
@pytest.mark.parametrize(
    ("rows", "tile_row", "flat"),
    [(512, 0, 1.0), (500, 12, 1.0), (384, 128, 1.0), (256, 256, 1.0), (128, 384, 1.0), (64, 448, 0.5), (48, 464, 0.3)],
)
def test_closed_form_at_standard_wires(rows: int, tile_row: int, flat: float, sign: str) -> None:
    """0.35 ohm and 5 uS, effects above 1 % of the output: the loss within 2.5 % in the mean, the output within 0.1 %.

    Normal weights, of small blocks drawn towards 1 (``|w|^flat``) until they load the wire enough. (Measured: the loss
    within 2.2 %, at worst where half a tile begins in its middle.)
    """
    weight, x = scaled(64, rows, 5), coded(32, rows, 6, low=0.0)
    weight = weight.abs().pow(flat) * (1 if sign == "one polarity" else weight.sign())
    ideal = x @ weight[0].T
    solved = outputs(weight, x, tile_row, exact())
    formula = outputs(weight, x, tile_row, {"ir_drop": 1.0})
    assert relative(solved, ideal) > 0.01
    slope = ((ideal - formula) * (ideal - solved)).sum() / (ideal - solved).square().sum()
    assert 0.975 < float(slope) < 1.025
    assert relative(formula, solved) < 0.001


def test_amplitudes_lose_about_twice() -> None:
    """Uniform inputs, full tile: grounded over spread is 1 / mean(x), aligned over spread E min(x, y) / E x y."""
    weight, x = scaled(32, 512, 7).abs(), coded(16, 512, 8, low=0.0)
    ideal = x @ weight[0].T
    loss = {load: (ideal - outputs(weight, x, 0, exact(load))).sum() for load in LOADS}
    assert float(loss["grounded"] / loss["spread"]) == pytest.approx(2.0, rel=0.05)
    assert float(loss["aligned"] / loss["spread"]) == pytest.approx(4 / 3, rel=0.05)


def test_amplitude_inputs_run_exactly_and_are_refused_by_formula() -> None:
    weight, x = scaled(4, 50, 9), coded(3, 50, 10)
    by_amplitude = outputs(weight, x, 7, exact("spread", r_wire="50 ohm"), input_mode="amplitude")
    assert torch.equal(by_amplitude, outputs(weight, x, 7, exact("grounded", r_wire="50 ohm")))
    with pytest.raises(NotBuiltError, match="set nonidealities\\.mvm\\.ir_drop_model to exact"):
        outputs(weight, x, 7, {"ir_drop": 1.0}, input_mode="amplitude")


@pytest.mark.parametrize("load", LOADS)
def test_the_factor_scales_the_loss(load: Load) -> None:
    weight, x = scaled(4, 60, 11), coded(3, 60, 12)
    ideal = x @ weight[0].T
    whole = ideal - outputs(weight, x, 3, exact(load, r_wire="20 ohm"))
    half = ideal - outputs(weight, x, 3, {**exact(load, r_wire="20 ohm"), "ir_drop": 0.5})
    assert torch.allclose(half, whole / 2, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("load", LOADS)
def test_off_is_off_to_the_byte(load: Load) -> None:
    """With ir_drop 0 neither model nor load changes anything, noise included."""
    weight, x = scaled(4, 60, 13), coded(3, 60, 14)
    noisy = {**STANDARD, "ir_drop": 0.0}
    plain = outputs(weight, x, 3, noisy)
    assert torch.equal(plain, outputs(weight, x, 3, {**noisy, "ir_drop_model": "exact", "ir_drop_load": load}))


@pytest.mark.parametrize("load", LOADS)
def test_noise_is_the_same_as_with_the_closed_form(load: Load) -> None:
    """Same normals, same variance: what the models differ in is the loss alone."""
    weight, x = scaled(4, 60, 15), coded(3, 60, 16)
    for keys in ({"sigma_out": 0.04, "sigma_w": 0.02}, {"sigma_w": 0.02, "read_noise": "constant"}):
        models = (exact(load), {"ir_drop": 1.0})
        noise = [outputs(weight, x, 3, {**model, **keys}) - outputs(weight, x, 3, model) for model in models]
        assert float(noise[0].abs().max()) > 0.01
        assert torch.allclose(*noise, atol=1e-12)


@pytest.mark.parametrize("load", LOADS)
def test_a_convolution_is_its_windows(load: Load) -> None:
    """Groups, two row blocks cut inside a channel, two column blocks: the same as windows sent one by one."""
    torch.manual_seed(17)
    weight, x = torch.randn(2, 5, 12, dtype=torch.float64), torch.rand(2, 6, 5, 4, dtype=torch.float64)
    conv = Contraction(kind="conv2d", kernel=(2, 2), stride=(1, 2), padding=(1, 0), dilation=(1, 1))
    spec = tile(dac=5), effects({"range_clip": True, **exact(load, r_wire="2000 ohm")})
    held = pieces(2, (5, 7), (2, 3), tile_row=4)
    ranges = torch.tensor([[0.8, 1.0], [0.9, 0.7]], dtype=torch.float64)
    y = MatrixOnTiles(weight, conv, held, *spec, dtype=torch.float64).forward(x, ranges)
    windows = torch.nn.functional.unfold(x, (2, 2), padding=(1, 0), stride=(1, 2)).reshape(2, 2, 12, -1)
    for group in range(2):
        on_tiles = MatrixOnTiles(
            weight[group : group + 1], LINEAR, pieces(1, (5, 7), (2, 3), 4), *spec, dtype=torch.float64
        )
        alone = on_tiles.forward(windows[:, group].transpose(1, 2), ranges[group : group + 1])
        assert torch.allclose(y.reshape(2, 2, 5, -1)[:, group], alone.transpose(1, 2), atol=1e-12)


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("tile_row", [0, 30])
def test_reading_for_drift_compensation_is_the_mvm_of_one_hot_inputs(load: Load, tile_row: int) -> None:
    w = scaled(6, 20, 18)[0]
    settings = MvmSettings.of(tile(dac=8), effects({"range_clip": True, **exact(load, r_wire="3000 ohm")}))
    product = WindowProduct()
    eye = torch.eye(20, dtype=torch.float64).reshape(1, 1, 20, 20)
    weights = block_weights(w[None], 0, torch.full((1, 6), tile_row), product, settings)
    expected = mvm(eye, weights, product, settings, None)[0, 0]
    found = one_hot_outputs(w, Streams(seed=1, chip=0, piece="p"), "now", tile_row, settings)
    assert torch.allclose(found, expected, atol=1e-13)
    assert float((found - w).abs().max()) > 1e-3


def test_gradients_of_the_loss() -> None:
    torch.manual_seed(19)
    w = torch.randn(2, 2, 4, dtype=torch.float64, requires_grad=True)
    x = torch.randn(1, 2, 2, 4, dtype=torch.float64, requires_grad=True)
    j0 = torch.tensor([[[3.0], [3.0]], [[0.0], [0.0]]], dtype=torch.float64)
    spread, aligned = (
        MvmSettings(ir_drop=1.0, g_ratio=20.0, ir_drop_model="exact", ir_drop_load=load) for load in LOADS[:2]
    )
    assert torch.autograd.gradcheck(lambda x, w: traced_loss(x, w, j0, spread), (x, w))
    assert torch.autograd.gradcheck(lambda w: traced_loss(x.detach(), w, j0, aligned), (w,))


def test_what_would_take_too_long_is_refused_at_once() -> None:
    weight, x = torch.ones(1, 512, 512), torch.zeros(700, 512)
    spec = standard_tile(), effects({**STANDARD, **exact("aligned")})
    on_tiles = MatrixOnTiles(weight, LINEAR, pieces(1, (512,), (512,)), *spec)
    with pytest.raises(
        AimcError, match=r"'layer': ir_drop_model exact would trace 2.3e\+10 cells .*127 slices"
    ) as raised:
        on_tiles.forward(x, ONE)
    assert "run fewer samples at a time, set nonidealities.mvm.ir_drop_load to spread" in str(raised.value)


def test_batches_and_single_precision() -> None:
    """Cut into chunks or not, in float32: the same outputs to rounding, and close to float64."""
    weight, x = scaled(300, 40, 20), coded(600, 40, 21)
    held = pieces(1, (40,), (300,), tile_row=100)
    spec = tile(dac=6), effects({**OFF, "range_clip": True, **exact()})
    single = MatrixOnTiles(weight, LINEAR, held, *spec).forward(x, ONE)
    double = MatrixOnTiles(weight, LINEAR, held, *spec, dtype=torch.float64).forward(x, ONE)
    parts = [MatrixOnTiles(weight, LINEAR, held, *spec).forward(part, ONE) for part in x.split(7)]
    assert torch.allclose(single, torch.cat(parts), atol=1e-5)
    assert torch.allclose(single.double(), double, atol=1e-5)


def test_a_compiled_network_runs_with_it() -> None:
    """Through the spec, compile, deploy and drift compensation; the loss moves a real network's outputs slightly."""
    torch.manual_seed(22)
    model = torch.nn.Sequential(torch.nn.Conv2d(2, 6, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(96, 5))
    x = torch.rand(4, 2, 6, 6)
    found = {}
    for keys in ({}, {"ir_drop_model": "exact"}, {"ir_drop_model": "exact", "ir_drop_load": "aligned"}):
        values = {f"nonidealities.mvm.{key}": value for key, value in {"r_wire": "20 ohm", **keys}.items()}
        chip = override(aimc.load_chip("analog-fabric"), {**values, "tile.adc.bits": 16}, "a test")
        compiled = aimc.compile(model.eval(), chip, (x[:1],), calibration=[x])
        found[keys.get("ir_drop_load", keys.get("ir_drop_model", "closed form"))] = compiled.deploy(seed=0)(
            x, time_s=3600.0
        )
    shift = {name: float((y - found["exact"]).norm() / found["exact"].norm()) for name, y in found.items()}
    assert 1e-6 < shift["closed form"] < 0.01
    assert shift["closed form"] < shift["aligned"] < 0.1
