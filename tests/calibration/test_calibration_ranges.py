"""Input ranges against what torch computes on the whole of the data."""

import pytest
import torch
from torch import nn

import aimc_compiler as aimc
from aimc_compiler.analog import RangeObserver
from aimc_compiler.calibration import RangeMethod
from aimc_compiler.errors import CalibrationError, CalibrationWarning


def compiled_linear() -> tuple[aimc.CompiledModel, torch.Tensor]:
    torch.manual_seed(0)
    x = torch.randn(4000, 60)
    chip = aimc.load_chip("analog-fabric", overrides=("tile.rows=30",))
    return aimc.compile(nn.Linear(60, 7).eval(), chip, (x[:1],)), x


@pytest.mark.parametrize(
    ("method", "reference"),
    [
        ("percentile:99.9", lambda x: torch.quantile(x.abs().flatten()[:120_000].double(), 0.999)),
        ("k-sigma:4", lambda x: 4 * x.square().mean().sqrt()),
        ("max", lambda x: x.abs().max()),
    ],
)
def test_range_of_each_row_block(method: str, reference) -> None:  # type: ignore[no-untyped-def]
    compiled, x = compiled_linear()
    ranges = compiled.calibrate(x.split(256), method).ranges
    assert ranges is not None
    assert ranges.samples == 4000
    assert ranges.method == method
    found = ranges.of("linear" if any(row.op == "linear" for row in ranges.rows) else ranges.rows[0].op)
    assert found.shape == (1, 2)
    for block, part in enumerate((x[:, :30], x[:, 30:])):
        assert found[0, block] == pytest.approx(float(reference(part)), rel=5e-3)
    for row in ranges.rows:
        beyond = (x[:, 30 * row.row_block : 30 * row.row_block + 30].abs() > row.range).float().mean()
        assert row.clipped == pytest.approx(float(beyond), abs=1e-3)


def test_convolution_blocks_see_their_channels_only() -> None:
    torch.manual_seed(0)
    x = torch.rand(16, 8, 6, 6) * torch.tensor([1.0, 1, 1, 1, 5, 5, 5, 5]).view(1, 8, 1, 1)
    chip = aimc.load_chip("analog-fabric", overrides=("tile.rows=36",))
    compiled = aimc.compile(nn.Conv2d(8, 4, 3).eval(), chip, (x[:1],), calibration=[x], range_method="max")
    assert compiled.ranges is not None
    low, high = (row.range for row in compiled.ranges.rows)
    assert 0.9 < low <= 1.0
    assert 4.5 < high <= 5.0


def test_groups_have_their_own_ranges() -> None:
    torch.manual_seed(0)
    x = torch.rand(16, 2, 6, 6) * torch.tensor([1.0, 9.0]).view(1, 2, 1, 1)
    model = nn.Conv2d(2, 4, 3, groups=2).eval()
    compiled = aimc.compile(model, "analog-fabric", (x[:1],), calibration=[x], range_method="max")
    assert compiled.ranges is not None
    assert [round(row.range) for row in compiled.ranges.rows] == [1, 9]


@pytest.mark.parametrize(
    ("model", "shape"), [(nn.Linear(6, 2), (6,)), (nn.Conv2d(3, 2, 3), (3, 8, 8)), (nn.Conv1d(3, 2, 3), (3, 8))]
)
def test_a_sample_without_batch_is_seen_whole(model: nn.Module, shape: tuple[int, ...]) -> None:
    """Its last elements are the largest."""
    x = torch.arange(1.0, 1 + torch.Size(shape).numel()).reshape(shape)
    compiled = aimc.compile(model.eval(), "analog-fabric", (x,), batch_dim=None, calibration=[x], range_method="max")
    assert compiled.ranges is not None
    assert [row.range for row in compiled.ranges.rows] == [float(x.max())]
    assert compiled.deploy()(x).shape == model(x).shape


def test_a_block_that_saw_only_zeros_says_so() -> None:
    x = torch.zeros(4, 5)
    compiled = aimc.compile(nn.Linear(5, 2).eval(), "analog-fabric", (torch.ones(1, 5),), calibration=[x])
    assert compiled.ranges is not None
    assert compiled.ranges.rows[0].range == 1.0
    assert "every input was 0" in compiled.ranges.rows[0].note


