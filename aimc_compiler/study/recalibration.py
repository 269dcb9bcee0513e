"""When a chip is read again for drift compensation: at every time asked for, never, every hour, at chosen times."""

import math
from decimal import Decimal
from typing import Literal

from aimc_compiler.errors import AimcError, DataError
from aimc_compiler.records import record
from aimc_compiler.units import parse_times, print_time_exactly


@record
class Recalibration:
    """A policy. times_s: of "every" the one period, of "at" the times after programming; empty otherwise.

    A chip is always read right after programming (t = 0), so that "never" means at t = 0 and not again.

    >>> Recalibration.parse("1h").last_s(5000.0)
    3600.0
    """

    kind: Literal["always", "never", "every", "at"]
    times_s: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        wrong = [time for time in self.times_s if not (math.isfinite(time) and time >= 0)]
        if wrong or (self.kind == "every" and (len(self.times_s) != 1 or self.times_s[0] == 0)):
            raise DataError(
                f"recalibration {self.kind!r} at {list(self.times_s)} s: a period is one time above 0; times are in "
                "seconds after programming, finite and not negative"
            )

    def __str__(self) -> str:
        return ",".join(print_time_exactly(time) for time in self.times_s) or self.kind

    @classmethod
    def of(cls, policy: "str | Recalibration") -> "Recalibration":
        """A policy as it is, or from text as ``parse`` reads it."""
        return cls.parse(policy) if isinstance(policy, str) else policy

    @classmethod
    def parse(cls, text: str) -> "Recalibration":
        """From "always", "never", a period ("1h": at its multiples), or several times ("0s,1d"). Raises DataError."""
        if text in ("always", "never"):
            return cls(kind="always" if text == "always" else "never")
        try:
            times = parse_times(text)
        except AimcError as error:
            raise DataError(
                f"{text!r} is no recalibration policy: write always, never, a period as in 1h, or two or more times "
                f"after programming as in 0s,1d ({error})"
            ) from error
        return cls(kind="every" if len(times) == 1 else "at", times_s=times)

    def last_s(self, time_s: float) -> float | None:
        """When the chip that is asked at ``time_s`` was last read, in seconds; None: at ``time_s`` itself."""
        if self.kind == "always":
            return None
        if self.kind == "never":
            return 0.0
        if self.kind == "at":
            return max((time for time in self.times_s if time <= time_s), default=0.0)
        # In decimals, as the times were written: 0.3 s is the third multiple of 0.1 s, which floats miss.
        period = Decimal(repr(self.times_s[0]))
        return min(float(Decimal(repr(float(time_s))) // period * period), time_s)
