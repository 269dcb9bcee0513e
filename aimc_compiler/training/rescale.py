"""Rescaling channels between layers: the same network, with fewer errors on tiles, without any gradient.

What one layer makes in channel i is divided by c_i, and what the layers behind it weigh channel i with is multiplied by
c_i (weight equalization, Nagel et al., arXiv:1906.04721 (2019); between activations and weights as here, SmoothQuant,
Xiao et al., arXiv:2211.10438 (2022)). On tiles, errors of devices are of about one size whatever the weight: with a_i
the size of channel i and w_i that of its weights in normalised columns, the squared error grows as
``sum_i (a_i / c_i)^2`` and the squared scale of the columns about as ``sum_i (w_i c_i)^2``. By the inequality of Cauchy
and Schwarz their product is least at ``c_i^2 = a_i / w_i``.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from aimc_compiler.errors import TrainingError
from aimc_compiler.graph.export import FlatNetwork, capture_error, export, graph_module
from aimc_compiler.records import record
from aimc_compiler.training.channels import Reader, Refusal, Source, find_sources

#: Smaller channels count as this share of the largest: what hardly is there must not be blown up.
_LEAST = 1e-3


@record
class RescaledPair:
    """source: module path of the layer whose channels were divided; readers: paths of the weights that were multiplied;
    least, largest: of the factors c."""

    source: str
    readers: tuple[str, ...]
    channels: int
    least: float
    largest: float


@record
class Rescaled:
    """model: the rescaled copy; pairs: what was scaled; refusals: layers whose channels could not be, and why."""

    model: Any
    pairs: tuple[RescaledPair, ...]
    refusals: tuple[Refusal, ...]


def rescale_channels(model: nn.Module, inputs: Sequence[Any], balance: float = 0.5) -> Rescaled:
    """A copy of ``model`` that computes the same, its channels balanced between activations and weights.

    model: in evaluation mode. inputs: one call's positional inputs, with all samples that the sizes of activations are
    measured on. balance: ``c_i = a_i^balance / w_i^(1 - balance)``, with a_i and w_i root mean squares; 0.5 is best
    for errors of devices. Channels are those of a linear layer, a convolution, a batch norm or a layer norm that reach
    linear layers and convolutions through ReLU, pooling and reshapes alone.

    Raises TrainingError where no channels of any layer can be scaled, saying why of each, or the network is in training
    mode; CaptureError where torch.export cannot read it.

    Example:
        >>> rescaled = rescale_channels(model.eval(), (images[:256],))  # doctest: +SKIP
        >>> compiled = aimc.compile(rescaled.model, "hermes", (images[:1],), calibration=batches)  # doctest: +SKIP
    """
    if not 0 <= balance <= 1:
        raise TrainingError(f"balance is {balance:g}: give a share from 0 (weights alone) to 1 (activations alone)")
    if model.training:
        raise TrainingError("the network is in training mode, where norms and dropout differ: call model.eval() first")
    twin = copy.deepcopy(model)
    leaves, spec = pytree.tree_flatten((tuple(inputs), {}))
    try:
        module = graph_module(export(FlatNetwork(twin, spec), tuple(leaves), None))
    except Exception as error:
        raise capture_error(type(model).__name__, error) from error
    sources, refusals = find_sources(module.graph, twin)
    if not sources:
        found = "".join(f"\n  {refusal}" for refusal in refusals)
        raise TrainingError(f"{type(model).__name__} has no layer whose channels can be scaled:{found or ' no layers'}")
    watch = _Sizes(module, {reader.node: reader for source in sources for reader in source.readers})
    with torch.no_grad():
        watch.run(*leaves)
        # All factors before any weight changes: those of one pair do not depend on those of another.
        factors = [_factors(source, twin, watch.found, balance) for source in sources]
        pairs = tuple(_scale(source, twin, c) for source, c in zip(sources, factors, strict=True))
    return Rescaled(model=twin, pairs=pairs, refusals=tuple(refusals))


class _Sizes(fx.Interpreter):
    """Runs the exported network and notes the root mean square of every channel that a reader reads."""

    def __init__(self, module: fx.GraphModule, readers: dict[fx.Node, Reader]) -> None:
        super().__init__(module)
        self._readers = readers
        self.found: dict[fx.Node, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        reader = self._readers.get(n)
        if reader is not None:
            x = self.fetch_args_kwargs_from_env(n)[0][0].double()
            squares = x.movedim(reader.layout.dim, 0).flatten(1).square().mean(1)
            self.found[n] = squares.reshape(-1, reader.layout.repeat).mean(1).sqrt()
        return super().run_node(n)


def _factors(source: Source, model: nn.Module, sizes: dict[fx.Node, Tensor], balance: float) -> Tensor:
    """c, (channels,): its geometric mean is 1; 1 where a channel is always 0 or not read."""
    a = torch.stack([sizes[reader.node] for reader in source.readers]).amax(0)
    w = torch.stack([_weight_sizes(reader, model) for reader in source.readers]).amax(0)
    alive = (a > 0) & (w > 0)
    if not alive.any():
        return torch.ones_like(a)
    a, w = (size.clamp(min=_LEAST * float(size.max())) for size in (a, w))
    c = a**balance / w ** (1 - balance)
    return torch.where(alive, c / c[alive].log().mean().exp(), torch.ones_like(c))


def _weight_sizes(reader: Reader, model: nn.Module) -> Tensor:
    """Root mean square of the weights of every channel, columns scaled to a largest weight of 1 as on tiles."""
    weight = model.get_parameter(reader.weight).detach().double()
    columns = weight.flatten(1)
    scaled = (columns / columns.abs().amax(1, keepdim=True).clamp(min=1e-300)).reshape(weight.shape)
    of_group = scaled.reshape(reader.groups, -1, *weight.shape[1:]).movedim(2, 1)
    return of_group.flatten(2).square().mean(2).reshape(-1, reader.layout.repeat).mean(1).sqrt()


def _scale(source: Source, model: nn.Module, c: Tensor) -> RescaledPair:
    """Divide what the source makes, multiply what its readers weigh it with."""
    for path in source.scaled:
        parameter = model.get_parameter(path)
        parameter.div_(c.to(parameter).reshape(-1, *(1,) * (parameter.dim() - 1)))
    for reader in source.readers:
        weight = model.get_parameter(reader.weight)
        rows = c.repeat_interleave(reader.layout.repeat).to(weight).reshape(reader.groups, 1, -1)
        own = weight.reshape(reader.groups, -1, *weight.shape[1:])
        weight.copy_((own * rows.reshape(*rows.shape, *(1,) * (weight.dim() - 2))).reshape(weight.shape))
    return RescaledPair(
        source=source.path,
        readers=tuple(reader.weight for reader in source.readers),
        channels=len(c),
        least=float(c.min()),
        largest=float(c.max()),
    )
