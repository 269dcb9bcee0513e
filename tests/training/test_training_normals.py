"""The normals of training: distribution to its tails, independence along every index, the words behind them; the
memory that passes share; and the threads they run on."""

import copy
import math
import pickle
import threading

import numpy as np
import numpy.typing as npt
import pytest
import torch

from aimc_compiler import rng
from aimc_compiler.training.normals import PART, normals
from aimc_compiler.training.scratch import Scratch

KEY = rng.stream_key(7, "training", "test")
Doubles = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def draw() -> Doubles:
    """Two million, (rows, columns)."""
    return normals(KEY, 1000, PART).astype(np.float64)


def test_moments_are_those_of_a_standard_normal(draw: Doubles) -> None:
    count = draw.size
    assert abs(draw.mean()) < 4 / math.sqrt(count)
    assert abs(draw.var() - 1) < 4 * math.sqrt(2 / count)
    assert abs((draw**3).mean()) < 4 * math.sqrt(15 / count)
    assert abs((draw**4).mean() - 3) < 4 * math.sqrt(96 / count)


@pytest.mark.parametrize("bound", [0.1, 0.5, 1.0, 2.0, 3.0, 3.5, 4.0])
@pytest.mark.parametrize("sign", [1, -1])
def test_tails_hold_as_many_as_they_should(draw: Doubles, bound: float, sign: int) -> None:
    expected = draw.size * 0.5 * math.erfc(bound / math.sqrt(2))
    assert abs(float((sign * draw > bound).sum()) - expected) < 4.5 * math.sqrt(expected)
    assert np.abs(draw).max() < 4.86


def test_there_is_no_correlation_along_columns_and_rows(draw: Doubles) -> None:
    flat, limit = draw.ravel(), 5 / math.sqrt(draw.size)
    for lag in (*range(1, 20), 64, PART // 8, PART // 2, PART // 2 + 1, PART, 2 * PART):
        assert abs(float((flat[lag:] * flat[:-lag]).mean())) < limit, lag
        assert abs(float(((flat[lag:] ** 2 - 1) * (flat[:-lag] ** 2 - 1)).mean())) < 2 * limit, lag


def test_there_is_no_correlation_between_steps() -> None:
    steps = [normals(rng.stream_key(seed, "training", "w"), 100, PART).ravel().astype(np.float64) for seed in range(8)]
    found = np.corrcoef(steps) - np.eye(len(steps))
    assert np.abs(found).max() < 5 / math.sqrt(steps[0].size)


def test_a_value_is_a_function_of_key_row_and_column() -> None:
    whole = normals(KEY, 5, PART + 100)
    assert np.array_equal(normals(KEY, 3, PART + 100), whole[:3])
    assert np.array_equal(normals(KEY, 5, PART), whole[:, :PART])
    assert not np.isin(normals(rng.stream_key(8), 5, 100), whole).mean() > 0.05


def test_values_are_the_box_muller_transform_of_half_words() -> None:
    blocks, found = 3, normals(KEY, 2, 24)[1].astype(np.float64)
    words = np.array([_seven_rounds((k, 0, 1, 0), KEY) for k in range(blocks)], np.uint64).T.ravel()
    radius = np.sqrt(-2 * np.log(((words >> np.uint64(16)).astype(float) + 0.5) / 2**16))
    angle = np.pi / 2 * ((words & np.uint64(0x3FFF)).astype(float) + 0.5) / 2**14
    signs = [1 - 2 * ((words >> np.uint64(bit)) & np.uint64(1)).astype(float) for bit in (15, 14)]
    expected = np.concatenate([signs[0] * radius * np.cos(angle), signs[1] * radius * np.sin(angle)])
    np.testing.assert_allclose(found, expected, atol=2e-5)


def _seven_rounds(words: tuple[int, ...], key: int) -> tuple[int, ...]:
    """Philox 4x32-7 in Python's integers."""
    k0, k1, (c0, c1, c2, c3) = key & 0xFFFFFFFF, key >> 32, words
    for _ in range(7):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & 0xFFFFFFFF, (p0 >> 32) ^ c3 ^ k1, p0 & 0xFFFFFFFF
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c0, c1, c2, c3


def test_scratch_is_kept_grows_and_is_each_threads_own() -> None:
    scratch, others = Scratch(), []
    first = scratch.floats("a", (3, 4))
    assert np.shares_memory(first, scratch.floats("a", (2, 5)))
    assert not np.shares_memory(first, scratch.floats("b", (3, 4)))
    assert scratch.floats("a", (5, 5)).shape == (5, 5)
    assert scratch.halves("a", (5, 5)).dtype == np.uint16
    thread = threading.Thread(target=lambda: others.append(scratch.halves("a", (5, 5))))
    thread.start()
    thread.join()
    assert not np.shares_memory(others[0], scratch.halves("a", (5, 5)))


def test_lent_memory_comes_back_when_the_last_view_is_gone() -> None:
    scratch = Scratch()
    first = scratch.lent((4, 5), torch.bfloat16)
    place, view = first.data_ptr(), first.view(-1)[3:]
    del first
    other = scratch.lent((4, 5), torch.bfloat16)
    assert other.data_ptr() != place
    view.fill_(2)
    del view
    assert scratch.lent((5, 4), torch.bfloat16).data_ptr() == place
    assert scratch.lent((5, 4), torch.float32).dtype == torch.float32


def test_a_copy_of_scratch_is_empty() -> None:
    scratch = Scratch()
    held = scratch.floats("a", (3,))
    for made in (copy.deepcopy(scratch), pickle.loads(pickle.dumps(scratch))):
        assert not np.shares_memory(held, made.floats("a", (3,)))


def test_every_row_is_done_once_on_any_number_of_threads() -> None:
    from aimc_compiler.analog.pool import gomp_parallel
    from aimc_compiler.training.kernels import finish_back_on

    gradient = torch.randn(1001, 7).numpy()
    kept, ranges = np.ones(gradient.shape, np.uint8), np.full(7, 3, np.float32)
    for entry, parts in ((gomp_parallel(), 4), (gomp_parallel(), 1), (0, 4)):
        out = np.full_like(gradient, np.nan)
        finish_back_on(entry, parts, out, gradient, kept, ranges, False)
        assert np.array_equal(out, 3 * gradient)
