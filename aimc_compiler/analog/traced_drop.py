"""IR drop traced along the wire, cell by cell: what the closed form of ``ir_drop.py`` approximates.

A column is a chain of segments from the converter to its last row, the resistance of one being ``r = 1 / G`` in units
of a full weight's. Every cell that loads the wire with conductance ``y_j`` is driven with one unit of voltage, and
loses the share of it that its place of the wire has gained. Behind row j the chain is an admittance, so one pass from
the far end to the converter gives the lost part of an output whose cells contribute ``z_j`` each::

    share = r Y / (1 + r Y)     L <- L + N share     N <- N - N share + z_j     Y <- Y - Y share + y_j

and at last the wire from the block's first row j0 to the converter, with ``r j0`` in place of r. L is the loss, of
which ``ir_drop`` says how much counts. As in the closed form both devices of a pair load one wire: ``y_j = |z_j|``.
(A wire a polarity loses the same to first order, since ``A+^2 - A-^2 = (A+ + A-)(A+ - A-)``.)

Which conductance loads the wire is the key ``ir_drop_load`` (``y_j`` as a mean over the time of one reading):

- ``spread``: ``z_j = w_ij x_j``. Pulses stand anywhere in the reading: a cell loads the wire for as long as its row is
  on, and meets the others as if they were on evenly. This is what the closed form stands for.
- ``aligned``: pulses begin together. The reading falls into slices between the distinct |x|, in each of which the rows
  that are still on load the wire fully: one pass a slice.
- ``grounded``: rows that are off stay connected at 0 V, or inputs are amplitudes: all cells always load the wire, the
  network is linear in its inputs, and by reciprocity it is a matrix of weights ``w_ij (1 - V_ij)``, V the share that
  the wire has gained under ``y_j = |w_ij|``.
"""

from math import inf

import torch
from torch import Tensor

from aimc_compiler.analog.settings import MvmSettings
from aimc_compiler.errors import AimcError

#: Cells times slices that one call may trace: some minutes on one core.
LIMIT_CELLS = 2e10


def traced_loss(x: Tensor, w: Tensor, tile_row: Tensor | None, settings: MvmSettings) -> Tensor:
    """What the wire takes from each output at ``ir_drop`` 1: (batch, groups, columns, windows).

    x: (batch, groups, windows, rows) unfolded inputs; w: (groups, columns, rows); tile_row: j0, (groups, columns, 1),
    or None where all are 0. Differentiable in w; in x where ``ir_drop_load`` is spread.
    """
    if settings.ir_drop_load == "spread":
        return _chain_loss(x, w, tile_row, settings)
    magnitude, sign = x.abs(), x.sign()
    loss, before = x.new_zeros(()), x.new_zeros(())
    for level in slice_levels(x):
        on = sign * (magnitude >= level)
        loss = loss + (level - before) * _chain_loss(on, w, tile_row, settings)
        before = level
    return loss.expand(x.shape[0], x.shape[1], w.shape[1], x.shape[2])


def slice_levels(x: Tensor) -> Tensor:
    """The distinct magnitudes of inputs above 0, rising: where a slice of the reading ends."""
    levels = torch.unique(x.detach().abs())
    positive: Tensor = levels[levels > 0]
    return positive


def _chain_loss(x: Tensor, w: Tensor, tile_row: Tensor | None, settings: MvmSettings) -> Tensor:
    """One pass along the wire, all windows and columns at once."""
    segment = 1 / settings.g_ratio
    loss, behind, output = _zeros(x, w), _zeros(x, w), _zeros(x, w)
    for row in range(w.shape[2] - 1, -1, -1):
        share = _share(behind * segment)
        taken = output * share
        cell = w[:, :, row].unsqueeze(-1) * x[..., row].unsqueeze(2)
        loss = loss + taken
        output = output - taken + cell
        behind = behind - behind * share + cell.abs()
    return loss if tile_row is None else loss + output * _share(behind * (segment * tile_row))


def _share(drop: Tensor) -> Tensor:
    """Share of the voltage that a piece of wire takes; drop: its resistance times the admittance behind it."""
    return drop / (1 + drop)


def _zeros(x: Tensor, w: Tensor) -> Tensor:
    return x.new_zeros(x.shape[0], x.shape[1], w.shape[1], x.shape[2])


def attenuated(w: Tensor, tile_row: Tensor, settings: MvmSettings) -> Tensor:
    """(groups, columns, rows): the weights that ``grounded`` columns show; tile_row: j0, (groups, columns)."""
    segment = 1 / settings.g_ratio
    load = w.abs()
    admittances = [load[..., -1]]
    for row in range(w.shape[2] - 2, -1, -1):
        behind = admittances[-1]
        admittances.append(load[..., row] + behind - behind * _share(behind * segment))
    admittances.reverse()
    gained = _share(admittances[0] * (segment * tile_row.to(w)))
    wire = [gained]
    for admittance in admittances[1:]:
        gained = gained + (1 - gained) * _share(admittance * segment)
        wire.append(gained)
    return w - settings.ir_drop * w * torch.stack(wire, dim=-1)


def one_hot_loss(w: Tensor, code: Tensor, tile_row: int, settings: MvmSettings) -> Tensor:
    """(columns, rows): the loss with one input on at a time. w: (columns, rows); code: what its row receives, > 0."""
    on = code if settings.ir_drop_load == "spread" else torch.ones_like(code)
    distance = torch.arange(tile_row, tile_row + w.shape[1], dtype=w.dtype, device=w.device)
    return w * code * _share(w.abs() * on * distance / settings.g_ratio)


def require_traceable(windows: float, weights: int, inputs: int, settings: MvmSettings, name: str) -> None:
    """Raise AimcError where one call would take very long.

    windows: of the call; weights: of the matrix; inputs: elements of the call's input, which bound the distinct ones.
    """
    coded = settings.dac_step > 0 and settings.in_bound < inf and not settings.sigma_in
    distinct = min(inputs, round(settings.in_bound / settings.dac_step)) if coded else inputs
    slices = distinct if settings.ir_drop_load == "aligned" and not settings.input_planes else 1
    cells = windows * weights * max(1, settings.input_planes)
    if cells * slices <= LIMIT_CELLS:
        return
    raise AimcError(
        f"{name!r}: ir_drop_model exact would trace {cells * slices:.2g} cells along their wires in this call "
        f"({cells:.2g} weights times multiplications, {slices} slices), more than {LIMIT_CELLS:.0g}: run fewer samples "
        "at a time, set nonidealities.mvm.ir_drop_load to spread, or nonidealities.mvm.ir_drop_model to closed_form"
    )
