"""What runs in ``fast``, what falls back to ``exact``, and that it says why."""

from typing import Any

import pytest
import torch
from analog_chips import STANDARD, effects, pieces, standard_tile, tile
from fast_cases import UNITS

from aimc_compiler.analog import Contraction, MatrixOnTiles
from aimc_compiler.analog.fast import choice, parse_precision, units
from aimc_compiler.errors import DataError

LINEAR = Contraction(kind="linear")


def matrix(mvm: dict[str, Any] | None = None, where: Any = None, rows: tuple[int, ...] = (20,), **more: Any) -> Any:
    weight = torch.randn(more.pop("groups", 1), 6, sum(rows))
    held = pieces(weight.shape[0], rows, (6,))
    spec = effects({**STANDARD, **(mvm or {})})
    settings: dict[str, Any] = {"precision": "auto", **more}
    return MatrixOnTiles(weight, settings.pop("contraction", LINEAR), held, where or standard_tile(), spec, **settings)


@pytest.fixture
def with_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "missing_units", lambda: None)


@pytest.mark.usefixtures("with_units")
@pytest.mark.parametrize(
    ("made", "reason"),
    [
        ({"precision": "exact"}, "as asked"),
        ({"mvm": {"sigma_in": 0.1}}, "input noise: not built in fast"),
        ({"mvm": {"read_noise": "constant"}}, "read noise 'constant': not built in fast"),
        ({"mvm": {"range_clip": False}}, "inputs that are not clipped to their range: not built in fast"),
        ({"where": tile(adc=8, bound=10.0)}, "inputs without converters, or of more than 8 bits: not built in fast"),
        ({"where": tile(dac=9, adc=8, bound=10.0)}, "inputs without converters, or of more than 8 bits"),
        ({"where": tile(dac=8)}, "outputs without converters: not built in fast"),
        ({"mvm": {"output_asymmetry": 0.1}}, "output_asymmetry 0.1 is not built in fast"),
        ({"mvm": {"passes": "digital"}}, "passes digital is not built in fast"),
        ({"rows": (20, 1)}, "a row block of one row, which torch's 8-bit product gets wrong"),
        ({"dtype": torch.float64}, "fast computes in float32, not float64"),
    ],
)  # fmt: skip
def test_what_falls_back_says_why(made: dict[str, Any], reason: str) -> None:
    on_tiles = matrix(**made)
    assert on_tiles.choice.precision == "exact"
    assert on_tiles.choice.reason.startswith(reason)
    assert str(on_tiles.choice) == f"exact ({on_tiles.choice.reason})"
    x = torch.randn(2, on_tiles.target.shape[2])
    assert on_tiles.forward(x, torch.ones(1, len(on_tiles.blocks))).shape == (2, 6)


@pytest.mark.usefixtures("with_units")
def test_small_groups_fall_back() -> None:
    depthwise = Contraction(kind="conv2d", kernel=(3, 3), stride=(1, 1), padding=(1, 1), dilation=(1, 1))
    found = matrix(groups=8, rows=(9,), contraction=depthwise).choice
    assert found.reason == "8 groups of 6 x 9 cells: too small for integer products to pay"


@pytest.mark.skipif(UNITS is not None, reason=str(UNITS))
def test_the_standard_model_is_fast() -> None:
    assert str(matrix().choice) == "fast"
    assert str(matrix(precision="fast").choice) == "fast"


@pytest.mark.skipif(UNITS is not None, reason=str(UNITS))
def test_a_state_that_digits_cannot_hold_falls_back() -> None:
    """A converter of 14 bits: a step is what the digits are off by."""
    on_tiles = matrix(where=tile(dac=8, adc=14, bound=10.0), rows=(400,))
    assert str(on_tiles.choice) == "fast"
    x = torch.rand(3, 400)
    y = on_tiles.forward(x, torch.ones(1, 1))
    assert on_tiles.choice.precision == "exact"
    assert on_tiles.choice.reason.startswith("rounding weights to digits could move outputs by ")
    weight = on_tiles.target * on_tiles.scales[0].unsqueeze(-1)
    plain = MatrixOnTiles(weight, LINEAR, pieces(1, (400,), (6,)), tile(dac=8, adc=14, bound=10.0), effects(STANDARD))
    assert torch.equal(y, plain.forward(x, torch.ones(1, 1)))


@pytest.mark.parametrize("precision", ["fast", "auto"])
def test_processors_without_the_units(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "_processor_flags", lambda: frozenset({"sse2", "avx2"}))
    units.missing_units.cache_clear()
    try:
        on_tiles = matrix(precision=precision)
        assert on_tiles.choice.precision == "exact"
        assert "has no 8-bit integer units" in on_tiles.choice.reason
        monkeypatch.setattr(units, "_processor_flags", lambda: None)
        units.missing_units.cache_clear()
        assert "not known on" in matrix(precision=precision).choice.reason
    finally:
        units.missing_units.cache_clear()


def test_a_product_that_saturates_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def saturating(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return (x.int() @ w.int()).clamp(-(2**15), 2**15 - 1)

    monkeypatch.setattr(torch, "_int_mm", saturating)
    assert "is not exact on this processor" in str(units._inexact_product())
    monkeypatch.delattr(torch, "_int_mm")
    assert "has no 8-bit integer product" in str(units._inexact_product())


def test_an_unknown_precision_is_an_error() -> None:
    with pytest.raises(
        DataError, match="no precision is called 'exakt': did you mean 'exact'\\? There are exact, fast"
    ):
        parse_precision("exakt")


@pytest.mark.skipif(UNITS is not None, reason=str(UNITS))
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_inputs_that_are_not_finite(value: float) -> None:
    x = torch.rand(3, 20)
    x[1, 7] = value
    with pytest.raises(DataError, match="an input of 'layer' is not finite"):
        matrix().forward(x, torch.ones(1, 1))
