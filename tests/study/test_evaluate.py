"""Evaluation over chips and times."""

import io

import pytest
import torch
from rich.console import Console
from torch import nn

import aimc_compiler as aimc
from aimc_compiler.chip import load_chip
from aimc_compiler.errors import DataError
from aimc_compiler.metrics import join_targets, normalised
from aimc_compiler.report.evaluation import evaluation_json, evaluation_table


@pytest.fixture(scope="module")
def task() -> tuple[aimc.CompiledModel, list[tuple[torch.Tensor, torch.Tensor]]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(30, 40), nn.ReLU(), nn.Linear(40, 5)).eval()
    x = torch.randn(200, 30)
    y = model(x).argmax(1)
    y[:20] = (y[:20] + 1) % 5  # the float network is right on 90 %
    compiled = aimc.compile(model, "analog-fabric", (x[:1],), calibration=x.split(50))
    return compiled, list(zip(x.split(50), y.split(50), strict=True))


def test_mean_spread_and_a_star(task) -> None:  # type: ignore[no-untyped-def]
    compiled, data = task
    result = aimc.evaluate(compiled, data, times_s=(1.0, 3.15e7), n_chips=4)
    assert result.float_metric == pytest.approx(0.9)
    targets = torch.cat([y for _, y in data])
    assert result.chance == pytest.approx(float(targets.bincount().max()) / 200)
    assert [row.time_s for row in result.times] == [1.0, 3.15e7]
    for row in result.times:
        values = torch.tensor(row.values, dtype=torch.float64)
        assert len(values) == 4
        assert row.mean == pytest.approx(float(values.mean()))
        assert row.std == pytest.approx(float(values.std()))
        assert row.standard_error == pytest.approx(float(values.std()) / 2)
        assert row.a_star == pytest.approx(1 - (0.9 - row.mean) / (0.9 - result.chance))
    assert result.times[0].mean > result.times[1].mean > result.chance


def test_default_times_are_the_chips(task) -> None:  # type: ignore[no-untyped-def]
    compiled, data = task
    result = aimc.evaluate(compiled, data[:1], n_chips=1)
    assert [row.time_s for row in result.times] == [1.0, 3600.0, 86_400.0, 31_536_000.0]
    assert result.times[0].std is None


def test_a_chip_is_the_same_in_any_study(task) -> None:  # type: ignore[no-untyped-def]
    compiled, data = task
    both = aimc.evaluate(compiled, data, times_s=(1.0, 3600.0), n_chips=3, seed=7)
    few = aimc.evaluate(compiled, data, times_s=(3600.0,), n_chips=2, seed=7)
    assert both.times[1].values[:2] == few.times[0].values
    assert aimc.evaluate(compiled, data, times_s=(3600.0,), n_chips=2, seed=8).times[0].values != few.times[0].values


def test_a_metric_of_ones_own(task) -> None:  # type: ignore[no-untyped-def]
    compiled, data = task

    def minus_error(outputs: torch.Tensor, targets: torch.Tensor) -> float:
        return -float((outputs.argmax(1) != targets).float().mean())

    result = aimc.evaluate(compiled, data, metric=minus_error, times_s=(1.0,), n_chips=2)
    assert result.metric == "minus_error"
    assert result.chance is None
    assert result.times[0].a_star is None
    known = aimc.evaluate(compiled, data, metric=minus_error, chance=-0.8, times_s=(1.0,), n_chips=2)
    assert known.times[0].a_star == pytest.approx(1 - (-0.1 - known.times[0].mean) / (-0.1 + 0.8), abs=1e-6)


