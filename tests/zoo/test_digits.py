"""The trained LSTM and the clips it comes with."""

import torch

import aimc_compiler as aimc
from aimc_compiler.zoo import DATASETS
from aimc_compiler.zoo.building import count_parameters
from aimc_compiler.zoo.digits import digit_clips, digit_features, digit_lstm


def test_the_excerpt_is_what_it_says() -> None:
    clips, digits = digit_clips("test")
    assert len(clips) == 60
    assert digits.tolist() == [digit for _ in range(6) for digit in range(10)]
    assert all(clip.dtype == torch.float32 and 0.01 < clip.abs().max() <= 1 for clip in clips)
    clips, digits = digit_clips("calibration")
    assert torch.bincount(digits).tolist() == [3] * 10
    assert len(clips) == 30


def test_the_network_hears_digits() -> None:
    model = digit_lstm()
    assert not model.training
    assert count_parameters(model) == 50_890
    features, digits = digit_features("test")
    with torch.no_grad():
        assert int((model(features).argmax(1) == digits).sum()) >= 58


def test_the_ideal_chip_equals_the_float_network() -> None:
    model, (features, _) = digit_lstm(), digit_features("test")
    compiled = aimc.compile(model, "ideal", (features[:1],))
    with torch.no_grad():
        torch.testing.assert_close(compiled.deploy()(features), model(features), rtol=1e-5, atol=1e-5)


def test_the_standard_chip_hears_digits_after_a_year() -> None:
    compiled = aimc.compile(
        digit_lstm(),
        "analog-fabric",
        (digit_features("test")[0][:1],),
        calibration=(x for x, _ in DATASETS["digits_calibration"]()),
    )
    result = aimc.evaluate(compiled, DATASETS["digits_test"](), times_s=(1.0, 31_536_000.0), n_chips=2)
    assert result.chance == 0.1
    assert all(row.mean >= 0.93 for row in result.times)
