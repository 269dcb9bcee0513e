"""Quantities: what people write, what is refused, and that printing reads back to the same float."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimc_compiler.errors import UnitError
from aimc_compiler.units import (
    parse_quantity,
    parse_rate,
    parse_times,
    print_human,
    print_quantity,
    print_rate,
    print_time,
    print_time_exactly,
)

UNITS = ("s", "J", "S", "ohm", "m2", "B")


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("130 ns", "s", 130e-9),
        ("130ns", "s", 130e-9),
        (" 1.5e3 us ", "s", 1.5e-3),
        ("1 h", "s", 3600.0),
        ("2 days", "s", 172_800.0),
        ("1 year", "s", 31_536_000.0),
        ("5.24 nJ", "J", 5.24e-9),
        ("25 uS", "S", 25e-6),
        ("25 µS", "S", 25e-6),  # micro sign
        ("25 μS", "S", 25e-6),  # Greek mu
        ("0.35 ohm", "ohm", 0.35),
        ("2 kohm", "ohm", 2000.0),
        ("1.20 mm2", "m2", 1.2e-6),
        ("1 cm2", "m2", 1e-4),
        ("16 KiB", "B", 16384.0),
        ("3 MiB", "B", 3145728.0),
        ("0 pJ", "J", 0.0),
    ],
)
def test_reads_what_people_write(text: str, unit: str, value: float) -> None:
    assert parse_quantity(text, unit) == value


@pytest.mark.parametrize(
    ("text", "unit", "message"),
    [
        (130, "s", "130 has no unit: write '130 ns'"),
        ("130", "s", "'130' has no unit"),
        ("25 us", "S", "'us' in '25 us' is no unit of conductance: use uS"),
        ("25 kb", "B", "is no unit of memory: use KiB"),
        ("1 KB", "B", "is no unit of memory"),
        ("5 Ns", "s", "is no unit of time"),
        ("fast", "s", "'fast' is no quantity: write a number and its unit"),
        (True, "s", "True is no quantity"),
        (None, "s", "None is no quantity"),
        ("1e999999999999999999 ns", "s", "beyond what a number can hold"),
    ],
)
def test_refuses_with_the_reason(text: object, unit: str, message: str) -> None:
    with pytest.raises(UnitError) as caught:
        parse_quantity(text, unit)
    assert message in str(caught.value)


@given(
    st.floats(min_value=0, max_value=1e15, allow_subnormal=False),
    st.sampled_from(UNITS),
)
def test_printed_quantities_read_back_exactly(value: float, unit: str) -> None:
    assert parse_quantity(print_quantity(value, unit), unit) == value


@given(st.floats(min_value=1e-6, max_value=1e12))
def test_printed_times_and_rates_read_back_exactly(value: float) -> None:
    assert parse_quantity(print_time_exactly(value), "s") == value
    assert parse_rate(print_rate(value)) == value


def test_prints_as_people_write() -> None:
    assert print_quantity(40e-9, "s") == "40 ns"
    assert print_quantity(0.35, "ohm") == "0.35 ohm"
    assert print_quantity(0.63e-6, "m2") == "0.63 mm2"
    assert print_quantity(5.3e-9, "m2") == "0.0053 mm2"
    assert print_quantity(1_234_567, "B") == "1234567 B"
    assert print_quantity(65536, "B") == "64 KiB"
    assert print_human(1.5234e-6, "s") == "1.52 us"
    assert print_human(0, "s") == "0 s"
    assert print_rate(512.0) == "512/tick"
    assert [print_time(value) for value in (1, 3600, 86400, 172800, 31_536_000)] == [
        "1 s",
        "1 h",
        "1 day",
        "2 days",
        "1 year",
    ]


@pytest.mark.parametrize("text", ["512", "0/tick", "-1/tick", "1/4/tick", "1e999/tick", "fast/tick", "64 per tick"])
def test_refuses_rates(text: str) -> None:
    with pytest.raises(UnitError, match="is no rate: write a positive number of elements a tick, as in '64/tick'"):
        parse_rate(text)


def test_reads_lists_of_times() -> None:
    assert parse_times("1s,1h, 1d,1y") == (1.0, 3600.0, 86400.0, 31_536_000.0)
    with pytest.raises(UnitError, match="has no unit"):
        parse_times("1s,60")
