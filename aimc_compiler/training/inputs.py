"""Inputs that a matrix in training can take."""

from torch import Tensor

from aimc_compiler.analog import Contraction
from aimc_compiler.errors import TrainingError

_SPATIAL = ("depth", "height", "width")


def require_inputs(x: Tensor, op: str, contraction: Contraction, shape: tuple[int, int, int]) -> None:
    """Raises TrainingError where ``x`` is no input of the operation. shape: of its matrix, (groups, columns, rows)."""
    groups, _, rows = shape
    spatial = len(contraction.kernel)
    channels = groups * rows // contraction.places
    known = x.dim() in (spatial + 1, spatial + 2) if spatial else x.dim() > 0
    if known and x.shape[-1 - spatial] == channels and x.is_floating_point():
        return
    form = f"(batch, {channels}, {', '.join(_SPATIAL[-spatial:])})" if spatial else f"(..., {channels})"
    raise TrainingError(
        f"{op or 'the network'} was given {x.dtype} of shape {tuple(x.shape)}: give floating-point numbers of shape "
        f"{form}"
    )
