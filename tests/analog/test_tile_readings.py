"""Drift compensation of a tile that several pieces share: one factor of the tile, or of each of its columns."""

from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
import torch
from analog_chips import STANDARD, effects, pieces, standard_tile
from fast_cases import UNITS
from torch import Tensor

from aimc_compiler.analog import Contraction, MatrixOnTiles, compensation_factor, one_hot_outputs
from aimc_compiler.analog import compensation as compensation_module
from aimc_compiler.analog import tile_readings as readings_module
from aimc_compiler.analog.fast.plan import LARGEST_DEVIATION
from aimc_compiler.analog.models import time_name
from aimc_compiler.analog.tile_readings import TileReadings
from aimc_compiler.errors import InternalError
from aimc_compiler.mapping.ir import Piece

ALL = {"programming_noise": 1, "drift": 1, "accumulated_read_noise": 1}
LINEAR = Contraction(kind="linear")
HOUR, DAY, YEAR = 3600.0, 86_400.0, 31_536_000.0
PRECISIONS = [
    "exact",
    pytest.param("fast", marks=pytest.mark.skipif(UNITS is not None, reason=str(UNITS))),
]


def piece(matrix: str, columns: int, rows: int, **where: int) -> Piece:
    (only,) = pieces(1, (rows,), (columns,), matrix=matrix)
    return replace(only, **where)


#: a and b stand above each other and share columns 10 to 19 of the tile, c stands beside both, d on a tile of its own.
A = piece("a", 20, 50, tile=3)
B = piece("b", 15, 33, tile=3, tile_row=50, tile_column=10)
C = piece("c", 9, 70, tile=3, tile_column=40)
D = piece("d", 12, 40, tile=5)


def weight_of(held: Piece) -> Tensor:
    """Of another level for each matrix, so that factors of their own would differ."""
    generator = torch.Generator().manual_seed(ord(held.matrix))
    share = {"a": 1.0, "b": 0.1, "c": 0.5, "d": 0.3}[held.matrix]
    return torch.rand(1, held.columns, held.rows, generator=generator) ** (1 / share)


def chip(kind: str, precision: str = "exact", device: dict[str, Any] | None = None) -> dict[str, MatrixOnTiles]:
    """The matrices of a chip, by name."""
    readings = TileReadings((A, B, C, D))
    spec = standard_tile(device=device or {}), effects(STANDARD, ALL, kind)
    return {
        held.matrix: MatrixOnTiles(
            weight_of(held), LINEAR, (held,), *spec, seed=3, precision=precision, readings=readings
        )
        for held in (A, B, C, D)
    }


def read(matrix: MatrixOnTiles, time_s: float | None, index: int = 0) -> Tensor:
    """(columns, rows): magnitudes of one reading of the only piece of a matrix; None: right after programming."""
    ((held,),) = [block.pieces for block in matrix.blocks]
    devices = matrix._cells._devices_of(held)[index]
    weights = devices.programmed() if time_s is None else devices.at(time_s)
    name = "programming" if time_s is None else time_name(time_s)
    return one_hot_outputs(weights, devices.streams, name, held.tile_row, matrix.settings).abs()


