"""The keyed generator: published vectors, independence of batching, statistics, tails."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aimc_compiler import rng

KEY = rng.stream_key(7, "test")


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_gives_the_published_words(counter: tuple[int, ...], key: tuple[int, ...], words: str) -> None:
    """Known-answer vectors of the Random123 distribution (Salmon et al., SC 2011), philox4x32 with 10 rounds."""
    assert [f"{word:08x}" for word in rng.philox_words(counter, key)[0]] == words.split()


def test_normals_are_the_box_muller_transform_of_the_words() -> None:
    """An oracle in float64, element by element, from the raw words of the counter (column // 4, call, sample)."""
    sample, calls, columns = 5 + 3 * 2**32, 4, 256
    got = rng.normals(KEY, 1, calls, columns, first_sample=sample, first_call=9)[0]
    for call in range(calls):
        words = rng.philox_words((0, 9 + call, 5, 3), (KEY & 0xFFFFFFFF, KEY >> 32), columns // 4).astype(np.float64)
        radius = np.sqrt(-2 * np.log((words[:, ::2] + 0.5) / 2**32))
        angle = 2 * np.pi * words[:, 1::2] / 2**32
        expected = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=2).reshape(-1)
        # A radius near 0 comes from a uniform near 1, which float32 holds to 2^-25: its error is absolute.
        np.testing.assert_allclose(got[call], expected, rtol=2e-6, atol=3e-6)


@settings(max_examples=60, deadline=None)
@given(
    first=st.tuples(st.integers(0, 2**63), st.integers(0, 2**31), st.integers(0, 1000)),
    inner=st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 11)),
    layout=st.sampled_from(["sample_call_column", "sample_column_call"]),
)
def test_a_value_depends_on_its_indices_alone(
    first: tuple[int, int, int], inner: tuple[int, int, int], layout: rng.Layout
) -> None:
    whole = rng.normals(KEY, 4, 5, 12, *first)
    part = rng.normals(
        KEY, 4 - inner[0], 5 - inner[1], 12 - inner[2], *map(sum, zip(first, inner, strict=True)), layout=layout
    )
    part = part if layout == "sample_call_column" else part.transpose(0, 2, 1)
    assert part.tobytes() == np.ascontiguousarray(whole[inner[0] :, inner[1] :, inner[2] :]).tobytes()


def test_streams_side_by_side_are_the_streams() -> None:
    keys = tuple(rng.stream_key(index) for index in range(3))
    for layout, axis in (("sample_call_column", 2), ("sample_column_call", 1)):
        together = rng.normals_side_by_side(keys, (5, 1, 7), 3, 4, 2, 1, layout=layout)  # type: ignore[arg-type]
        alone = [rng.normals(key, 3, 4, n, 2, 1, layout=layout) for key, n in zip(keys, (5, 1, 7), strict=True)]  # type: ignore[arg-type]
        assert np.array_equal(together, np.concatenate(alone, axis=axis))


def test_threads_do_not_change_a_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rng, "_THREAD_WORTH", 64)
    draws = []
    for count in (1, 2, 3):
        monkeypatch.setattr(rng, "_processors", lambda count=count: count)
        draws.append(
            [rng.normals(KEY, 7, 33, 19, layout=x).tobytes() for x in ("sample_call_column", "sample_column_call")]
        )
    assert draws[0] == draws[1] == draws[2]


def test_samples_beyond_32_bits_do_not_wrap() -> None:
    near, far = rng.normals(KEY, 1, 1, 64), rng.normals(KEY, 1, 1, 64, first_sample=2**32)
    assert not np.any(near == far)
    across = rng.normals(KEY, 2, 1, 64, first_sample=2**32 - 1)
    assert np.array_equal(across[1:], far)


def test_indices_out_of_reach_are_errors() -> None:
    with pytest.raises(ValueError, match="call 2\\^32"):
        rng.normals(KEY, 1, 2, 4, first_call=2**32 - 1)
    with pytest.raises(ValueError, match="must not be negative"):
        rng.normals(KEY, 1, 1, 4, first_sample=-1)


def test_moments_and_tails_are_those_of_a_normal() -> None:
    z = rng.normals(KEY, 40, 100, 1000).astype(np.float64).reshape(-1)
    n = z.size
    assert abs(z.mean()) < 5 / np.sqrt(n)
    assert abs(z.var() - 1) < 5 * np.sqrt(2 / n)
    assert abs((z**3).mean()) < 5 * np.sqrt(15 / n)
    assert abs((z**4).mean() - 3) < 5 * np.sqrt(96 / n)
    for bound, share in ((1, 0.317310508), (3, 2.699796e-3), (4, 6.334248e-5)):
        expected = share * n
        assert abs(np.count_nonzero(np.abs(z) > bound) - expected) < 5 * np.sqrt(expected)


def test_the_tail_reaches_beyond_six() -> None:
    """The smallest uniform is 2^-33: a radius of 6.76. Words are given, since it is met once in 2^32."""
    from aimc_compiler.rng import philox

    largest, none = philox.normal_pair(np.uint64(0), np.uint64(0))
    assert largest == pytest.approx(np.sqrt(2 * np.log(2.0**33)), rel=1e-6)
    assert none == 0


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_neighbours_are_uncorrelated(axis: int) -> None:
    z = np.moveaxis(rng.normals(KEY, 64, 64, 64).astype(np.float64), axis, 0)
    for step in (1, 2, 3, 4):
        product = (z[step:] * z[:-step]).ravel()
        assert abs(product.mean()) < 5 / np.sqrt(product.size)


def test_keys_know_where_a_name_ends_and_what_it_is() -> None:
    names = [(0,), ("0",), (0, 1), (1, 0), ("0", "1"), ("01",), ("0;s1:1",), (), ("",), (-1,), ("é",)]
    assert len({rng.stream_key(*name) for name in names}) == len(names)
    assert all(0 <= rng.stream_key(*name) < 2**64 for name in names)
    assert rng.stream_key(3, "head") == rng.stream_key(3, "head")


def test_integers_of_numpy_are_integers_and_other_numbers_no_names() -> None:
    assert rng.stream_key(np.int64(3), "head") == rng.stream_key(3, "head")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="integer"):
        rng.stream_key(3.0)  # type: ignore[arg-type]


def test_a_failure_in_a_thread_is_not_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """What that thread had to fill would otherwise be returned as it lay in memory."""

    def part(start: int, stop: int) -> None:
        if start:
            raise MemoryError("no room")

    monkeypatch.setattr(rng, "_processors", lambda: 3)
    with pytest.raises(MemoryError, match="no room"):
        rng._in_parts(part, 7, 3 * rng._THREAD_WORTH)


def test_uniforms_lie_strictly_between_their_ends() -> None:
    u = rng.uniforms(KEY, 200_003)
    assert u.shape == (200_003,)
    assert 0 < u.min() < u.max() < 1
    assert abs(u.mean() - 0.5) < 5 / np.sqrt(12 * u.size)
    assert abs(u.var() - 1 / 12) < 5 * np.sqrt(1 / 180 / u.size)
    assert np.array_equal(u[:10], rng.uniforms(KEY, 10))
    assert not rng.uniforms(KEY, 0).size


def test_cell_normals_are_a_prefix_of_longer_ones() -> None:
    assert np.array_equal(rng.cell_normals(KEY, 10), rng.cell_normals(KEY, 1000)[:10])
