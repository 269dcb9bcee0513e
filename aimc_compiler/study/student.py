"""Student's t distribution, for intervals of means of few values, from its exact finite sum.

Abramowitz and Stegun, *Handbook of Mathematical Functions* (1964), 26.7.3 and 26.7.4, for whole degrees of freedom.
"""

import math
import statistics
from functools import cache


@cache
def student_quantile(p: float, freedom: int) -> float:
    """The quantile p > 0.5 with this many degrees of freedom (1 or more).

    Beyond 1000, the first terms of its series about the normal's (ibid., 26.7.5).

    >>> round(student_quantile(0.975, 2), 3)
    4.303
    """
    normal = statistics.NormalDist().inv_cdf(p)
    if freedom > 1000:
        first = (normal**3 + normal) / 4
        second = (5 * normal**5 + 16 * normal**3 + 3 * normal) / 96
        return normal + first / freedom + second / freedom**2
    low, high = normal, math.tan(math.pi * (p - 0.5)) * (1 + 1e-9)  # that of one degree is the largest
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if _within(middle, freedom) < 2 * p - 1 else (low, middle)
    return high


def _within(t: float, freedom: int) -> float:
    """The probability of -t to t."""
    angle = math.atan2(t, math.sqrt(freedom))
    cosine = math.cos(angle)
    odd = freedom % 2
    term, total = (cosine if odd else 1.0), 0.0
    for k in range(1 + odd, freedom, 2):
        total += term
        term *= cosine**2 * k / (k + 1)
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
