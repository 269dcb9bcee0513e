"""Every source of chance: its moments against closed forms, and that what should be independent is.

Tolerances are five standard errors of the sample at hand, and a sample counts only if 3 % of spread would show in it.
"""

from collections.abc import Callable
from math import erf, exp, log, pi, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from analog_chips import effects, pieces, tile
from test_mvm_noise import check_white

from aimc_compiler.analog import Contraction, MatrixOnTiles, MvmSettings, PieceDevices, Streams, one_hot_outputs
from aimc_compiler.analog.columns import ColumnFigures
from aimc_compiler.analog.defects import piece_defects
from aimc_compiler.chip.devices import device_figures
from aimc_compiler.chip.spec import Tile
from aimc_compiler.chip.stored import Device, DeviceNonidealities
from aimc_compiler.mapping.ir import Piece

Array = npt.NDArray[np.float64]
Moments = tuple[float, float]
LINEAR = Contraction(kind="linear")
COUNT = 200_000
HOUR_S, DAY_S, YEAR_S = 3600.0, 86_400.0, 31_536_000.0
QUIET = {"programming_noise": 0, "drift": 0, "accumulated_read_noise": 0}


def folded(mean: float, sd: float) -> Moments:
    """Of |mean + sd xi|."""
    first = sd * sqrt(2 / pi) * exp(-(mean**2) / (2 * sd**2)) + mean * erf(mean / (sd * sqrt(2)))
    return first, sqrt(mean**2 + sd**2 - first**2)


def cut_at_zero(mean: float, sd: float) -> Moments:
    """Of max(0, mean + sd xi)."""
    above, density = 0.5 * (1 + erf(mean / (sd * sqrt(2)))), exp(-(mean**2) / (2 * sd**2)) / sqrt(2 * pi)
    first = mean * above + sd * density
    return first, sqrt((mean**2 + sd**2) * above + mean * sd * density - first**2)


def share(probability: float) -> Moments:
    return probability, sqrt(probability * (1 - probability))


def scaled(factor: float, moments: Moments) -> Moments:
    return factor * moments[0], factor * moments[1]


def check_moments(values: Array, expected: Moments) -> None:
    n, (mean, sd) = values.size, expected
    assert n >= 1e5
    variance = values.var()
    error = 5 * sqrt((((values - values.mean()) ** 4).mean() - variance**2) / n)
    assert error < 0.06 * sd**2  # 3 % of the standard deviation would fail
    assert abs(values.mean() - mean) < 5 * sd / sqrt(n)
    assert abs(variance - sd**2) < error


def check_uncorrelated(first: Array, second: Array) -> None:
    """Neither values nor their distances from the mean go together."""
    n = first.size
    assert n >= 1e5
    assert first.std() > 0
    assert second.std() > 0
    for a, b in ((first, second), (np.abs(first - first.mean()), np.abs(second - second.mean()))):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 5 / sqrt(n)


def devices(
    target: float,
    model: str = "pcm",
    piece: str = "one",
    seed: int = 1,
    chip: int = 0,
    significance: tuple[float, ...] = (1.0,),
    **factors: Any,
) -> PieceDevices:
    """Many devices of one target, every effect off but those given."""
    spec = Device.model_validate({"model": model, "g_max": f"{G_MAX_US.get(model, 25)} uS"})
    return PieceDevices(
        target=torch.full((1, COUNT), target, dtype=torch.float64),
        streams=Streams(seed=seed, chip=chip, piece=piece),
        effects=DeviceNonidealities.model_validate({**QUIET, **factors}),
        figures=device_figures(spec),
        significance=significance,
    )


def plus(made: PieceDevices, time_s: float | None, pair: int = 0) -> Array:
    return np.asarray(made.conductances(time_s, pair)[0, 0])


def programmed(r: float, model: str = "pcm", **names: Any) -> Array:
    return plus(devices(r, model, programming_noise=1, **names), None)


def exponents(r: float, model: str = "pcm", **names: Any) -> Array:
    """From conductances a time of T = e t0 after programming."""
    t0_s = T0_S.get(model, 20.0)
    made = devices(r, model, drift=1, **names)
    return -np.log(plus(made, t0_s * (exp(1) - 1)) / r)