def mean(parts: list[Tensor]) -> float:
    return float(torch.cat([part.reshape(-1) for part in parts]).double().mean())


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", ["tile", "exact"])
def test_pieces_of_a_tile_share_the_mean_over_their_weights(kind: str, precision: str) -> None:
    matrices = chip(kind, precision)
    factors = {name: matrix.state(YEAR, DAY).alpha for name, matrix in matrices.items()}
    on_tile = [matrices[name] for name in "abc"]
    first = [matrix.target if kind == "exact" else read(matrix, None) for matrix in on_tile]
    expected = mean(first) / mean([read(matrix, DAY) for matrix in on_tile])
    assert len({float(alpha) for name in "abc" for alpha in factors[name].flatten()}) == 1
    assert float(factors["a"][0, 0, 0]) == pytest.approx(expected, rel=1e-4 if precision == "fast" else 1e-6)
    apart = [float(read(matrix, None).mean() / read(matrix, DAY).mean()) for matrix in on_tile]
    assert max(apart) - min(apart) > 0.02


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_column_of_the_tile_is_read_over_all_its_rows(precision: str) -> None:
    """Columns 10 to 19 hold 50 rows of a and 33 of b; the others one piece."""
    matrices = chip("column", precision)
    factors = {name: matrix.state(YEAR, DAY).alpha[0, 0] for name, matrix in matrices.items()}
    assert torch.equal(factors["a"][10:], factors["b"][:10])
    both = [torch.cat([read(matrices["a"], t)[10:], read(matrices["b"], t)[:10]], dim=1) for t in (None, DAY)]
    tolerance = 1e-3 if precision == "fast" else 1e-6
    torch.testing.assert_close(factors["a"][10:], both[0].mean(1) / both[1].mean(1), rtol=tolerance, atol=0)
    for name, alone in (("a", slice(0, 10)), ("b", slice(10, 15)), ("c", slice(None)), ("d", slice(None))):
        first, now = (read(matrices[name], t)[alone].mean(1) for t in (None, DAY))
        torch.testing.assert_close(factors[name][alone], first / now, rtol=tolerance, atol=0)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", ["tile", "column", "exact", "off"])
