"""What follows the products in one pass: the values of the functions that act one at a time."""

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
import torch
from analog_chips import NO_DEVICE, STANDARD, effects, pieces, tile
from hypothesis import given, settings
from hypothesis import strategies as st

from aimc_compiler.analog import Contraction, MatrixOnTiles, finish

CONV = Contraction(kind="conv2d", kernel=(3, 3), stride=(2, 1), padding=(1, 1), dilation=(1, 1))
MVM = import_module("aimc_compiler.analog.mvm")
KINDS = ("linear", "conv2d", "windows")


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def matrix(kind: str, model: dict[str, Any], tile_row: int = 0, bits: int = 8, bound: float = 4.0) -> MatrixOnTiles:
    """90 rows in two blocks, 13 columns in two; "windows": unfolded, for input noise of each tile."""
    groups = 2 if kind == "conv2d" else 1
    weight = torch.randn(groups, 13, 90, generator=torch.Generator().manual_seed(1)) / 3
    held = pieces(groups, (50, 40), (6, 7), tile_row=tile_row)
    contraction = Contraction(kind="linear") if kind == "linear" else CONV
    given_effects = effects({**STANDARD, **model, "sigma_in": 0.01 if kind == "windows" else 0.0}, dict(NO_DEVICE))
    return MatrixOnTiles(weight, contraction, held, tile(dac=8, adc=bits, bound=bound), given_effects)


def run(on_tiles: MatrixOnTiles, kind: str, samples: int) -> torch.Tensor:
    shape = (6, 5, 90) if kind == "linear" else (6, 20 if kind == "conv2d" else 10, 9, 7)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    ranges = torch.full((on_tiles.target.shape[0], 2), 1.5)
    with torch.no_grad():
        return on_tiles.forward(x, ranges, 0.0, first_sample=3, first_call=11, samples=samples)


def one_at_a_time(patch: pytest.MonkeyPatch, *of: Any) -> torch.Tensor:
    patch.setattr(MVM, "runs_here", lambda x, kernel: False)
    return run(*of)


@pytest.mark.parametrize("kind", KINDS)
@given(
    model=st.fixed_dictionaries(
        {},
        optional={
            "sigma_out": st.sampled_from([0.0, 0.3]),
            "sigma_w": st.sampled_from([0.0, 0.1]),
            "ir_drop": st.sampled_from([0.0, 1.0, 30.0]),
        },
    ),
    tile_row=st.sampled_from([0, 300]),
    bits=st.integers(4, 12),
    bound=st.sampled_from([0.5, 4.0, 40.0]),
    samples=st.sampled_from([1, 3, 6]),
)
@settings(max_examples=30, deadline=None)
def test_values_are_those_of_one_operation_at_a_time(
    kind: str, model: dict[str, Any], tile_row: int, bits: int, bound: float, samples: int
) -> None:
    on_tiles = matrix(kind, model, tile_row, bits, bound)
    found = run(on_tiles, kind, samples)
    with pytest.MonkeyPatch.context() as patch:
        expected = one_at_a_time(patch, on_tiles, kind, samples)
    # A sum that rounds otherwise in its last bit can move a code, seldom and by one.
    code = float(on_tiles.settings.adc_step * on_tiles.scales.max() * 1.5)
    difference = (found - expected).abs()
    assert difference.max() <= 1.01 * code
    assert (difference > 1e-5 * expected.abs().max()).float().mean() < 0.002


@pytest.mark.parametrize("kind", KINDS)
def test_threads_do_not_show(kind: str, threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finish, "_THREAD_WORTH", 1)
    on_tiles, found = matrix(kind, {}), []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        found.append(run(on_tiles, kind, 6))
    code = float(on_tiles.settings.adc_step * on_tiles.scales.max() * 1.5)
    for other in found[1:]:  # the products of torch may round otherwise
        assert (other - found[0]).abs().max() <= 1.01 * code
        assert (other != found[0]).float().mean() < 0.01


def test_who_is_finished_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The standard model, without gradients, in float32; not what it does not model."""
    calls: list[int] = []
    finished = finish.finish
    monkeypatch.setattr(MVM, "finish", lambda *of: calls.append(1) or finished(*of))  # type: ignore[func-returns-value]
    run(matrix("linear", {}), "linear", 6)
    assert len(calls) == 2
    others = ({"output_asymmetry": 0.1}, {"passes": "digital"}, {"read_noise": "constant"}, {"r_series": 0.1})
    for model in others:
        run(matrix("linear", model), "linear", 6)
    x, ranges = torch.randn(2, 90, requires_grad=True), torch.ones(1, 2)
    matrix("linear", {}).forward(x, ranges, 0.0).sum().backward()
    assert x.grad is not None
    assert len(calls) == 2
