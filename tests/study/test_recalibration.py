"""Recalibration policies, and what they are worth."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import aimc_compiler as aimc
from aimc_compiler.errors import DataError
from aimc_compiler.study import Recalibration


@pytest.mark.parametrize(
    ("text", "time_s", "last_s"),
    [
        ("always", 5000.0, None),
        ("never", 5000.0, 0.0),
        ("1h", 3599.9, 0.0),
        ("1h", 3600.0, 3600.0),
        ("1h", 31_536_000.0, 31_536_000.0),
        ("1h", 100_000.0, 97_200.0),
        ("100 ms", 0.3, 0.3),
        ("0s,1d", 3600.0, 0.0),
        ("0s,1d", 86_400.0, 86_400.0),
        ("1d,1h", 4000.0, 3600.0),
        ("1h,1d", 60.0, 0.0),
    ],
)
def test_last_reading(text: str, time_s: float, last_s: float | None) -> None:
    assert Recalibration.parse(text).last_s(time_s) == last_s


@settings(max_examples=100, deadline=None)
@given(time_s=st.floats(0, 1e9), period_s=st.floats(1e-3, 1e8))
def test_the_latest_multiple_not_after_the_time(time_s: float, period_s: float) -> None:
    last = Recalibration(kind="every", times_s=(period_s,)).last_s(time_s)
    assert last is not None
    assert 0 <= last <= time_s
    assert time_s - last < period_s * (1 + 1e-9)


def test_text_reads_back() -> None:
    for text in ("always", "never", "1 h", "1 h,1 day"):
        assert str(Recalibration.parse(text)) == text


@pytest.mark.parametrize("text", ["", "hourly", "1", "-1h", "0s", "0s,-1s", "1h;2h"])
def test_no_policy(text: str) -> None:
    with pytest.raises(DataError, match=r"recalibration"):
        Recalibration.parse(text)


def test_hourly_is_worth_more_than_never() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(30, 40), nn.ReLU(), nn.Linear(40, 1)).eval()
    x = torch.randn(100, 30)
    data = [(x, model(x).detach())]
    compiled = aimc.compile(model, "analog-fabric", (x[:1],), calibration=[x])

    def minus_error(outputs: torch.Tensor, targets: torch.Tensor) -> float:
        return -float((outputs - targets).norm() / targets.norm())

    found = {
        policy: aimc.evaluate(compiled, data, minus_error, times_s=(1e7,), n_chips=3, recalibration=policy)
        for policy in ("always", "1h", "never")
    }
    assert [result.recalibration for result in found.values()] == ["always", "1 h", "never"]
    assert -found["1h"].times[0].mean < 0.6 * -found["never"].times[0].mean
    assert found["1h"].times[0].mean == pytest.approx(found["always"].times[0].mean, rel=0.1)
    assert found["1h"].times[0].values != found["always"].times[0].values
