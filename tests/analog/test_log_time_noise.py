"""Accumulated read noise as one process in ln T: variance at each time, correlation of two times, order of asking."""

import math

import pytest
import torch

from aimc_compiler.analog import PieceDevices, Streams
from aimc_compiler.analog.pcm import log_time_draw
from aimc_compiler.chip.devices import DEVICES
from aimc_compiler.chip.stored import DeviceNonidealities

SAMPLES = 200_000
TIMES_S = (0.0, 1.0, 3600.0, 86_400.0, 31_536_000.0)


def devices(process: str) -> PieceDevices:
    factors = {"programming_noise": 0, "drift": 0, "read_noise_process": process}
    return PieceDevices(
        target=torch.full((1, SAMPLES), 0.8, dtype=torch.float64),
        streams=Streams(seed=3, chip=0, piece="process"),
        effects=DeviceNonidealities.model_validate(factors),
        figures=DEVICES["pcm"].figures,
    )


def clock(time_s: float) -> float:
    return math.log((time_s + 20 + 250e-9) / 500e-9)


@pytest.mark.parametrize("process", ["independent", "log_time"])
def test_both_have_one_variance_at_each_time(process: str) -> None:
    q = 0.0088 / 0.8**0.65
    for time_s in TIMES_S:
        g = devices(process).conductances(time_s)[0]
        assert float(g.mean()) == pytest.approx(0.8, rel=1e-3)
        assert float(g.std()) == pytest.approx(0.8 * q * math.sqrt(clock(time_s)), rel=0.01)


def test_correlation_is_that_of_a_motion_in_log_time() -> None:
    """Of two times: sqrt(s1 / s2) with s = ln((T + t_read) / (2 t_read)); without the process none."""
    for process, factor in (("log_time", 1.0), ("independent", 0.0)):
        noises = torch.stack([devices(process).conductances(t)[0, 0] - 0.8 for t in TIMES_S])
        found = torch.corrcoef(noises)
        for i, first in enumerate(TIMES_S):
            for j in range(i + 1, len(TIMES_S)):
                expected = factor * math.sqrt(clock(first) / clock(TIMES_S[j]))
                assert float(found[i, j]) == pytest.approx(expected, abs=0.01)


def test_increments_do_not_depend_on_the_past() -> None:
    values = {t: devices("log_time").conductances(t)[0, 0] for t in (0.0, 3600.0, 86_400.0)}
    early, late = values[3600.0] - values[0.0], values[86_400.0] - values[3600.0]
    assert abs(float(torch.corrcoef(torch.stack([early, late]))[0, 1])) < 0.01


def test_the_state_does_not_depend_on_the_order_of_times() -> None:
    forward = [devices("log_time").conductances(t) for t in TIMES_S]
    backward = [devices("log_time").conductances(t) for t in reversed(TIMES_S)]
    assert all(torch.equal(a, b) for a, b in zip(forward, reversed(backward), strict=True))


def test_close_times_are_close() -> None:
    first, second = (devices("log_time").conductances(t)[0, 0] for t in (3600.0, 3601.0))
    assert 0 < float((first - second).std()) < 0.02 * float(first.std())


def test_the_clock_has_an_end() -> None:
    with pytest.raises(ValueError, match=r"a clock of 61\.0 lies outside 0 to 60"):
        log_time_draw(lambda *names: torch.zeros(1), "x", 61.0)