def test_normalised_accuracy() -> None:
    # ResNet-32 on CIFAR-10, hardware-aware, 1 year: error 8.36 % of 5.80 % in floating point is A* 97.0 % (Rasch 2023)
    assert normalised(1 - 0.0836, float_value=1 - 0.0580, chance=0.1) == pytest.approx(0.970, abs=5e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": []}, "evaluation data is empty"),
        ({"data": [torch.zeros(3, 30)]}, r"batch 0 .* no pair"),
        ({"times_s": (-1.0,)}, "seconds after programming"),
        ({"times_s": ()}, "seconds after programming"),
        ({"n_chips": 0}, "at least one chip"),
        ({"metric": "recall"}, "no metric is called 'recall'"),
        ({"times_s": 3600.0}, "a list of times in seconds"),
        ({"times_s": ["1 h"]}, "a list of times in seconds"),
        ({"data": [(torch.zeros(3, 30), torch.zeros(4))]}, r"accuracy needs outputs \(n, classes\)"),
        ({"data": [(torch.zeros(3, 30), None)]}, r"one tensor of outputs and one of targets, not Tensor and list"),
        ({"data": [(torch.zeros(3, 30), torch.tensor([0, 1, 5]))]}, r"1 of 3 targets .* 0 to 4: target 2 is 5"),
        ({"data": [(torch.zeros(3, 30), torch.tensor([0.0, 0.5, 5.0]))]}, r"2 of 3 targets .* target 1 is 0.5"),
        ({"data": [(torch.full((3, 30), torch.nan), torch.zeros(3))]}, r"outputs of 3 of 3 samples hold NaN"),
        (
            {"data": [(torch.zeros(3, 30).long(), torch.zeros(3))]},
            r"batch 0 .* is int64, but .* the shapes and types of the example",
        ),
        ({"metric": lambda outputs, targets: float("nan")}, r"metric '<lambda>' is nan for the float network"),
        ({"metric": lambda outputs, targets: None}, r"gives None for the float network: return one number"),
    ],
)
def test_bad_input(task, change: dict, message: str) -> None:  # type: ignore[no-untyped-def, type-arg]
    compiled, data = task
    arguments = {"data": data, "times_s": (1.0,), "n_chips": 1} | change
    with pytest.raises(DataError, match=message):
        aimc.evaluate(compiled, **arguments)


def test_targets_of_any_integer_kind_and_form(task) -> None:  # type: ignore[no-untyped-def]
    compiled, data = task
    once = aimc.evaluate(compiled, data, times_s=(1.0,), n_chips=1)
    forms = (
        lambda y: y.to(torch.uint8),
        lambda y: y.to(torch.uint16),
        lambda y: y.float(),
        lambda y: y.numpy(),
        lambda y: y.tolist(),
    )
    for form in forms:
        assert aimc.evaluate(compiled, [(x, form(y)) for x, y in data], times_s=(1.0,), n_chips=1) == once


def test_no_a_star_where_the_float_network_is_no_better_than_chance(task) -> None:  # type: ignore[no-untyped-def]
    compiled, data = task
    result = aimc.evaluate(compiled, data, chance=0.95, times_s=(1.0,), n_chips=1)
    assert result.float_metric < 0.95
    assert result.times[0].a_star is None


def test_outputs_are_joined_along_their_batch_dimension() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            y = self.linear(x)
            return y, y.sum(0)

    torch.manual_seed(0)
    model = Pair().eval()
    x = torch.randn(5, 7, 4)  # steps, samples, features
    seen: list[tuple[torch.Size, torch.Size]] = []

    def metric(outputs: tuple[torch.Tensor, torch.Tensor], targets: torch.Tensor) -> float:
        seen.append((outputs[0].shape, outputs[1].shape))
        return -float((outputs[0].transpose(0, 1) - targets).norm())

    compiled = aimc.compile(model, "ideal", (x[:, :1],), batch_dim=1)
    with torch.no_grad():
        y = model(x)[0].transpose(0, 1)
    data = [(x[:, :3], y[:3]), (x[:, 3:], y[3:])]
    assert aimc.evaluate(compiled, data, metric, times_s=(0.0,), n_chips=1).float_metric == pytest.approx(0, abs=1e-5)
    assert seen == [(torch.Size([5, 7, 3]), torch.Size([7, 3]))] * 2


def test_results_on_held_statistics_say_so() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(8, 6, generator=generator), torch.randint(0, 3, (8,), generator=generator)
    torch.manual_seed(0)
    network = torch.nn.Linear(6, 3).eval()
    found = {}
    for times in ((86_400.0,), (86_400.0, 864_000.0)):
        chip = load_chip("neurram", ["tile.device.extrapolate=hold"])
        compiled = aimc.compile(network, chip, (x[:1],), calibration=[x])
        result = aimc.evaluate(compiled, [(x, y)], n_chips=1, times_s=times)
        found[len(times)] = result
        console = Console(width=120, record=True, file=io.StringIO())
        console.print(evaluation_table(result))
        assert ("held on" in console.export_text()) == (len(times) == 2)
    assert evaluation_json(found[1])["held_after_s"] is None
    assert evaluation_json(found[2])["held_after_s"] == 172_800.0


def test_targets_that_are_words_are_joined_to_one_list() -> None:
    assert join_targets([["ab", "c"], ["d"]]) == ["ab", "c", "d"]
    # A list of tensors is a container, as a data loader gives it.
    first, second = join_targets([[torch.tensor([1]), torch.tensor([2])], [torch.tensor([3]), torch.tensor([4])]])
    assert (first.tolist(), second.tolist()) == ([1, 3], [2, 4])
