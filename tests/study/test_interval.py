"""Confidence intervals: Student's quantiles, how often they hold, and differences sample by sample."""

import math

import pytest
import torch
from torch import nn

import aimc_compiler as aimc
from aimc_compiler.errors import DataError
from aimc_compiler.report.evaluation import evaluation_json
from aimc_compiler.study.interval import ci95_of
from aimc_compiler.study.student import student_quantile


@pytest.mark.parametrize(
    ("freedom", "quantile"),
    [(1, 12.7062), (2, 4.30265), (3, 3.18245), (4, 2.77645), (9, 2.26216), (24, 2.06390), (100, 1.98397)],
)
def test_quantiles_are_those_of_the_tables(freedom: int, quantile: float) -> None:
    assert student_quantile(0.975, freedom) == pytest.approx(quantile, rel=1e-5)


def test_the_series_goes_on_where_the_sum_ends() -> None:
    assert student_quantile(0.975, 1001) == pytest.approx(student_quantile(0.975, 1000), rel=2e-6)
    assert student_quantile(0.975, 10**7) == pytest.approx(1.959964, rel=1e-6)


def test_an_interval_holds_as_often_as_it_says() -> None:
    drawn = torch.randn(4000, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 + 3
    found = [ci95_of(row) for row in drawn.tolist()]
    held = sum(each is not None and each[0] <= 3 <= each[1] for each in found) / 4000
    assert held == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 4000))
    assert ci95_of([0.5]) is None


def test_samples_are_paired_with_the_float_network() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(30, 40), nn.ReLU(), nn.Linear(40, 5)).eval()
    x = torch.randn(120, 30)
    y = model(x).argmax(1)
    y[:20] = (y[:20] + 1) % 5
    compiled = aimc.compile(model, "analog-fabric", (x[:1],), calibration=[x])
    times = (1.0, 3.15e7)
    result = aimc.evaluate(compiled, [(x, y)], times_s=times, n_chips=3)
    right = (model(x).argmax(1) == y).double()
    for row in result.times:
        each = []
        for k in range(3):
            chip = compiled.deploy(0, chip_index=k)
            chip.recalibrate(row.time_s)
            each.append((chip(x, time_s=row.time_s).argmax(1) == y).double() - right)
        apart = torch.stack(each).mean(0)
        assert row.paired is not None
        assert row.paired.mean == pytest.approx(row.mean - result.float_metric, abs=1e-12)
        assert row.paired.mean == pytest.approx(float(apart.mean()), abs=1e-12)
        half = row.paired.ci95[1] - row.paired.mean
        assert half == pytest.approx(1.98010 * float(apart.std()) / math.sqrt(120), rel=1e-4)
        assert row.ci95 == ci95_of(row.values)
    written = evaluation_json(result)["times"][0]
    assert written["ci95"] == list(result.times[0].ci95 or ())
    assert set(written["paired"]) == {"mean", "ci95"}
    own = aimc.evaluate(compiled, [(x, y)], lambda outputs, _: float(outputs.mean()), times_s=(1.0,), n_chips=2)
    assert own.times[0].paired is None
    assert "paired" not in evaluation_json(own)["times"][0]


def test_a_metric_of_scores_is_their_mean_and_paired() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 40), nn.ReLU(), nn.Linear(40, 6)).eval()
    x = torch.randn(50, 12)
    y = model(x) + 0.1 * torch.randn(50, 6)
    compiled = aimc.compile(model, "analog-fabric", (x[:1],), calibration=[x])
    data = list(zip(x.split(20), y.split(20), strict=True))

    def near(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (outputs - targets).abs() < 0.2

    def share(outputs: torch.Tensor, targets: torch.Tensor) -> float:
        return float(near(outputs, targets).double().mean())

    scored, plain = (
        aimc.evaluate(compiled, data, metric, 0.0, times_s=(1.0, 3600.0), n_chips=2) for metric in (near, share)
    )
    assert scored.float_metric == pytest.approx(plain.float_metric, abs=1e-12)
    for one, other in zip(scored.times, plain.times, strict=True):
        assert one.values == pytest.approx(other.values, abs=1e-12)
        assert other.paired is None
        assert one.paired is not None
        assert one.paired.mean == pytest.approx(one.mean - scored.float_metric, abs=1e-12)
        assert one.paired.ci95[0] < one.paired.mean < one.paired.ci95[1]


def test_scores_of_other_samples_are_refused() -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 4)
    compiled = aimc.compile(nn.Linear(4, 3).eval(), "analog-fabric", (x[:1],), calibration=[x])
    with pytest.raises(DataError, match="gives 24 scores for the 8 samples of the float network: return one number"):
        aimc.evaluate(compiled, [(x, x)], lambda outputs, targets: outputs.flatten(), 0.0, times_s=(1.0,), n_chips=1)
