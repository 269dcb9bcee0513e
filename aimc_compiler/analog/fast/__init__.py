"""``fast`` precision: the standard model at nearly the speed of plain torch, on processors with 8-bit integer units.

After the input converter inputs are 8-bit integers. With weights as 8-bit digits, products are exact integers; one pass
over the outputs does the rest. ``docs/performance.md`` has what it costs and how far it is from ``exact``.
"""

from aimc_compiler.analog.fast.choice import PRECISIONS, Choice, Precision, choose, parse_precision
from aimc_compiler.analog.fast.matrix import FastMatrix
from aimc_compiler.analog.fast.product import FastPart, Numbering
from aimc_compiler.analog.fast.space import NotFiniteError
from aimc_compiler.analog.fast.state import Ageing, age_pieces, ages_fast
from aimc_compiler.analog.fast.units import missing_units

__all__ = [
    "PRECISIONS",
    "Ageing",
    "Choice",
    "FastMatrix",
    "FastPart",
    "NotFiniteError",
    "Numbering",
    "Precision",
    "age_pieces",
    "ages_fast",
    "choose",
    "missing_units",
    "parse_precision",
]
