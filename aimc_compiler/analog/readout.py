"""What a crossbar reads for normalised inputs, by the way in which inputs drive its rows.

The nodal counterpart of ``traced_drop.py``, on any wires: each load is the network of ``crossbar.py`` solved as often
as it changes within one reading. Outputs are mean currents over the reading, in A for inputs of 1 at 1 V.
"""

from typing import Literal

import torch
from torch import Tensor

from aimc_compiler.analog.crossbar import Crossbar, Wires

Load = Literal["spread", "aligned", "grounded"]


def read_columns(conductance_s: Tensor, x: Tensor, wires: Wires, load: Load) -> Tensor:
    """(vectors, columns) mean column currents in A. conductance_s: (rows, columns) in S; x: (vectors, rows) in [-1, 1].

    load: "spread", every cell conducts at its mean over the reading, ``G |x|``, as where pulses stand anywhere;
    "aligned", pulses of width |x| begin together, and a selector disconnects the cells of rows that are off;
    "grounded", rows that are off stay connected at 0 V, which gives the same mean as amplitude inputs do. The first two
    are another network for each vector (and slice of time), the last is one for all.
    """
    g, x = conductance_s.to(torch.float64), x.to(torch.float64)
    if load == "grounded":
        return Crossbar(g, wires).solve(x).output_a
    read = _spread if load == "spread" else _aligned
    return torch.stack([read(g, vector, wires) for vector in x])


def _spread(g: Tensor, x: Tensor, wires: Wires) -> Tensor:
    return Crossbar(g * x.abs().unsqueeze(1), wires).solve(x.sign().unsqueeze(0)).output_a[0]


def _aligned(g: Tensor, x: Tensor, wires: Wires) -> Tensor:
    """Slices between the distinct pulse widths; in each the rows that are still on, the others disconnected."""
    total, before = g.new_zeros(g.shape[1]), 0.0
    for width in sorted({float(end) for end in x.abs() if end > 0}):
        on = (x.abs() >= width).to(g)
        total = total + (width - before) * _spread(g, x.sign() * on, wires)
        before = width
    return total
