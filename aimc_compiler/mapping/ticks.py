"""Times of the spec as exact numbers of ticks.

133 ns over 1 ns is 133.00000000000003 in floating point: a ceiling of that would invent a tick. The decimal figures of
the spec are therefore divided as fractions.
"""

from fractions import Fraction
from functools import lru_cache
from math import ceil

from aimc_compiler.chip.costs import CostClass
from aimc_compiler.chip.spec import ChipSpec, CostClassSpec
from aimc_compiler.errors import SpecError


@lru_cache(maxsize=1024)
def exact(value: float) -> Fraction:
    """The shortest decimal that reads back as ``value``, as a fraction: what was written in the spec."""
    return Fraction(repr(float(value)))


def in_ticks(time_s: float, chip: ChipSpec) -> Fraction:
    """A time of the spec in ticks, not rounded."""
    return exact(time_s) / exact(chip.clock.tick_s)


def round_up(ticks: Fraction) -> int:
    """Whole ticks: times that are no multiple of the tick take the next one."""
    return ceil(ticks)


def class_price(chip: ChipSpec, cost_class: str, op: str, source: str = "") -> CostClassSpec:
    """What the chip's digital units ask for an operation of this class.

    Raises SpecError naming the operation, the class and the key to add where the spec has no price.
    """
    prices: dict[CostClass, CostClassSpec] = chip.digital_units.cost_classes
    for name, price in prices.items():
        if name == cost_class:
            return price
    where = f" ({source})" if source else ""
    raise SpecError(
        f"chip {chip.name!r} has no price for {op!r}{where}, whose cost class is {cost_class!r}: "
        f"add digital_units.cost_classes.{cost_class} (startup, rate, energy) to the spec; "
        f"it prices {', '.join(sorted(prices)) or 'no class'}"
    )


def unit_ticks(price: CostClassSpec, elements: Fraction, chip: ChipSpec) -> Fraction:
    """Ticks of one window of ``elements`` on a global digital unit, not rounded."""
    return in_ticks(price.startup_s, chip) + elements / exact(price.rate)
