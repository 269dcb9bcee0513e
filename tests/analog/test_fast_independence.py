"""``fast`` gives the same bytes whatever the batches, chunks and threads are."""

import gc
import weakref
from collections.abc import Callable, Iterator

import pytest
import torch
from analog_chips import STANDARD_EFFECTS, pieces, standard_tile
from fast_cases import UNITS

from aimc_compiler.analog import Contraction, MatrixOnTiles, pool
from aimc_compiler.analog.fast import product, shape, space

pytestmark = pytest.mark.skipif(UNITS is not None, reason=str(UNITS))

CONV = Contraction(kind="conv2d", kernel=(3, 3), stride=(1, 2), padding=(1, 1), dilation=(1, 1))
HOUR = 3600.0


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def linear() -> tuple[MatrixOnTiles, torch.Tensor]:
    weight, x = torch.randn(1, 70, 90, generator=torch.Generator().manual_seed(1)), torch.randn(37, 5, 90)
    held = pieces(1, (50, 40), (33, 37))
    on_tiles = MatrixOnTiles(
        weight, Contraction(kind="linear"), held, standard_tile(), STANDARD_EFFECTS, precision="fast"
    )
    return on_tiles, x


def convolution() -> tuple[MatrixOnTiles, torch.Tensor]:
    weight, x = torch.randn(2, 9, 90, generator=torch.Generator().manual_seed(1)), torch.randn(7, 20, 31, 18).abs()
    held = pieces(2, (50, 40), (4, 5))
    return MatrixOnTiles(weight, CONV, held, standard_tile(), STANDARD_EFFECTS, precision="fast"), x


def padded() -> tuple[MatrixOnTiles, torch.Tensor]:
    """Outputs that see padding alone, and a kernel of one place with a stride."""
    weight = torch.randn(1, 9, 30, generator=torch.Generator().manual_seed(1))
    contraction = Contraction(kind="conv2d", kernel=(1, 1), stride=(2, 2), padding=(3, 3), dilation=(1, 1))
    held = pieces(1, (17, 13), (4, 5))
    on_tiles = MatrixOnTiles(weight, contraction, held, standard_tile(), STANDARD_EFFECTS, precision="fast")
    return on_tiles, torch.randn(3, 30, 11, 12)


@pytest.mark.parametrize("make", [linear, convolution, padded])
def test_bytes_do_not_depend_on_batches_chunks_and_threads(
    make: Callable[[], tuple[MatrixOnTiles, torch.Tensor]], threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_tiles, x = make()
    ranges = torch.full((on_tiles.target.shape[0], 2), 2.0)
    torch.set_num_threads(1)
    whole = on_tiles.forward(x, ranges, HOUR, first_sample=4)
    assert on_tiles.choice.precision == "fast"
    one_by_one = [on_tiles.forward(x[k : k + 1], ranges, HOUR, first_sample=4 + k) for k in range(x.shape[0])]
    assert torch.equal(whole, torch.cat(one_by_one))
    if make is not linear:
        assert torch.equal(whole[2], on_tiles.forward(x[2], ranges, HOUR, first_sample=6))
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        for size in (1, 17, 400):
            monkeypatch.setattr(product, "_ROWS_A_CHUNK", size)
            monkeypatch.setattr(shape, "_STRIP_BYTES", 4000 * size)
            monkeypatch.setattr(shape, "_LEAST_POSITIONS", size)
            shape.strips.cache_clear()
            assert torch.equal(whole, on_tiles.forward(x, ranges, HOUR, first_sample=4))
        shape.strips.cache_clear()
        again, _ = make()
        assert torch.equal(whole, again.forward(x, ranges, HOUR, first_sample=4))


@pytest.mark.parametrize("make", [linear, convolution])
def test_inference_mode_changes_nothing(
    make: Callable[[], tuple[MatrixOnTiles, torch.Tensor]], threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads do not inherit it, and what one of them has made is written by another afterwards."""
    on_tiles, x = make()
    ranges = torch.full((on_tiles.target.shape[0], 2), 2.0)
    torch.set_num_threads(2)
    monkeypatch.setattr(product, "_ROWS_A_CHUNK", 16)
    monkeypatch.setattr(space, "_SPARE", [])
    with torch.inference_mode():
        inside = [on_tiles.forward(x, ranges, HOUR) for _ in range(20)]
    outside = on_tiles.forward(x, ranges, HOUR)
    assert all(torch.equal(outside, y) for y in inside)


def test_states_of_different_times_do_not_mix() -> None:
    on_tiles, x = linear()
    ranges = torch.full((1, 2), 2.0)
    hour, day = on_tiles.forward(x, ranges, HOUR), on_tiles.forward(x, ranges, 24 * HOUR)
    assert not torch.equal(hour, day)
    assert torch.equal(hour, on_tiles.forward(x, ranges, HOUR))
    wide = on_tiles.forward(x, 2 * ranges, HOUR)
    assert not torch.equal(hour, wide)
    assert torch.equal(hour, on_tiles.forward(x, ranges, HOUR))


def test_old_states_are_let_go() -> None:
    """What is kept for a state's digits does not keep them."""
    on_tiles, x = linear()
    ranges = torch.full((1, 2), 2.0)
    on_tiles.forward(x, ranges, HOUR)
    old = [weakref.ref(part.block) for part in on_tiles._fast._parts]
    on_tiles.forward(x, ranges, 24 * HOUR)
    gc.collect()
    assert [block() for block in old] == [None, None]


def test_changed_ranges_are_noticed() -> None:
    """Also where the same tensor is changed in place."""
    on_tiles, x = linear()
    ranges = torch.full((1, 2), 2.0)
    first = on_tiles.forward(x, ranges, HOUR)
    ranges.mul_(2)
    assert not torch.equal(first, on_tiles.forward(x, ranges, HOUR))
    ranges.mul_(0.5)
    assert torch.equal(first, on_tiles.forward(x, ranges, HOUR))
    bias = torch.ones(70)
    on_tiles.rescale_outputs(None, bias)
    torch.testing.assert_close(on_tiles.forward(x, ranges, HOUR), first + 1)


def test_every_item_is_taken_once(threads: None) -> None:
    for count in (1, 2, 4):
        torch.set_num_threads(count)
        taken: list[int] = []
        pool.spread(taken.extend, range(1000))
        assert sorted(taken) == list(range(1000))


def test_an_exception_of_a_thread_is_raised(threads: None) -> None:
    torch.set_num_threads(2)

    def work(items: Iterator[int]) -> None:
        for item in items:
            if item == 7:
                raise KeyError("seven")

    with pytest.raises(KeyError, match="seven"):
        pool.spread(work, range(100))


def test_threads_are_those_of_torch(threads: None) -> None:
    """On Linux the work enters torch's own pool: operations of torch inside run on one thread each."""
    torch.set_num_threads(2)
    if pool._gomp_parallel() is None:
        pytest.skip("torch has no libgomp here")
    seen: list[bool] = []
    pool.spread(lambda items: seen.extend("OpenMP" in torch.__config__.parallel_info() for _ in items), range(4))
    assert len(seen) == 4
