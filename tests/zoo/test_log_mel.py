"""The front end of speech: what its bands are, what it is blind to, what it refuses."""

import math

import pytest
import torch
from torch import Tensor

from aimc_compiler.zoo.digits import digit_clips
from aimc_compiler.zoo.log_mel import LogMel

RATE_HZ = 8000


def tone(hertz: float, samples: int = 8000) -> Tensor:
    return 0.5 * torch.sin(2 * math.pi * hertz * torch.arange(samples) / RATE_HZ)


def chirp(start_hz: float, end_hz: float, samples: int = 6000) -> Tensor:
    steps = torch.linspace(start_hz, end_hz, samples) / RATE_HZ
    return 0.5 * torch.sin(2 * math.pi * steps.cumsum(0))


def band_of(hertz: float, front_end: LogMel) -> int:
    """The band whose peak is nearest, by the definition of the mel scale."""
    mel = [2595 * math.log10(1 + each / 700) for each in (hertz, front_end.low_hz, front_end.high_hz)]
    return round((mel[0] - mel[1]) / (mel[2] - mel[1]) * (front_end.bands + 1)) - 1


@pytest.mark.parametrize(("start_hz", "end_hz"), [(300.0, 3500.0), (3000.0, 500.0)])
def test_a_rising_tone_climbs_the_bands(start_hz: float, end_hz: float) -> None:
    front_end = LogMel()
    clip = chirp(start_hz, end_hz)
    # The mean of each band is taken away, so compare how much each frame stands out of its band.
    strongest = front_end(clip)[: (len(clip) - front_end.window) // front_end.hop + 1].argmax(1)
    for frame in range(5, 50, 5):
        middle = (frame * front_end.hop + front_end.window / 2) / len(clip)
        assert abs(int(strongest[frame]) - band_of(start_hz + middle * (end_hz - start_hz), front_end)) <= 1


def test_bands_cover_all_frequencies_between_their_ends_once() -> None:
    front_end = LogMel(window=4096)
    filters = front_end.filters()
    assert filters.shape == (2049, 32)
    assert filters.min() == 0
    assert 0.9 < filters.amax(0).min() <= filters.max() <= 1
    lines = torch.linspace(0, RATE_HZ / 2, 2049)
    assert not filters[lines < front_end.low_hz].any()
    # Triangles that overlap by half add up to 1 between the first peak and the last.
    first, last = int(filters[:, 0].argmax()), int(filters[:, -1].argmax())
    torch.testing.assert_close(filters[first + 1 : last].sum(1), torch.ones(last - first - 1), rtol=0, atol=1e-4)


def test_neither_loudness_nor_what_stands_behind_the_last_frame_matters() -> None:
    front_end = LogMel(floor=1e-14)
    clip = digit_clips("test")[0][0]
    torch.testing.assert_close(front_end(clip / 2), front_end(clip), rtol=0, atol=1e-3)
    long = torch.cat([chirp(300, 3000), tone(440)])
    torch.testing.assert_close(front_end(long[:6156]), front_end(long), rtol=0, atol=0)


def test_frames_have_mean_zero_and_deviation_one_and_zeros_behind_them() -> None:
    front_end = LogMel()
    clip = digit_clips("test")[0][3]
    frames = (len(clip) - front_end.window) // front_end.hop + 1
    features = front_end(clip)
    assert frames < 60
    assert not features[frames:].any()
    torch.testing.assert_close(features[:frames].mean(0), torch.zeros(32), rtol=0, atol=1e-5)
    assert float(features[:frames].square().mean()) == pytest.approx(1.0, abs=1e-4)


def test_silence_and_clips_shorter_than_a_window_are_finite() -> None:
    assert not LogMel()(torch.zeros(4000)).any()
    assert not LogMel()(torch.ones(1)).any()


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        (torch.zeros(2, 100), r"not \(2, 100\) of torch.float32: divide 16-bit integers by 32768"),
        (torch.zeros(100, dtype=torch.int16), r"not \(100,\) of torch.int16"),
        (torch.zeros(0), r"not \(0,\)"),
        (torch.tensor([0.0, math.nan]), "not finite"),
    ],
)
def test_what_is_no_clip_is_refused(clip: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LogMel()(clip)
