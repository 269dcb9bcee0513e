"""Output bounds: one for each slice of a piece, from what its converters would see of the calibration data.

A converter's step is its bound over a number of levels, so a bound that is too large wastes codes and one that is too
small clips. Outputs are those of ideal cells with the inputs that the chip would send (``analog/observed.py``). Planes
of bit-serial inputs, and passes of one sign, are observed apart: a high plane has few ones and would hide what a low
one needs. The bound is the largest that any of them asks for, since one converter takes them all.
"""

import torch
from torch import Tensor, nn

from aimc_compiler.analog import MatrixOnTiles, RangeObserver
from aimc_compiler.analog.observed import IdealColumns
from aimc_compiler.analog.piece_bounds import Place, place_of
from aimc_compiler.analog.settings import adc_levels
from aimc_compiler.calibration.method import RangeMethod
from aimc_compiler.chip.spec import Adc
from aimc_compiler.executor import BoundRow
from aimc_compiler.graph import MatrixModule

#: The one that goes by the bits of the converter: of the ways measured in docs/calibration.md it lost least, or within
#: 2 % of the least, from 4 to 10 bits.
OUTPUT_METHOD = "mse"


class OutputObserver:
    """What the output converters of one matrix have seen. adc: of its tiles; joined: an observer of the same operation
    in another entry, which from now on sees what this one sees, and this one what that one saw."""

    def __init__(self, matrix: MatrixOnTiles, adc: Adc, joined: "OutputObserver | None" = None) -> None:
        self._ideal = IdealColumns(matrix)
        self._signed = adc.signed
        self._levels = None if adc.bits == "off" else adc_levels(adc.bits, signed=adc.signed)
        self._seen: dict[Place, dict[int, _Outputs]] = {} if joined is None else joined._seen

    def update(self, x: Tensor, ranges: Tensor) -> None:
        """Observe one batch. x: inputs of the operation, finite; ranges: (groups, row blocks), of its inputs."""
        for seen in self._ideal.outputs(x, ranges):
            observers = self._seen.setdefault(place_of(seen.piece, seen.index), {})
            observers.setdefault(seen.conversion, _Outputs(self._signed, self._levels)).update(seen.outputs)

    def bound_rows(self, op: str, method: RangeMethod) -> list[BoundRow]:
        """The chosen bounds; a slice that gave only zeros gets bound 1 and says so."""
        rows = []
        for (group, row_block, column_block, index), conversions in sorted(self._seen.items()):
            observers = conversions.values()
            chosen = max(method.choose(each.convertible, self._levels) for each in observers)
            largest = max(each.convertible.maximum() for each in observers)
            note = "" if chosen > 0 else f"{method} gave 0; the largest output is used, or 1 where every output was 0"
            bound = chosen or largest or 1.0
            rows.append(
                BoundRow(
                    op=op,
                    group=group,
                    row_block=row_block,
                    column_block=column_block,
                    slice=index,
                    bound=bound,
                    largest=largest,
                    clipped=max(each.clipped(bound) for each in observers),
                    note=note,
                )
            )
        return rows


class _Outputs:
    """Those of one conversion. convertible: what a bound is chosen by: of a converter without sign, not what is
    negative, which it gives as 0 at any bound. levels: steps over twice the bound, None without steps."""

    def __init__(self, signed: bool, levels: int | None) -> None:
        self.convertible = RangeObserver()
        self._below = None if signed else RangeObserver()
        self._levels = levels

    def update(self, outputs: Tensor) -> None:
        """Observe outputs of any shape."""
        self.convertible.update(outputs if self._below is None else outputs.clamp(min=0))
        if self._below is not None:
            self._below.update(outputs.clamp(max=0))

    def clipped(self, bound: float) -> float:
        """The share beyond the bound, or below 0 by more than rounding takes off anyway."""
        share = self.convertible.share_beyond(bound)
        if self._below is None:
            return share
        return share + self._below.share_beyond(bound / self._levels if self._levels else 0.0)


class ObservedOutputs(nn.Module):
    """A matrix operation in floating point whose inputs go to the converters of its tiles as well."""

    def __init__(self, module: MatrixModule, observer: OutputObserver, ranges: Tensor) -> None:
        super().__init__()
        self.module, self.observer, self.ranges = module, observer, ranges

    def forward(self, x: Tensor) -> Tensor:
        """x: the operation's input; returns its output."""
        with torch.no_grad():
            self.observer.update(x, self.ranges)
        y: Tensor = self.module(x)
        return y
