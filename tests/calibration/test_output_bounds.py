"""Output bounds: by hand, each method, slices and planes, round trip, what a bound that is too small costs."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import aimc_compiler as aimc
from aimc_compiler.calibration import OUTPUT_METHOD, OutputObserver, RangeMethod
from aimc_compiler.chip import only
from aimc_compiler.errors import CalibrationError, CalibrationWarning, NotBuiltError
from aimc_compiler.executor import BoundRow, matrix_on_tiles

CALIBRATED = "tile.adc.out_bound=calibrated"


def chip(*overrides: str, bound: str = "calibrated", name: str = "analog-fabric") -> aimc.ChipSpec:
    return aimc.load_chip(name, overrides=(f"tile.adc.out_bound={bound}", *overrides))


def rows_of(compiled: aimc.CompiledModel) -> tuple[BoundRow, ...]:
    assert compiled.ranges is not None
    assert compiled.ranges.outputs is not None
    return compiled.ranges.outputs.rows


def layer(weight: list[list[float]], bias: float = 0.0) -> nn.Linear:
    made = nn.Linear(len(weight[0]), len(weight))
    with torch.no_grad():
        made.weight.copy_(torch.tensor(weight))
        made.bias.fill_(bias)
    return made.eval()


def test_by_hand() -> None:
    """Columns scale to (1, 0.5) and (1, -1); the range is 4, and codes of 127 steps hold 1, 0.5 and 0.25 to 0.4 %.

    Outputs: x = (4, 4) gives 1.5 and 0, (4, -2) gives 0.75 and 1.5, (1, 4) gives 0.75 and -0.75. One bound a piece: two
    columns share it, unless a tile has one column.
    """
    model, x = layer([[2.0, 1.0], [-3.0, 3.0]], bias=100.0), torch.tensor([[4.0, 4.0], [4.0, -2.0], [1.0, 4.0]])
    (whole,) = rows_of(aimc.compile(model, chip(), (x,), [x], range_method="max", output_ranges="max"))
    assert whole.bound == whole.largest == pytest.approx(1.5, rel=4e-3)
    assert (whole.op, whole.group, whole.row_block, whole.column_block, whole.slice) == ("weight", 0, 0, 0, 0)
    assert whole.clipped == 0
    narrow = rows_of(aimc.compile(model, chip("tile.columns=1"), (x,), [x], range_method="max", output_ranges="max"))
    assert [row.column_block for row in narrow] == [0, 1]
    assert [row.bound for row in narrow] == pytest.approx([1.5, 1.5], rel=4e-3)
    tall = rows_of(aimc.compile(model, chip("tile.rows=1"), (x,), [x], range_method="max", output_ranges="max"))
    assert [row.bound for row in tall] == pytest.approx([1.0, 1.0], rel=4e-3)


@pytest.mark.parametrize(
    ("method", "reference"),
    [
        ("percentile:99", lambda u: torch.quantile(u.abs().flatten(), 0.99)),
        ("k-sigma:3", lambda u: 3 * u.square().mean().sqrt()),
        ("max", lambda u: u.abs().max()),
    ],
)
def test_methods(method: str, reference) -> None:  # type: ignore[no-untyped-def]
    """Of each piece, against its own product of normalised weights with the inputs over their range."""
    torch.manual_seed(0)
    model, x = nn.Linear(60, 12).eval(), torch.randn(2000, 60) * torch.cat([torch.ones(30), 5 * torch.ones(30)])
    spec = chip("tile.rows=30", "tile.columns=8", "tile.dac.bits=16")
    compiled = aimc.compile(model, spec, (x[:1],), x.split(300), range_method="max", output_ranges=method)
    assert compiled.ranges is not None
    ranges = compiled.ranges.of("weight")[0]
    assert len(rows_of(compiled)) == 4
    for row in rows_of(compiled):
        piece = next(
            p for p in compiled.mapping.pieces if (p.row_block, p.column_block) == (row.row_block, row.column_block)
        )
        block = slice(piece.first_row, piece.first_row + piece.rows)
        w = model.weight.detach()[piece.first_column : piece.first_column + piece.columns, block].double()
        u = (x[:, block].double() / ranges[row.row_block]) @ (w / w.abs().amax(dim=1, keepdim=True)).T
        assert row.bound == pytest.approx(float(reference(u)), rel=5e-3)
        assert row.clipped == pytest.approx(float((u.abs() > row.bound).double().mean()), abs=1e-3)
    assert compiled.ranges.outputs is not None
    assert compiled.ranges.outputs.method == method


def test_mse_goes_by_the_bits_of_the_converter() -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(60, 12).eval(), torch.randn(2000, 60)
    bounds = [
        rows_of(aimc.compile(model, chip(f"tile.adc.bits={bits}"), (x[:1],), [x], output_ranges="mse"))[0].bound
        for bits in (3, 5, 8)
    ]
    assert bounds[0] < 0.8 * bounds[1] < 0.8 * bounds[2]
    unrounded = chip("tile.adc.bits=off")
    (row,) = rows_of(aimc.compile(model, unrounded, (x[:1],), [x], output_ranges="mse"))
    assert row.bound == row.largest


@pytest.mark.parametrize("kind", ["conv", "grouped", "conv1d", "vector scales"])
def test_convolutions_see_windows(kind: str) -> None:
    """Ideal codes of the chip itself, unclipped and unrounded, have the largest output that calibration names."""
    torch.manual_seed(0)
    model: nn.Module = nn.Conv2d(4, 6, 3, padding=1, groups=2 if kind == "grouped" else 1, bias=False)
    x = torch.rand(5, 4, 6, 6)
    if kind == "conv1d":
        model, x = nn.Conv1d(4, 6, 3, padding=1, bias=False), torch.rand(5, 4, 9)
    scaled = ("nonidealities.mvm.input_scaling=abs_max",) if kind == "vector scales" else ()
    spec = chip(*scaled)
    compiled = aimc.compile(model.eval(), spec, (x[:1],), [x], range_method="max", output_ranges="max")
    ideal = only(compiled.with_chip(spec).chip, ["range_clip", "dac_quantisation"])
    y = compiled.with_chip(ideal).deploy(precision="exact")(x)
    weight = compiled.graph.matrix_modules()[rows_of(compiled)[0].op].weight.detach()
    assert compiled.ranges is not None
    input_range = compiled.ranges.of(rows_of(compiled)[0].op)
    scale = weight.flatten(1).abs().amax(dim=1) * input_range[:, 0].repeat_interleave(6 // input_range.shape[0])
    u = (y.movedim(1, -1) / scale).abs().flatten(0, -2).amax(dim=0)
    found = [row.bound for row in rows_of(compiled)]
    if kind == "vector scales":
        assert float(u.max()) <= found[0] * 1.001  # an input's own scale, at most 1, makes outputs before it larger
        return
    assert found == pytest.approx(u.reshape(len(found), -1).amax(dim=1).tolist(), rel=1e-4)


def test_each_slice_has_its_own_bound() -> None:
    """Two slices of two bits: 0.75 is digits (3, 0) of 15 and 0.2 is (0, 3); an input of 1 each.

    Of a differential pair the digits keep the sign. Outputs: 1 in the first slice, 1 in the second; and 5 times 0.2
    makes 5 in the second alone.
    """
    model = layer([[12 / 15, 3 / 15, 3 / 15, 3 / 15, 3 / 15, 1.0]])
    x = torch.tensor([[1.0, 1.0, 1.0, 1.0, 1.0, 0.0]])
    spec = chip("tile.device.slices=2", "tile.device.bits_per_slice=2")
    rows = rows_of(aimc.compile(model, spec, (x,), [x], range_method="max", output_ranges="max"))
    assert [(row.slice, round(row.bound, 6)) for row in rows] == [(0, 1.0), (1, 4.0)]


def test_bit_planes_are_seen_one_by_one() -> None:
    """Codes 3 and 5 of 7 (4 bits): planes 011 and 101; the lowest plane has both ones, and the whole is 8/7."""
    model, x = layer([[1.0, 1.0, 0.0]]), torch.tensor([[3.0, 5.0, 7.0]])
    for accumulate, expected in (("digital", 2.0), ("analog", 8 / 7)):
        spec = chip("tile.dac.bits=4", "tile.dac.input_mode=bit_serial", f"tile.dac.accumulate={accumulate}")
        (row,) = rows_of(aimc.compile(model, spec, (x,), [x], range_method="max", output_ranges="max"))
        assert row.bound == pytest.approx(expected)


def test_a_sparse_plane_does_not_hide_what_a_dense_one_needs() -> None:
    """The highest plane is almost never set: pooled with the others, its zeros would lower a percentile."""
    torch.manual_seed(0)
    x = torch.cat([torch.randint(0, 2, (400, 30)).float(), torch.full((1, 30), 127.0)])
    spec = chip("tile.dac.input_mode=bit_serial")
    model = layer([[1.0] * 30])
    (row,) = rows_of(aimc.compile(model, spec, (x[:1],), [x], range_method="max", output_ranges="percentile:50"))
    assert row.bound == pytest.approx(15, abs=1)


def test_passes_of_one_sign_are_seen_apart() -> None:
    model, x = layer([[1.0, 1.0]]), torch.tensor([[1.0, -1.0], [0.5, -1.0]])
    found = {}
    for passes in ("one", "analog", "digital"):
        spec = chip(f"nonidealities.mvm.passes={passes}")
        (row,) = rows_of(aimc.compile(model, spec, (x,), [x], range_method="max", output_ranges="max"))
        found[passes] = row.bound
    assert found == pytest.approx({"one": 0.5, "analog": 0.5, "digital": 1.0}, abs=0.01)


def test_a_converter_without_sign_is_not_ranged_by_what_it_loses() -> None:
    """An offset column holds (w + 1) / 2: 1 and 0.75 here. Negative inputs give outputs that it cannot convert."""
    model, x = layer([[1.0, 0.5]]), torch.tensor([[1.0, 1.0], [-8.0, -8.0], [0.0, 0.0]])
    spec = chip("tile.device.encoding=offset_column", "tile.adc.signed=false")
    with pytest.warns(CalibrationWarning, match="33 % of the inputs of 'weight' are below 0"):
        (row,) = rows_of(aimc.compile(model, spec, (x,), [x], range_method="max", output_ranges="max"))
    assert row.bound == pytest.approx(1.75 / 8, rel=0.02)
    assert row.clipped == pytest.approx(1 / 3)  # lost, and reported
    (positive,) = rows_of(aimc.compile(model, spec, (x,), [x.abs()], range_method="max", output_ranges="max"))
    assert positive.clipped == 0


def test_an_output_that_is_always_zero_says_so() -> None:
    model, x = layer([[0.0, 0.0]]), torch.ones(3, 2)
    (row,) = rows_of(aimc.compile(model, chip(), (x,), [x]))
    assert row.bound == 1.0
    assert row.note == f"{OUTPUT_METHOD} gave 0; the largest output is used, or 1 where every output was 0"


def network() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 30), nn.ReLU(), nn.Linear(30, 3))
    return model.eval(), torch.rand(64, 1, 8, 8)


def test_round_trip(tmp_path: Path) -> None:
    model, x = network()
    spec = chip("tile.rows=64", "tile.columns=20")
    compiled = aimc.compile(model, spec, (x[:1],), x.split(16), output_ranges="mse", seed=4)
    again = aimc.load(compiled.save(tmp_path / "net.aimc"))
    assert again.ranges == compiled.ranges
    assert len({row.bound for row in rows_of(again)}) == len(rows_of(again)) > 4
    assert torch.equal(again.deploy()(x, time_s=10.0), compiled.deploy()(x, time_s=10.0))
    assert again.save(tmp_path / "b.aimc").read_bytes() == (tmp_path / "net.aimc").read_bytes()


def test_bounds_do_not_depend_on_batches() -> None:
    model, x = network()

    def drawn() -> Iterator[torch.Tensor]:
        yield from x.split(10)

    made = [aimc.compile(model, chip("tile.rows=64"), (x[:1],), data) for data in ([x], x.split(7), drawn())]
    first, *others = (rows_of(compiled) for compiled in made)
    for rows in others:
        assert [row.bound for row in rows] == pytest.approx([row.bound for row in first], rel=2e-3)


def test_a_bound_that_is_too_small_is_repaired() -> None:
    """MVM outputs beyond a fixed bound of 1 are lost; a calibrated one loses next to nothing of either."""
    model, x = network()
    expected = model(x).detach()
    errors = {}
    for bound in ("1", "100", "calibrated"):
        compiled = aimc.compile(model, chip(bound=bound), (x[:1],), [x])
        converters = compiled.with_chip(only(compiled.chip, ["adc_quantisation", "adc_clip"]))
        for precision in ("exact", "auto"):
            y = converters.deploy(precision=precision)(x)
            errors[bound, precision] = float((y - expected).norm() / expected.norm())
    for precision in ("exact", "auto"):
        assert errors["calibrated", precision] < 0.2 * errors["1", precision]
        assert errors["calibrated", precision] < 0.2 * errors["100", precision]
        assert errors["calibrated", precision] < 0.02


def test_running_without_bounds_names_what_to_do() -> None:
    model, x = network()
    bare = aimc.compile(model, chip(), (x[:1],))
    assert bare.timing.latency_s > 0
    assert bare.needs_calibration
    with pytest.raises(CalibrationError, match="has no input ranges, so it cannot run analog"):
        bare.deploy()
    fixed = aimc.compile(model, chip(bound="10"), (x[:1],), [x])
    assert fixed.ranges is not None
    assert fixed.ranges.outputs is None
    with pytest.raises(
        CalibrationError, match=r"no output bounds, which chip analog-fabric takes from data.*aimc calib"
    ):
        fixed.with_chip(chip()).deploy()
    fixed.with_chip(chip()).calibrate([x]).deploy()


def test_a_method_that_sets_nothing_is_refused() -> None:
    model, x = network()
    with pytest.raises(CalibrationError, match=r"mse for output ranges sets nothing: .*tile.adc.out_bound=calibrated"):
        aimc.compile(model, chip(bound="10"), (x[:1],), [x], output_ranges="mse")
    with pytest.raises(CalibrationError, match="'most' is no way to set ranges: write percentile:P"):
        aimc.compile(model, chip(), (x[:1],), output_ranges="most")


def test_data_that_changes_between_two_runs_is_refused() -> None:
    class Shrinking:
        def __init__(self, x: torch.Tensor) -> None:
            self.left = x

        def __iter__(self) -> Iterator[torch.Tensor]:
            yield self.left
            self.left = self.left[:5]

    model, x = network()
    with pytest.raises(CalibrationError, match="gave 64 samples when it was run for input ranges and 5 when"):
        aimc.compile(model, chip(), (x[:1],), Shrinking(x))


def test_what_is_not_built_is_refused() -> None:
    model, x = network()
    spec = chip("nonidealities.mvm.input_scaling=abs_max_sums")
    assert aimc.compile(model, spec, (x[:1],)).timing.latency_s > 0
    with pytest.raises(NotBuiltError, match=r"adc\.out_bound calibrated with input_scaling abs_max_sums"):
        aimc.compile(model, spec, (x[:1],), [x])


def test_an_observer_takes_one_matrix() -> None:
    """The class that studies use: the same bounds as ``calibrate``."""
    model, x = network()
    compiled = aimc.compile(model, chip(), (x[:1],), [x])
    op = compiled.workload.analog_ops[0]
    matrix = matrix_on_tiles(op, compiled.graph.matrix_modules()[op.name], compiled.mapping, compiled.chip)
    observer = OutputObserver(matrix, compiled.chip.tile_types[op.tile_type].adc)
    assert compiled.ranges is not None
    observer.update(x, compiled.ranges.of(op.name))
    assert tuple(observer.bound_rows(op.name, RangeMethod.parse(OUTPUT_METHOD))) == tuple(
        row for row in rows_of(compiled) if row.op == op.name
    )


def test_tile_types_with_fixed_bounds_keep_them() -> None:
    model, x = network()
    data = chip().model_dump(by_alias=True, exclude={"provenance"}, exclude_none=True)
    own = data.pop("tile")
    fixed = {**own, "adc": {**own["adc"], "out_bound": 10.0}}
    spec = aimc.ChipSpec.model_validate({**data, "tiles": {"own": own, "fixed": fixed}})
    compiled = aimc.compile(model, spec, (x[:1],), [x], rules=[("3", {"tile_type": "fixed"})])
    assert [row.op for row in rows_of(compiled)] == ["0", "5"]
    assert compiled.deploy()(x).shape == (64, 3)
    unbounded = aimc.compile(model, spec, (x[:1],), [x], rules=[("*", {"tile_type": "fixed"})])
    assert not unbounded.needs_bounds
    unbounded.deploy()


class Twice(nn.Module):
    """One matrix, used for small outputs and then for large ones."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = layer([[1.0, 1.0], [1.0, 1.0]])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.shared(x * torch.tensor([1.0, -1.0]))
        return self.shared(y.abs())  # type: ignore[no-any-return]


def test_operations_that_share_a_matrix_have_their_own_bounds() -> None:
    x = torch.tensor([[4.0, 3.0], [3.0, 4.0]])
    compiled = aimc.compile(Twice().eval(), chip(), (x,), [x], range_method="max", output_ranges="max")
    first, second = rows_of(compiled)
    assert first.op != second.op
    assert (first.bound, second.bound) == pytest.approx((0.25, 2.0), rel=0.02)
    y = compiled.with_chip(only(compiled.chip, ["adc_quantisation", "adc_clip"])).deploy()(x)
    torch.testing.assert_close(y, torch.full((2, 2), 2.0), rtol=0.02, atol=0)