def test_pairs_with_labels_are_refused() -> None:
    compiled, x = compiled_linear()
    with pytest.raises(CalibrationError, match=r"batch 0 does not run.*without labels: \(x for x, _ in loader\)"):
        compiled.calibrate([(x[:4], torch.zeros(4))])


def test_no_data_and_wrong_data() -> None:
    compiled, x = compiled_linear()
    with pytest.raises(CalibrationError, match="calibration data is empty"):
        compiled.calibrate([])
    with pytest.raises(CalibrationError, match="not finite"):
        compiled.calibrate([x * float("nan")])


@pytest.mark.parametrize("text", ["percentile:99.99999", "percentile:99.9", "k-sigma:4", "k-sigma:2.5", "mse", "max"])
def test_a_method_is_recorded_as_it_was_given(text: str) -> None:
    assert str(RangeMethod.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["percentile:0", "percentile:101", "k-sigma:-1", "mean", "percentile:", "max:3", "mse:2"]
)
def test_unknown_methods(text: str) -> None:
    with pytest.raises(CalibrationError, match="percentile:P"):
        RangeMethod.parse(text)


def _squared_error(x: torch.Tensor, bound: float) -> float:
    step = 2 * bound / 254
    return float((x - (step * torch.round(x / step)).clamp(-bound, bound)).square().mean())


@pytest.mark.parametrize(
    "data",
    [
        lambda: torch.randn(200_000),
        lambda: torch.randn(200_000).clamp(min=0),
        lambda: torch.cat([torch.randn(200_000), torch.tensor([60.0])]),
        lambda: torch.distributions.Laplace(0.0, 2.0).sample((200_000,)),
    ],
    ids=["normal", "rectified", "outlier", "laplace"],
)
def test_mse_is_the_best_of_a_search(data) -> None:  # type: ignore[no-untyped-def]
    """Within 1 % of the least squared error among ranges searched on the values themselves."""
    torch.manual_seed(0)
    x = data().double()
    observer = RangeObserver()
    observer.update(x)
    searched = min(_squared_error(x, float(x.abs().max()) * k / 400) for k in range(1, 401))
    assert _squared_error(x, observer.least_squares(254)) < 1.01 * searched
    assert observer.least_squares(None) == observer.maximum()


def test_mse_by_name_takes_the_converter_of_the_chip() -> None:
    compiled, x = compiled_linear()
    ranges = compiled.calibrate([x], "mse").ranges
    assert ranges is not None
    assert ranges.method == "mse"
    assert RangeMethod.parse("mse") == RangeMethod(kind="mse")
    largest = compiled.calibrate([x], "max").ranges
    coarse = aimc.load_chip("analog-fabric", overrides=("tile.rows=30", "tile.dac.bits=4"))
    clipped = compiled.with_chip(coarse).calibrate([x], "mse").ranges
    assert largest is not None
    assert clipped is not None
    for fine, few, most in zip(ranges.rows, clipped.rows, largest.rows, strict=True):
        assert few.range < fine.range <= most.range


OFFSET = ("tile.device.encoding=offset_column", "tile.adc.signed=false")
SERIAL = ("tile.dac.input_mode=bit_serial", "tile.dac.bit_code=twos_complement")


def test_inputs_of_either_sign_on_converters_without_sign_are_named() -> None:
    """Sums below 0 would read as 0 in silence; two's complement, converters with sign and relu in front are well."""
    torch.manual_seed(0)
    first, second = nn.Linear(4, 4), nn.Linear(4, 3)
    x = torch.rand(10, 4)
    x[0, 0] = -0.5
    message = (
        r"2\.5 % of the inputs of '0' are below 0 \(the least is -0\.5\), but the output converters of their tiles "
    )
    model = nn.Sequential(first, nn.ReLU(), second).eval()
    with pytest.warns(CalibrationWarning, match=message):
        aimc.compile(model, aimc.load_chip("analog-fabric", overrides=OFFSET), (x,), [x])
    with pytest.warns(CalibrationWarning, match=r"are below 0 .*, and so are some of 1 more operations, but"):
        aimc.compile(nn.Sequential(first, second).eval(), aimc.load_chip("analog-fabric", overrides=OFFSET), (x,), [x])
    for overrides, data in ((OFFSET, x.abs()), ((*OFFSET, *SERIAL), x), ((), x)):
        aimc.compile(model, aimc.load_chip("analog-fabric", overrides=overrides), (x,), [data])