def accumulated(r: float, time_s: float, model: str = "pcm", **names: Any) -> Array:
    return plus(devices(r, model, accumulated_read_noise=1, **names), time_s)


def deviated(r: float, time_s: float) -> Array:
    return plus(devices(r, "reram_wan2022", programming_noise=1), time_s)


G_MAX_US = {"pcm_hermes_two": 20.7, "pcm_hermes_one": 10.35, "reram_wan2022": 40}
T0_S = {"pcm_hermes_two": 300.0, "pcm_hermes_one": 200.0}


def clip(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def pcm_programming(r: float) -> Moments:
    return cut_at_zero(r, (0.26348 + 1.9650 * r - 1.1731 * r**2) / 25)


def pcm_exponent(r: float) -> Moments:
    return folded(clip(-0.0155 * log(r) + 0.0244, 0.049, 0.1), clip(-0.0125 * log(r) - 0.0059, 0.008, 0.045))


def grown(r: float, q: float, time_s: float, t0_s: float = 20.0, t_read_s: float = 250e-9) -> Moments:
    return cut_at_zero(r, r * q * sqrt(log((time_s + t0_s + t_read_s) / (2 * t_read_s))))


def pcm_read(r: float, time_s: float) -> Moments:
    return grown(r, min(0.0088 / max(r**0.65, 1e-3), 0.2), time_s)


def resistive(r: float, *fit: float) -> Moments:
    return cut_at_zero(r, sum(c * r**power for power, c in enumerate(fit)) / 40)


WAN_1S = (0.348, 16.030, -43.853, 45.393, -16.815)
WAN_1DAY = (0.701, 22.086, -50.7, 47.09, -16.458)
WAN_2DAYS = (0.782, 20.274, -43.507, 37.062, -11.934)

#: What devices do: values of many, (mean, standard deviation) in closed form; conductances over g_max.
DEVICES: dict[str, tuple[Callable[[], Array], Moments]] = {
    **{f"pcm programming, {r}": (lambda r=r: programmed(r), pcm_programming(r)) for r in (0.0, 0.03, 0.5, 1.0)},
    **{f"pcm exponent, {r}": (lambda r=r: exponents(r), pcm_exponent(r)) for r in (1e-5, 0.02, 0.2, 1.0)},
    **{
        f"pcm read noise, {r} after {t:g} s": (lambda r=r, t=t: accumulated(r, t), pcm_read(r, t))
        for r in (1e-4, 0.02, 0.3, 1.0)
        for t in (0.0, HOUR_S, YEAR_S)
    },
    # Le Gallo et al., Nat. Electron. 6, 680 (2023).
    "hermes programming": (
        lambda: programmed(0.5, "pcm_hermes_two"),
        cut_at_zero(0.5, (0.16603222 + 4.71806468 / 2 - 8.48101252 / 4 + 4.68961419 / 8) / 20.7),
    ),
    "hermes exponent": (
        lambda: exponents(0.05, "pcm_hermes_one"),
        folded(-0.0387 * log(0.05) - 0.0182, -0.0120 * log(0.05) - 0.0023),
    ),
    "hermes read noise": (
        lambda: accumulated(0.5, DAY_S, "pcm_hermes_two"),
        grown(0.5, 0.0069 / 8 - 0.0280 / 4 + 0.0211 / 2 + 0.0123, DAY_S, 300.0, 512e-9),
    ),
    # Wan et al., Nature 608, 504 (2022).
    **{
        f"resistive, {r} after {t:g} s": (lambda r=r, t=t: deviated(r, t), resistive(r, *fit))
        for r in (0.0, 0.25, 1.0)
        for t, fit in ((1.0, WAN_1S), (DAY_S, WAN_1DAY), (2 * DAY_S, WAN_2DAYS))
    },
    "state independent": (lambda: programmed(0.02, "state_independent"), cut_at_zero(0.02, 0.008)),
    "state independent exponent": (lambda: exponents(0.4, "state_independent"), folded(0.1, 0.05)),
    "pairs": (
        lambda: np.asarray(devices(1.0, significance=(3.0, 1.0), programming_noise=0.3).programmed()[0]),
        (1 - cut_at_zero(0, 0.3 * 0.26348 / 25)[0],
         0.3 / 25 * sqrt(10) / 4 * sqrt(1.05538**2 + 0.26348**2 * (0.5 - 0.5 / pi))),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DEVICES)
def test_moments_of_devices(name: str) -> None:
    draw, expected = DEVICES[name]
    check_moments(draw(), expected)


def column_figures(tile_index: int = 0, chip: int = 0, seed: int = 0, **changes: Any) -> ColumnFigures:
    (piece,) = pieces(1, (8,), (COUNT,))
    piece = Piece(**{**{f: getattr(piece, f) for f in Piece.__dataclass_fields__}, "tile": tile_index})
    return ColumnFigures.of_piece(piece, MvmSettings(**changes), seed, chip)


def figure(name: str, **keys: Any) -> Array:
    value = getattr(column_figures(**keys), name)
    assert isinstance(value, torch.Tensor)
    return np.asarray(value)


#: What is fixed for columns and converters; spreads so wide that signs are folded or cut.
COLUMNS: dict[str, tuple[Callable[[], Array], Moments]] = {
    "voltage offset": (lambda: figure("voltage_offset", v_offset_std=0.1), cut_at_zero(0, 0.1)),
    "s-shape": (lambda: figure("bend", s_shape=0.5, s_shape_std=1.0), scaled(0.5, folded(1, 1))),
    "output noise": (
        lambda: figure("sigma_out", sigma_out=0.04, sigma_out_spread=0.8),
        scaled(0.04, folded(1, 0.8)),
    ),
    "gain": (lambda: figure("gain", gain_std=0.07), (1, 0.07)),
    "offset": (lambda: figure("offset", offset_std=0.2), (0, 0.2)),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_moments_of_columns(name: str) -> None:
    draw, expected = COLUMNS[name]
    check_moments(draw(), expected)


def struck(rows: int, columns: int, **defects: float) -> Array:
    """Whether each weight of one tile reads 0, of weights of 1."""
    holder = tile(rows, columns)
    on_tiles = MatrixOnTiles(
        torch.ones(1, columns, rows), LINEAR, pieces(1, (rows,), (columns,)), holder, effects(defects=defects)
    )
    return (on_tiles.state(0.0).weights[0] == 0).double().numpy()


@pytest.mark.parametrize(
    ("rows", "columns", "defects"),
    [
        (COUNT, 1, {"dead_rows": 0.3}),
        (1, COUNT, {"dead_columns": 0.3}),
        (500, 400, {"stuck_at_zero": 0.3}),
    ],
)
def test_shares_of_defects(rows: int, columns: int, defects: dict[str, float]) -> None:
    check_moments(struck(rows, columns, **defects), share(0.3))
    found = struck(rows, columns, **defects).ravel()
    for step in (1, 2, 4):
        check_uncorrelated(found[step:], found[:-step])


def test_share_of_dead_tiles() -> None:
    """320 tiles each of 320 chips, from the one number of each."""
    spec, held, holder = effects(defects={"dead_tiles": 0.3}).defects, pieces(1, (1,), (1,) * 320), tile()
    rows = [[piece_defects(spec, 0, chip, piece, holder) for piece in held] for chip in range(320)]
    dead = np.array([[found is not None and found._tile_is_dead() for found in row] for row in rows], np.float64)
    check_moments(dead, share(0.3))
    check_uncorrelated(dead[1:], dead[:-1])
    check_uncorrelated(dead[:, 1:], dead[:, :-1])


def converted(x: torch.Tensor, size: int, dac: dict[str, Any], adc: dict[str, Any], mvm: dict[str, Any]) -> Array:
    """(samples, columns) outputs of unit matrices, what each input became; two tiles side by side."""
    data = tile().model_dump(by_alias=True, exclude_none=True)
    data["dac"] = {"bits": "off", "input_mode": "pulse_width", **dac}
    data["adc"] = {"bits": "off", "out_bound": 10.0, **adc}
    w = torch.eye(size, dtype=torch.float64).repeat(2, 1)[None]
    on_tiles = MatrixOnTiles(
        w, LINEAR, pieces(1, (size,), (size, size)), Tile.model_validate(data), effects(mvm), dtype=torch.float64
    )
    return on_tiles.forward(x, torch.ones(1, 1)).numpy()


@pytest.mark.parametrize("where", ["input noise", "input rounding", "output rounding"])
def test_noise_of_converters_is_white(where: str) -> None:
    """Of each sample, converter and tile its own; what lies a share f above a code is rounded up with probability f."""
    size, value = 32, 0.377
    x = torch.full((4000, size), value, dtype=torch.float64)
    stochastic = {"bits": 6, "rounding": "stochastic"}
    if where == "input noise":
        noise = (converted(x, size, {}, {}, {"sigma_in": 0.05}) - value) / 0.05
        check_white(noise)
    else:
        keys, step = (({}, stochastic), 20 / 62) if where == "output rounding" else ((stochastic, {}), 2 / 62)
        noise = converted(x, size, *keys, {}) / step - value // step
        check_moments(noise, share(value / step % 1))
        for lag in (1, 2):
            check_uncorrelated(noise[lag:], noise[:-lag])
            check_uncorrelated(noise[:, lag:], noise[:, :-lag])
    check_uncorrelated(noise[:, :size], noise[:, size:])


def outputs(piece: int = 0, window: int = 0, matrix: str = "layer", zeros: int = 64, **names: Any) -> Array:
    """Output noise alone, of one of two pieces and one of two windows: (samples, columns)."""
    held = pieces(1, (4,), (zeros, zeros), matrix=matrix)
    on_tiles = MatrixOnTiles(torch.zeros(1, 2 * zeros, 4), LINEAR, held, tile(), effects({"sigma_out": 1}), **names)
    y = on_tiles.forward(torch.zeros(2000, 2, 4), torch.ones(1, 1))
    return y[:, window, piece * zeros : (piece + 1) * zeros].double().numpy()


def reading(name: str, piece: str = "one", **names: Any) -> Array:
    """The noise of a reading for drift compensation, of 160 000 weights of zero."""
    streams = Streams(**{"seed": 1, "chip": 0, "piece": piece, **names})
    settings = MvmSettings(sigma_out=1.0)
    return np.asarray(one_hot_outputs(torch.zeros(400, 400, dtype=torch.float64), streams, name, 0, settings))


STOCHASTIC = {"bits": 6, "rounding": "stochastic"}


def of_converters(dac: dict[str, Any], adc: dict[str, Any], **mvm: float) -> Array:
    return converted(torch.full((4000, 32), 0.377, dtype=torch.float64), 32, dac, adc, mvm)


def purposes(name: str, **keys: Any) -> Array:
    return figure(
        name, **{"gain_std": 0.1, "offset_std": 0.1, "v_offset_std": 0.1, "mismatch_calibrated": True,
                 "gain_residual": 0.1, "offset_residual": 0.1, **keys}
    )  # fmt: skip


#: Two draws that have nothing to do with each other.
APART: dict[str, tuple[Callable[[], Array], Callable[[], Array]]] = {
    "programming of polarities": (
        lambda: programmed(0.5),
        lambda: np.asarray(devices(0.5, programming_noise=1).conductances(None)[1, 0]),
    ),
    "programming of pairs": (
        lambda: programmed(0.5),
        lambda: plus(devices(0.5, programming_noise=1), None, pair=1),
    ),
    "programming of neighbours": (lambda: programmed(0.5)[1:], lambda: programmed(0.5)[:-1]),
    "programming of pieces": (lambda: programmed(0.5), lambda: programmed(0.5, piece="two")),
    "programming of slices": (lambda: programmed(0.5), lambda: programmed(0.5, piece="one/slice 1")),
    "programming of chips": (lambda: programmed(0.5), lambda: programmed(0.5, chip=1)),
    "programming of seeds": (lambda: programmed(0.5), lambda: programmed(0.5, seed=2)),
    "exponents of pieces": (lambda: exponents(0.5), lambda: exponents(0.5, piece="two")),
    "exponents of chips": (lambda: exponents(0.5), lambda: exponents(0.5, chip=1)),
    "exponents of neighbours": (lambda: exponents(0.5)[1:], lambda: exponents(0.5)[:-1]),
    "programming and exponents": (lambda: programmed(0.5), lambda: exponents(0.5)),
    "programming and read noise": (lambda: programmed(0.5), lambda: accumulated(0.5, 0.0)),
    "exponents and read noise": (lambda: exponents(0.5), lambda: accumulated(0.5, HOUR_S)),
    "read noise of times": (lambda: accumulated(0.5, HOUR_S), lambda: accumulated(0.5, HOUR_S + 1e-3)),
    "read noise of pieces": (lambda: accumulated(0.5, HOUR_S), lambda: accumulated(0.5, HOUR_S, piece="two")),
    "read noise of chips": (lambda: accumulated(0.5, HOUR_S), lambda: accumulated(0.5, HOUR_S, chip=1)),
    "log-time noise of pieces": (
        lambda: accumulated(0.5, HOUR_S, read_noise_process="log_time"),
        lambda: accumulated(0.5, HOUR_S, piece="two", read_noise_process="log_time"),
    ),
    "resistive devices of neighbours": (lambda: deviated(0.5, 1.0)[1:], lambda: deviated(0.5, 1.0)[:-1]),
    "resistive devices of times": (lambda: deviated(0.5, 1.0), lambda: deviated(0.5, 2.0)),
    "outputs of pieces": (outputs, lambda: outputs(piece=1)),
    "outputs of windows": (outputs, lambda: outputs(window=1)),
    "outputs of matrices": (outputs, lambda: outputs(matrix="other")),
    "outputs of chips": (outputs, lambda: outputs(chip=1)),
    "outputs of seeds": (outputs, lambda: outputs(seed=1)),
    "input rounding and input noise": (
        lambda: of_converters(STOCHASTIC, {}),
        lambda: of_converters({}, {}, sigma_in=0.05),
    ),
    "output rounding and output noise": (
        lambda: of_converters({}, STOCHASTIC),
        lambda: of_converters({}, {}, sigma_out=0.05),
    ),
    "readings": (lambda: reading("programming"), lambda: reading("3600.0")),
    "readings of pieces": (lambda: reading("programming"), lambda: reading("programming", piece="two")),
    "readings of chips": (lambda: reading("programming"), lambda: reading("programming", chip=1)),
    "gains and offsets": (lambda: purposes("gain"), lambda: purposes("offset")),
    "gains and voltage offsets": (lambda: purposes("gain"), lambda: purposes("voltage_offset")),
    "gains and their residuals": (lambda: purposes("gain"), lambda: purposes("gain_measured") / purposes("gain")),
    "gains of tiles": (lambda: purposes("gain"), lambda: purposes("gain", tile_index=1)),
    "gains of chips": (lambda: purposes("gain"), lambda: purposes("gain", chip=1)),
    "gains of seeds": (lambda: purposes("gain"), lambda: purposes("gain", seed=1)),
    "gains of neighbours": (lambda: purposes("gain")[1:], lambda: purposes("gain")[:-1]),
}


@pytest.mark.parametrize("name", APART)
def test_what_is_independent_is_not_correlated(name: str) -> None:
    first, second = APART[name]
    check_uncorrelated(first(), second())


#: Two looks at one draw.
TOGETHER: dict[str, tuple[Callable[[], Array], Callable[[], Array]]] = {
    "programming": (lambda: programmed(0.5), lambda: plus(devices(0.5, programming_noise=1), DAY_S)),
    "read noise at one time": (lambda: accumulated(0.5, HOUR_S), lambda: accumulated(0.5, HOUR_S)),
    "outputs": (outputs, outputs),
    "readings": (lambda: reading("programming"), lambda: reading("programming")),
}


@pytest.mark.parametrize("name", TOGETHER)
def test_what_is_fixed_stays(name: str) -> None:
    first, second = TOGETHER[name]
    assert np.array_equal(first(), second())


def test_exponents_are_fixed_at_programming() -> None:
    """The same at any time: ln(g / g_P) goes as ln(T / t0)."""
    made = devices(0.5, drift=1)
    early, late = (np.log(plus(made, t) / 0.5) / log((t + 20) / 20) for t in (HOUR_S, YEAR_S))
    np.testing.assert_allclose(early, late, rtol=1e-9)
