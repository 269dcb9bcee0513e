"""The passes of bit-serial inputs: the planes that a number is cut into.

A bit-serial input is the whole number ``m = x (2^(b-1) - 1)`` of b bits, sent plane by plane::

    sign_magnitude     m = sum_p 2^p s_p,  s_p in {-1, 0, 1}                p = 0 .. b - 2
    twos_complement    m = -2^(b-1) s_(b-1) + sum_p 2^p s_p,  s_p in {0, 1} p = 0 .. b - 1

Each plane is a pass through the crossbar with noise of its own. With ``accumulate: digital`` (Shafiee et al., ISCA
2016) every plane of every slice is converted, then shifted and added; with ``analog`` (Wan et al., Nature 608, 504
(2022)) the planes add up as charge, weighed by their significance, and are converted once.

Gradients: the planes of 2^0 to 2^(b-2), whose weights sum to 1, each pass on that of the number; so what is linear in
the planes has the gradient of the number itself.
"""

import torch
from torch import Tensor

from aimc_compiler.analog.settings import MvmSettings
from aimc_compiler.analog.straight_through import straight_through

#: (weight, plane) of each pass.
Planes = list[tuple[float, Tensor]]


def bit_planes(codes: Tensor, settings: MvmSettings) -> Planes:
    """Plane entries are in {-1, 0, 1}; ``codes`` itself, with weight 1, where inputs are not bit-serial.

    codes: after the DAC, in [-1, 1], any shape. The weighed sum of the planes is ``codes``.
    """
    if not settings.input_planes:
        return [(1.0, codes)]
    bits = settings.input_planes
    if settings.input_code == "sign_magnitude":
        largest = 2**bits - 1
        whole = (codes * largest).round().to(torch.int64)
        rest, sign = whole.abs(), codes.sign()
    else:
        largest = 2 ** (bits - 1) - 1
        whole = (codes * largest).round().to(torch.int64)
        rest, sign = whole % 2**bits, torch.ones_like(codes)
    planes = [(2**p / largest, sign * ((rest >> p) & 1).to(codes)) for p in range(bits)]
    signed = planes.pop() if settings.input_code == "twos_complement" else None
    passing = [(weight, straight_through(plane, codes)) for weight, plane in planes]
    return passing if signed is None else [*passing, (-signed[0], signed[1].detach())]