def test_a_piece_alone_is_as_on_a_chip_of_its_own(kind: str, precision: str) -> None:
    found = chip(kind, precision)["d"].state(YEAR, DAY)
    spec = standard_tile(), effects(STANDARD, ALL, kind)
    alone = MatrixOnTiles(weight_of(D), LINEAR, (D,), *spec, seed=3, precision=precision)
    assert torch.equal(found.alpha, alone.state(YEAR, DAY).alpha)
    if precision == "exact":
        (devices,) = alone._cells._devices_of(D)
        assert torch.equal(found.alpha[0, 0], compensation_factor(kind, devices, DAY, 0, alone.settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", ["tile", "column"])
def test_who_is_asked_first_and_when_does_not_matter(kind: str, precision: str) -> None:
    asked = [("a", HOUR, HOUR), ("b", YEAR, DAY), ("c", YEAR, YEAR)]
    found: dict[tuple[str, float, float], list[Tensor]] = {}
    for order in permutations(asked):
        matrices = chip(kind, precision)
        for name, time_s, read_s in (*order, *order[::-1]):
            found.setdefault((name, time_s, read_s), []).append(matrices[name].state(time_s, read_s).alpha)
    for same in found.values():
        assert len(same) == 12
        assert all(torch.equal(alpha, same[0]) for alpha in same[1:])


def test_each_piece_is_read_once_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[tuple[str, str]] = []

    def counted(w: Tensor, streams: Any, reading: str, *more: Any) -> Tensor:
        names.append((streams.piece[0], reading))
        return one_hot_outputs(w, streams, reading, *more)

    monkeypatch.setattr(compensation_module, "one_hot_outputs", counted)
    matrices = chip("tile")
    for time_s in (HOUR, DAY):
        for name in "abcd":
            matrices[name].state(YEAR, time_s)
            matrices[name].state(2 * YEAR, time_s)
    expected = [(name, reading) for name in "abcd" for reading in ("programming", time_name(HOUR), time_name(DAY))]
    assert sorted(names) == sorted(expected)


def test_a_tile_is_put_together_once_for_all_its_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not once for each of them: a tile can hold hundreds."""
    whole, calls = readings_module._mean_of_cells, []
    monkeypatch.setattr(readings_module, "_mean_of_cells", lambda shared: calls.append(len(shared)) or whole(shared))
    held = tuple(
        replace(one, tile=0, tile_row=0, tile_column=place) for place, one in enumerate(pieces(40, (9,), (1,)))
    )
    weight = torch.rand(40, 1, 9, generator=torch.Generator().manual_seed(1))
    convolution = Contraction(kind="conv1d", kernel=(9,), stride=(1,), padding=(0,), dilation=(1,))
    matrix = MatrixOnTiles(weight, convolution, held, standard_tile(), effects(STANDARD, ALL, "tile"))
    factors = [matrix.state(time_s).alpha.unique() for time_s in (HOUR, DAY)]
    assert calls == [40] * 4  # right after programming and now, at each time
    assert [len(factor) for factor in factors] == [1, 1]
    assert float(factors[0]) != float(factors[1])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_operations_that_share_a_weight_share_its_readings(precision: str) -> None:
    spec = standard_tile(), effects(STANDARD, ALL, "tile")
    readings = TileReadings((A, B))
    held = [(A, A), (A, A), (B, B)]
    first, second, other = (
        MatrixOnTiles(weight_of(one), LINEAR, (place,), *spec, seed=3, precision=precision, readings=readings)
        for one, place in held
    )
    late = second.state(YEAR)
    assert torch.equal(first.state(YEAR).alpha, late.alpha)
    assert torch.equal(first.state(YEAR).weights, late.weights)
    assert float(other.state(YEAR).alpha[0, 0, 0]) == float(late.alpha[0, 0, 0])
    reference = chip("tile", precision)["a"].state(YEAR)
    assert torch.equal(late.weights, reference.weights)


def test_slices_of_a_tile_share_a_factor_and_columns_have_their_own() -> None:
    device = {"slices": 2, "bits_per_slice": 2}
    matrices = chip("tile", device=device)
    weights = torch.tensor(matrices["a"].slices.factors).reshape(-1, 1, 1, 1)
    shared = [matrices[name].state(YEAR).factors / weights for name in "abc"]
    readings = [
        [read(matrices[name], time_s, index) for name in "abc" for index in range(2)] for time_s in (None, YEAR)
    ]
    expected = mean(readings[0]) / mean(readings[1])
    for factors in shared:
        torch.testing.assert_close(factors, torch.full_like(factors, expected), rtol=1e-6, atol=0)
    by_column = chip("column", device=device)["c"]
    own = (by_column.state(YEAR).factors / weights)[:, 0, 0]
    for index in range(2):
        expected_own = read(by_column, None, index).mean(1) / read(by_column, YEAR, index).mean(1)
        torch.testing.assert_close(own[index], expected_own, rtol=1e-6, atol=0)


@pytest.mark.skipif(UNITS is not None, reason=str(UNITS))
def test_a_matrix_that_falls_back_to_exact_is_read_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    matrices = chip("tile", "fast")
    x, ranges = torch.rand(2, 50), torch.ones(1, 1)
    matrices["a"].forward(x, ranges, HOUR)
    assert matrices["a"].choice.precision == "fast"
    expected = matrices["b"].state(DAY).alpha
    fallen = chip("tile", "fast")
    monkeypatch.setattr("aimc_compiler.analog.matrix.LARGEST_DEVIATION", -1.0)
    assert LARGEST_DEVIATION > 0
    fallen["a"].forward(x, ranges, HOUR)
    assert fallen["a"].choice.precision == "exact"
    assert torch.equal(fallen["a"].state(DAY).alpha[0, 0, :1], expected[0, 0, :1])
    assert torch.equal(fallen["b"].state(DAY).alpha, expected)


def test_moving_a_matrix_reads_it_anew() -> None:
    matrices = chip("tile")
    before = {name: matrix.state(YEAR).alpha for name, matrix in matrices.items()}
    for name in "ba":
        matrices[name].to("cpu")
    for name in "cab":
        assert torch.equal(matrices[name].state(YEAR).alpha, before[name])


def test_a_neighbour_that_is_missing_is_an_error() -> None:
    spec = standard_tile(), effects(STANDARD, ALL, "tile")
    lonely = MatrixOnTiles(weight_of(A), LINEAR, (A,), *spec, readings=TileReadings((A, B)))
    with pytest.raises(InternalError, match="piece 'b/g0/r0/c0/n0' shares a tile, but its matrix is not on this chip"):
        lonely.state(HOUR)
