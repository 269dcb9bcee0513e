"""Batch norms of a network in training for a chip: frozen at the end of a run, then restated.

On the chip a batch norm is a constant factor and offset, so what the noise of weights does to the mean of a channel
reaches the network behind it. In training it measures each mini-batch and takes that back, unless it is frozen.
"""

import copy
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from aimc_compiler.errors import TrainingError
from aimc_compiler.executor import as_call
from aimc_compiler.training.batches import over_processes


def freeze_norms(model: nn.Module) -> None:
    """Let batch norms normalise by their running statistics, and leave those as they are, until ``model.train()``."""
    for _, norm in _norms(model):
        norm.eval()


@torch.no_grad()
def restate_norms(model: nn.Module, data: Iterable[Any]) -> None:
    """Give batch norms the statistics that their inputs have by now, and weights and biases with which they compute
    what they computed.

    Weights that went on learning behind frozen norms have left the statistics behind. The network does not mind, but
    ``Device.recalibrate_norms`` would: it measures on an aged chip what these say of a fresh one. data: batches of
    inputs, as of ``compile``'s calibration; they are run in training mode, with its noise, by a copy of the model.
    Norms without weight and bias stay as they are. Raises TrainingError without data.
    """
    twin = copy.deepcopy(model).train()
    freeze_norms(twin)
    met: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for name, norm in _norms(twin):
        norm.register_forward_pre_hook(_meeting(met.setdefault(name, [])))
    runs = 0
    for inputs in data:
        runs += 1
        args, kwargs = as_call(inputs)
        twin(*args, **kwargs)
    if not runs:
        raise TrainingError("the data to restate batch norms with is empty: give at least one batch of inputs")
    for name, norm in _norms(model):
        if norm.affine and met[name]:
            mean, var = (over_processes(torch.stack(part).mean(0)) for part in zip(*met[name], strict=True))
            _restate(norm, mean, var)


def has_norms(model: nn.Module) -> bool:
    """Whether a network has batch norms with running statistics."""
    return any(True for _ in _norms(model))


def _norms(model: nn.Module) -> Iterator[tuple[str, _BatchNorm]]:
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.track_running_stats:
            yield name, module


def _meeting(met: list[tuple[Tensor, Tensor]]) -> Any:
    """A hook that notes mean and variance of a norm's inputs, (batch, channels, ...)."""

    def note(norm: nn.Module, args: tuple[Tensor, ...]) -> None:
        x = args[0].detach()
        dims = [0, *range(2, x.dim())]
        met.append((x.mean(dims), x.var(dims)))

    return note


def _restate(norm: _BatchNorm, mean: Tensor, var: Tensor) -> None:
    """``weight (x - mean) / sqrt(var + eps) + bias`` in other words."""
    if norm.running_mean is None or norm.running_var is None:
        return
    slope = norm.weight * (norm.running_var + norm.eps).rsqrt()
    norm.bias.add_(slope * (mean - norm.running_mean))
    norm.weight.copy_(slope * (var + norm.eps).sqrt())
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(var)
