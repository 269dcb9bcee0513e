"""Whether this processor multiplies 8-bit integers fast and exactly."""

import platform
from functools import cache
from pathlib import Path

import torch

# x86: vector neural network instructions; Arm: int8 matrix multiplication.
_FLAGS = ("avx512_vnni", "avx_vnni", "avx512vnni", "i8mm")


@cache
def missing_units() -> str | None:
    """Why integer products would be slow or wrong here; None where they are neither.

    Processors without these units get products of pairs that saturate at 16 bits, so an exact product of the
    largest codes is asked for as well.
    """
    flags = _processor_flags()
    if flags is not None and not any(flag in flags for flag in _FLAGS):
        return f"this {platform.machine()} processor has no 8-bit integer units ({' or '.join(_FLAGS)})"
    if flags is None:
        return f"the units of the processor are not known on {platform.system()}"
    return _inexact_product()


def _processor_flags() -> frozenset[str] | None:
    """Features that Linux names for the first processor; None on other systems."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return None
    for line in path.read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return None


def _inexact_product() -> str | None:
    try:
        x = torch.tensor([[127, -127, -128, 1], [127, 127, -128, -128]], dtype=torch.int8).repeat(16, 128)
        w = torch.tensor([[127, -127, -128, 3], [-128, -128, 127, 127]], dtype=torch.int8).repeat(16, 128)
        found = torch._int_mm(x, w.t())
    except (AttributeError, RuntimeError) as fault:
        return (
            f"torch {torch.__version__} has no 8-bit integer product on this processor ({str(fault).splitlines()[0]})"
        )
    expected = x.to(torch.int64) @ w.to(torch.int64).t()
    if not torch.equal(found.to(torch.int64), expected):
        return f"the 8-bit integer product of torch {torch.__version__} is not exact on this processor"
    return None
