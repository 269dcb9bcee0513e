"""The error study of one tile: published figures, effects apart and together, recalibration, errors."""

import pytest

import aimc_compiler as aimc
from aimc_compiler.chip import active, all_off
from aimc_compiler.errors import DataError, MissingDependencyError
from aimc_compiler.report import mvm_error_json, mvm_error_lines, mvm_error_table, plot_mvm_error
from aimc_compiler.study import MvmErrors, mvm_error

TIMES_S = (1.0, 3600.0, 86_400.0, 31_536_000.0)
SMALL = ("tile.rows=64", "tile.columns=48")


@pytest.fixture(scope="module")
def standard() -> MvmErrors:
    return mvm_error(aimc.load_chip("analog-fabric"))


@pytest.fixture(scope="module")
def small() -> MvmErrors:
    return mvm_error(aimc.load_chip("analog-fabric", overrides=SMALL), (0.0, 3600.0), vectors=20, n_chips=3)


def test_published_figures(standard: MvmErrors) -> None:
    """Rasch et al., Nat. Commun. 14, 5282 (2023): the standard model, 512 x 512, compensated."""
    assert standard.times_s == TIMES_S
    assert (standard.rows, standard.columns) == (512, 512)
    assert standard.together.errors == pytest.approx((0.132, 0.135, 0.151, 0.191), rel=0.03)


def test_effects_alone(standard: MvmErrors) -> None:
    alone = {row.effects[0]: row.errors for row in standard.alone}
    assert tuple(alone) == active(aimc.load_chip("analog-fabric"))
    for name in ("dac_quantisation", "ir_drop", "read_noise", "output_noise", "adc_quantisation", "programming_noise"):
        assert alone[name][0] > 1e-3
        assert len(set(alone[name])) == 1, f"{name} does not change with time"
    for name in ("drift", "accumulated_read_noise"):
        assert list(alone[name]) == sorted(alone[name])
        assert alone[name][-1] > 1.3 * alone[name][0]
    assert alone["range_clip"] == pytest.approx((0,) * 4, abs=1e-6)  # inputs stay inside their range
    # Output noise alone: ||0.04 xi|| / ||y||, y of 512 terms of variance E[w^2] / 3.
    assert alone["output_noise"][0] == pytest.approx(0.0098, rel=0.05)
    together, apart = standard.together.errors, standard.in_quadrature
    assert all(abs(found / sum_ - 1) < 0.1 for found, sum_ in zip(together, apart, strict=True))


def test_without_compensation_drift_dominates(standard: MvmErrors) -> None:
    assert standard.uncompensated is not None
    assert standard.uncompensated.errors[-1] > 2 * standard.together.errors[-1]


def test_a_chip_that_is_never_recalibrated_is_as_one_without_compensation() -> None:
    spec = aimc.load_chip("analog-fabric", overrides=SMALL)
    times = (1.0, 31_536_000.0)
    always, hourly, never = (
        mvm_error(spec, times, vectors=50, recalibration=policy) for policy in ("always", "1h", "never")
    )
    assert never.uncompensated is not None
    assert never.together.errors[1] == pytest.approx(never.uncompensated.errors[1], rel=0.1)
    assert always.together.errors[1] < 0.6 * never.together.errors[1]
    assert hourly.together.errors[1] == pytest.approx(always.together.errors[1], rel=0.05)
    assert (always.recalibration, hourly.recalibration, never.recalibration) == ("always", "1 h", "never")


def test_all_off_has_no_error() -> None:
    found = mvm_error(all_off(aimc.load_chip("analog-fabric", overrides=SMALL)), (1.0,), vectors=20)
    assert found.alone == ()
    assert found.uncompensated is None
    assert 0 < found.together.errors[0] < 1e-6


def test_calibrated_bounds_are_set_by_its_own_inputs() -> None:
    """Neither 1 nor 1000 fits the outputs of this tile; what calibration finds does, and is said."""
    found = {}
    for bound in ("1", "1000", "calibrated"):
        chip = aimc.load_chip("analog-fabric", overrides=(*SMALL, f"tile.adc.out_bound={bound}"))
        found[bound] = mvm_error(chip, (1.0,), vectors=40)
    errors = {bound: of.together.errors[0] for bound, of in found.items()}
    assert errors["calibrated"] < 0.6 * min(errors["1"], errors["1000"])
    own = found["calibrated"]
    assert own.out_method == "mse"
    (bound,) = own.out_bounds
    assert 2 < bound < 12
    assert mvm_error_lines(own)[-1] == f"output bound calibrated on these inputs with ideal cells, mse: {bound:.3g}"
    assert mvm_error_json(own)["out_bounds"] == [bound]
    assert mvm_error_json(found["1"])["out_method"] is None
    assert len(mvm_error_lines(found["1"])) == 2


def test_same_seed_same_errors_and_chips_differ(small: MvmErrors) -> None:
    spec = aimc.load_chip("analog-fabric", overrides=SMALL)
    assert mvm_error(spec, (0.0, 3600.0), vectors=20, n_chips=3) == small
    assert mvm_error(spec, (0.0, 3600.0), vectors=20, n_chips=3, seed=1).together != small.together
    one = mvm_error(spec, (3600.0,), vectors=20)
    assert one.together.spread is None
    assert small.together.spread is not None
    assert min(small.together.spread) > 0


def test_report(small: MvmErrors, tmp_path) -> None:  # type: ignore[no-untyped-def]
    data = mvm_error_json(small)
    assert data["alone"]["drift"]["errors"] == list(small.alone[-2].errors)
    assert data["together"]["spread"] == list(small.together.spread or ())
    assert mvm_error_table(small).row_count == len(small.alone) + 3
    pytest.importorskip("matplotlib")
    for name in ("figure.svg", "figure.png"):
        assert plot_mvm_error(small, tmp_path / name).stat().st_size > 1000
    assert "without drift compensation" in (tmp_path / "figure.svg").read_text()


def test_figures_of_another_form_and_without_matplotlib(small: MvmErrors, tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DataError, match=r"ends in \.svg, \.png, \.pdf"):
        plot_mvm_error(small, tmp_path / "figure.jpeg")
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'aimc_compiler\[report\]'"):
        plot_mvm_error(small, tmp_path / "figure.svg")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"times_s": ()}, "give a list of times"),
        ({"times_s": (-1.0,)}, "0 or later"),
        ({"vectors": 0}, "at least one of each"),
        ({"tile_type": "small"}, "no tile type 'small': it has tile"),
        ({"recalibration": "sometimes"}, "no recalibration policy"),
    ],
)
def test_bad_arguments(arguments, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DataError, match=message):
        mvm_error(aimc.load_chip("analog-fabric", overrides=SMALL), **arguments)
