"""Inputs that a matrix in training can take."""

import torch
from torch import Tensor

from aimc_compiler.analog import Contraction
from aimc_compiler.errors import TrainingError

_SPATIAL = ("depth", "height", "width")


def require_inputs(
    x: Tensor, dtype: torch.dtype, op: str, contraction: Contraction, shape: tuple[int, int, int]
) -> None:
    """Raises TrainingError where ``x`` is no input of the operation. dtype: of its weight, which inputs must have but
    under autocast; shape: of its matrix, (groups, columns, rows)."""
    groups, _, rows = shape
    spatial = len(contraction.kernel)
    channels = groups * rows // contraction.places
    known = x.dim() in (spatial + 1, spatial + 2) if spatial else x.dim() > 0
    typed = x.dtype == dtype or (x.is_floating_point() and torch.is_autocast_enabled(x.device.type))
    if known and typed and x.shape[-1 - spatial] == channels:
        return
    form = f"(batch, {channels}, {', '.join(_SPATIAL[-spatial:])})" if spatial else f"(..., {channels})"
    raise TrainingError(
        f"{op or 'the network'} was given {x.dtype} of shape {tuple(x.shape)}: give {dtype}, as its weight is, of "
        f"shape {form}"
    )
