"""How a range is chosen from what was observed: the same ways for inputs and for outputs."""

from typing import Literal

from aimc_compiler.analog import RangeObserver
from aimc_compiler.errors import CalibrationError
from aimc_compiler.records import record


@record
class RangeMethod:
    """How a range is chosen: a percentile of |x|, k standard deviations of x about zero, the least mean square of what
    rounding and clipping at the converter lose, or the largest |x|. x: inputs, or outputs before their converter."""

    kind: Literal["percentile", "k-sigma", "mse", "max"]
    value: float = 0.0

    def __str__(self) -> str:
        # All digits: percentile:99.99999 is not percentile:100.
        return self.kind if self.kind in ("mse", "max") else f"{self.kind}:{repr(self.value).removesuffix('.0')}"

    @classmethod
    def parse(cls, text: str) -> "RangeMethod":
        """From "percentile:99.9", "k-sigma:4", "mse" or "max". Raises CalibrationError."""
        kind, _, number = text.partition(":")
        if kind == "max" and not number:
            return cls(kind="max")
        if kind == "mse" and not number:
            return cls(kind="mse")
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if kind == "percentile" and 0 < value <= 100:
            return cls(kind="percentile", value=value)
        if kind == "k-sigma" and 0 < value < float("inf"):
            return cls(kind="k-sigma", value=value)
        raise CalibrationError(
            f"{text!r} is no way to set ranges: write percentile:P (0 < P <= 100), k-sigma:K (K > 0), mse or max"
        )

    def choose(self, observer: RangeObserver, levels: int | None) -> float:
        """The range from what was observed. levels: steps of the converter over twice the range; None without one."""
        if self.kind == "mse":
            return observer.least_squares(levels)
        if self.kind == "percentile":
            return observer.percentile(self.value)
        return observer.k_sigma(self.value) if self.kind == "k-sigma" else observer.maximum()
