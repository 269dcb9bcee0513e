"""IR drop: the wire of a column takes part of the voltage, more from rows far from the converter.

Rasch et al., Nat. Commun. 14, 5282 (2023), Methods, "IR-drop". With n rows in the block, row 0 nearest the converter,
and G the conductance of the wire between two cells over that of a full weight::

    A_i = sum_j |w_ij| |x_j|        q_i = (n / G) A_i        c(q) = 0.05 q^3 - 0.2 q^2 + 0.5 q
    B_i = sum_j w_ij x_j p_j        p_j = 1 - (1 - j / n)^2
    u_i <- u_i - ir_drop (c(q_i) B_i + (j0 / G) A_i u_i)

The last term is the wire between a block whose first row is the tile's row j0 and the converter.
"""

import torch
from torch import Tensor

from aimc_compiler.analog.settings import MvmSettings


def positions(rows: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(rows,): p_j, the weight of row j in the drop; 0 at the converter, almost 1 at the far end."""
    distance = torch.arange(rows, dtype=torch.float64, device=device) / rows
    return (1 - (1 - distance) ** 2).to(dtype)


def drop_share(load: Tensor, rows: int, settings: MvmSettings) -> Tensor:
    """c(q): the share of the position-weighted output that is lost. load: A, any shape."""
    q = load * (rows / settings.g_ratio)
    return q * (q * (q * 0.05 - 0.2) + 0.5)


def drop(
    u: Tensor, weighted: Tensor, load: Tensor, rows: int, settings: MvmSettings, first_row: Tensor | None = None
) -> Tensor:
    """Outputs after the drop. u, weighted (B), load (A): one shape; first_row: j0, in broadcasting shape; None: 0."""
    share = drop_share(load, rows, settings)
    dropped = torch.addcmul(u, share, weighted, value=-settings.ir_drop)
    if first_row is None:
        return dropped
    return torch.addcmul(dropped, load * (first_row / settings.g_ratio), u, value=-settings.ir_drop)
