"""Quantities with their units: "130 ns" to SI and back. Inside, every number is SI; here it is read and printed."""

import re
from decimal import Decimal, DecimalException

from aimc_compiler.errors import UnitError

_PREFIXES = {
    "a": -18,
    "f": -15,
    "p": -12,
    "n": -9,
    "u": -6,
    "µ": -6,
    "μ": -6,
    "m": -3,
    "": 0,
    "k": 3,
    "M": 6,
    "G": 9,
    "T": 12,
}
_MICRO = ("µ", "μ")
# People write 0.35 ohm and 0.0053 mm2, not 350 mohm and 5300 um2.
_NOT_PRINTED = {"ohm": tuple(prefix for prefix, exponent in _PREFIXES.items() if exponent < 0)}
_PRINTED_FROM = {"m2": Decimal("1e-4")}
_WORDS = {"min": ("s", 60), "h": ("s", 3600), "d": ("s", 86400), "day": ("s", 86400), "y": ("s", 31_536_000)}
_WORDS |= {"days": _WORDS["d"], "year": _WORDS["y"], "years": _WORDS["y"], "hour": _WORDS["h"], "hours": _WORDS["h"]}
_BYTES = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_QUANTITY = re.compile(r"^\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([^\d\s].*?)?\s*$")


def parse_quantity(text: object, unit: str) -> float:
    """The SI value of "130 ns", "0.35 ohm", "1.2 mm2", "16 KiB", "1 day".

    unit: the SI unit that is meant: s, J, S, ohm, V, A, W, m2, m, B. Raises UnitError for a number without its
    unit, an unknown prefix or a unit of another dimension.
    """
    match = _QUANTITY.match(str(text)) if isinstance(text, str | int | float) and not isinstance(text, bool) else None
    if match is None:
        raise UnitError(f"{text!r} is no quantity: write a number and its unit, as in '1.5 {_example(unit)}'")
    number, given = Decimal(match[1]), match[2] or ""
    if not given:
        raise UnitError(f"{text!r} has no unit: write '{match[1]} {_example(unit)}' or another multiple of {unit}")
    factor = _factor(given, unit)
    if factor is None:
        raise UnitError(f"{given!r} in {text!r} is no unit of {_DIMENSIONS.get(unit, unit)}: use {_choice(unit)}")
    try:
        return float(number * factor)
    except DecimalException as error:
        raise UnitError(f"{text!r} is beyond what a number can hold: write a sensible {_DIMENSIONS[unit]}") from error


def print_quantity(value: float, unit: str) -> str:
    """Text that ``parse_quantity`` reads back to exactly this float: "130 ns"."""
    if unit == "B":
        return _print_bytes(value)
    power = 2 if unit == "m2" else 1
    exact = Decimal(repr(float(value)))
    smallest = _PRINTED_FROM.get(unit, Decimal(1))
    for prefix, exponent in sorted(_PREFIXES.items(), key=lambda item: -item[1]):
        scaled = exact.scaleb(-exponent * power)
        if prefix not in _NOT_PRINTED.get(unit, _MICRO) and abs(scaled) >= smallest:
            return f"{_trim(scaled)} {prefix}{unit}"
    return f"{_trim(exact)} {unit}"


def print_human(value: float, unit: str, digits: int = 3) -> str:
    """Rounded for people: 1.5234e-6 s as "1.52 us"; 0 as "0 s"."""
    if value == 0:
        return f"0 {unit}"
    return print_quantity(float(f"{value:.{digits - 1}e}"), unit)


def parse_rate(text: object) -> float:
    """Elements a tick: "512/tick" is 512.0, "1/4/tick" is no rate. Raises UnitError."""
    match = re.match(r"^\s*([\d.eE+-]+)\s*/\s*tick\s*$", str(text))
    try:
        value = float(match[1]) if match else 0.0
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise UnitError(f"{text!r} is no rate: write a positive number of elements a tick, as in '64/tick'")
    return value


def print_rate(value: float) -> str:
    """Text that ``parse_rate`` reads back to exactly this float: "512/tick"."""
    return f"{_trim(Decimal(repr(value)))}/tick"


def parse_times(text: str) -> tuple[float, ...]:
    """Seconds of a comma-separated list: "1s,1h,1d,1y"."""
    return tuple(parse_quantity(part, "s") for part in text.split(","))


def print_time(seconds: float) -> str:
    """A time after programming as people say it: "1 h", "1 day", "1 year", else with an SI prefix."""
    return _words(seconds) or print_human(seconds, "s")


def print_time_exactly(seconds: float) -> str:
    """As ``print_time``, never rounded: ``parse_quantity`` reads back exactly this float."""
    return _words(seconds) or print_quantity(seconds, "s")


_DIMENSIONS = {"s": "time", "J": "energy", "S": "conductance", "ohm": "resistance", "m2": "area", "B": "memory"}


def _example(unit: str) -> str:
    return {"s": "ns", "J": "pJ", "S": "uS", "m2": "mm2", "B": "KiB"}.get(unit, unit)


def _choice(unit: str) -> str:
    return "ns, us, ms, s, min, h, day or year" if unit == "s" else f"{_example(unit)} or another multiple of {unit}"


def _factor(given: str, unit: str) -> Decimal | None:
    if unit == "s" and given in _WORDS:
        return Decimal(_WORDS[given][1])
    if unit == "B":
        return Decimal(_BYTES[given]) if given in _BYTES else None
    if not given.endswith(unit):
        return None
    exponent = _PREFIXES.get(given.removesuffix(unit))
    if exponent is None:
        return Decimal("1e-4") if given == "cm2" and unit == "m2" else None
    return Decimal(1).scaleb(exponent * (2 if unit == "m2" else 1))


def _words(seconds: float) -> str | None:
    for word, size in (("year", 31_536_000), ("day", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            count = int(seconds // size)
            return f"{count} {word}{'s' if count > 1 and word in ('year', 'day') else ''}"
    return None


def _print_bytes(value: float) -> str:
    for name, size in sorted(_BYTES.items(), key=lambda item: -item[1]):
        if value >= size and value % size == 0:
            return f"{int(value // size)} {name}"
    return f"{_trim(Decimal(repr(float(value))))} B"


def _trim(value: Decimal) -> str:
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
