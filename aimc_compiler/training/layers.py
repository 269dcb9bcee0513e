"""Layers in training: torch's own classes, whose products run as on tiles. ``analog`` holds what is learned beside.

A layer keeps its parameters and their names, so that its state dict reads as before, with ``analog.input_range`` and
the like beside ``weight``.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any, ClassVar, Self, cast

import torch.nn.functional as F
from torch import Tensor, nn

from aimc_compiler.analog import Contraction
from aimc_compiler.chip import ChipSpec
from aimc_compiler.graph.matrix import MatrixKind
from aimc_compiler.records import record
from aimc_compiler.training.batches import Batches
from aimc_compiler.training.holding import HELD
from aimc_compiler.training.matrix import TrainedMatrix
from aimc_compiler.training.recipe import Recipe


@record
class Place:
    """Where a layer stands. path: its module path, "" for the network itself; form: how an attention is called, ""
    where that is not known; owners: the first matrix of each weight so far, as it is or transposed; the rest is that
    of its network."""

    path: str
    tile_type: str
    chip: ChipSpec
    recipe: Recipe
    batches: Batches
    owners: dict[tuple[int, bool], TrainedMatrix]
    form: str = ""

    def matrix(
        self, name: str, parameter: str, weight: Tensor, shape: tuple[int, int, int], contraction: Contraction
    ) -> TrainedMatrix:
        """A matrix of the layer. name: of the operation below the path; parameter: of the weight there."""
        op, path = (".".join(part for part in (self.path, below) if part) for below in (name, parameter))
        matrix, turned = op or parameter, path.endswith(".T")
        first = other = None
        if isinstance(weight, nn.Parameter):  # parts of a packed weight are matrices of their own
            first, other = self.owners.get((id(weight), turned)), self.owners.get((id(weight), not turned))
            if first is not None:
                matrix, path = first.name, first.parameter
            elif other is not None:
                path = other.parameter.removesuffix(".T") if not turned else f"{other.parameter}.T"
        made = TrainedMatrix(
            op or parameter, matrix, path, shape, contraction, self.chip, self.recipe, self.batches, self.tile_type
        )
        made.holds = first is None and other is None
        if first is not None:
            made.column_gain, made.column_bound = first.column_gain, first.column_bound
        elif isinstance(weight, nn.Parameter):
            self.owners[id(weight), turned] = made
        return made


#: Of a parameter and the name of its matrix: the parameter, and what takes its place.
Untied = dict[tuple[int, str], tuple[nn.Parameter, nn.Parameter]]


class TrainedLayer(nn.Module):
    """What all layers in training have: their matrices, and a way back to the plain layer."""

    #: What it stands for, and becomes again for the compiler.
    plain: ClassVar[type[nn.Module]]

    def __init_subclass__(cls, **settings: Any) -> None:
        """What the user's classes do with theirs is not for the class of a layer in training."""

    @classmethod
    def of(cls, module: nn.Module, place: Place) -> Self:
        """The module itself, made such a layer: whoever holds it, at however many paths, has that now."""
        module.__class__ = derived(cls, type(module))  # type: ignore[arg-type]
        layer = cast(Self, module)
        layer._add(place)
        return layer

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Pickled by the classes that its own is made of, if it is."""
        made: Any = super().__reduce_ex__(protocol)
        parts = vars(type(self)).get("made_of")
        return made if parts is None else (_blank, parts, *made[2:])

    def cores(self) -> dict[str, TrainedMatrix]:
        """Its matrices, by name: that of their weight where each weight is one matrix."""
        raise NotImplementedError

    def blocks(self, name: str) -> Tensor:
        """The weight of the matrix of this name, (groups, columns, rows)."""
        weight: Tensor = getattr(self, name)
        return weight.reshape(self.cores()[name].shape)

    def replace(self, name: str, blocks: Tensor) -> None:
        """Let the matrix of this name have another weight."""
        weight: Tensor = getattr(self, name)
        weight.data.copy_(blocks.reshape(weight.shape))

    def hold(self) -> None:
        """Hold weights to the bounds of the recipe, where they have been updated. A weight that several layers share is
        held by the first. It is written past autograd: a graph that was kept from a call before is not refused. Tensors
        that ``torch.func.functional_call`` has put in its place are the caller's, and stay as they are."""
        weights = [weight for weight in self._parameters.values() if weight is not None and weight.dim() > 1]
        if not all(isinstance(weight, nn.Parameter) for weight in weights):
            return
        trained = any(weight.requires_grad for weight in weights)
        for name, core in self.cores().items():
            if core.recipe.clip in HELD and core.holds:
                blocks = self.blocks(name).data
                if core.hold(blocks, trained=trained):
                    self.replace(name, blocks)

    def restore(self, untied: "Untied") -> None:
        """Become the plain layer again, its weights as the compiler is to see them: where that is another weight it is
        untied from other uses of the parameter, which what was learned for tiles does not reach."""
        cores = self.cores()
        mapped = {name: core.mapped(self.blocks(name)) for name, core in cores.items() if core.rewrites}
        for name, weight in list(self._parameters.items()) if mapped else ():
            if weight is not None and weight.dim() > 1:
                key = id(weight), cores[name].name if name in cores else f"packed {id(self)}"
                _, self._parameters[name] = untied.setdefault(key, (weight, nn.Parameter(weight.detach().clone())))
        for name, blocks in mapped.items():
            self.replace(name, blocks)
        del self.analog
        self.__class__ = self.plain  # type: ignore[assignment]

    def _add(self, place: Place) -> None:
        """Add what a layer in training has beside the plain one."""
        raise NotImplementedError


@cache
def derived(layer: type[TrainedLayer], kind: type[nn.Module]) -> Any:
    """The class of a layer whose own is ``kind``: with its methods, where it is not torch's."""
    if getattr(layer, "plain", None) is kind:
        return layer
    members = {"plain": kind, "made_of": (layer, kind), "__module__": kind.__module__}
    return type(f"Trained{kind.__name__}", (layer, kind), members)


def _blank(layer: type[TrainedLayer], kind: type[nn.Module]) -> nn.Module:
    """A layer without state."""
    found = derived(layer, kind)  # type: ignore[arg-type]
    return found.__new__(found)  # type: ignore[no-any-return]


def layers_of(model: nn.Module) -> Iterator[TrainedLayer]:
    """Every layer in training, in order."""
    return (module for module in model.modules() if isinstance(module, TrainedLayer))


def matrices_of(model: nn.Module) -> Iterator[TrainedMatrix]:
    """Every matrix in training, in order."""
    return (core for layer in layers_of(model) for core in layer.cores().values())


class OneMatrix(TrainedLayer):
    """A layer of one weight. parameter: the matrix as the compiler names it, below the layer's path."""

    parameter: ClassVar[str] = "weight"
    analog: TrainedMatrix
    weight: Tensor

    def cores(self) -> dict[str, TrainedMatrix]:
        return {"weight": self.analog}

    def _add(self, place: Place) -> None:
        self.analog = place.matrix("", self.parameter, self.weight, self._shape(), self._contraction())

    def _shape(self) -> tuple[int, int, int]:
        raise NotImplementedError

    def _contraction(self) -> Contraction:
        raise NotImplementedError


class TrainedLinear(OneMatrix, nn.Linear):
    """``nn.Linear`` on tiles."""

    plain = nn.Linear

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.analog(x, self.weight[None], self.bias)
        return y

    def _shape(self) -> tuple[int, int, int]:
        return 1, self.out_features, self.in_features

    def _contraction(self) -> Contraction:
        return Contraction(kind="linear")


class _TrainedConv(OneMatrix):
    """Convolutions of any number of dimensions. Padding that is no even border of zeros is made before the product."""

    bias: Tensor | None
    groups: int
    out_channels: int
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: str | tuple[int, ...]
    dilation: tuple[int, ...]
    padding_mode: str
    _reversed_padding_repeated_twice: list[int]

    def forward(self, x: Tensor) -> Tensor:
        if not self._pads_inside():
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            x = F.pad(x, self._reversed_padding_repeated_twice, mode=mode)
        y: Tensor = self.analog(x, self.blocks("weight"), self.bias)
        return y

    def _shape(self) -> tuple[int, int, int]:
        return self.groups, self.out_channels // self.groups, self.weight[0].numel()

    def _contraction(self) -> Contraction:
        kinds: dict[int, MatrixKind] = {1: "conv1d", 2: "conv2d", 3: "conv3d"}
        none = (0,) * len(self.kernel_size)
        return Contraction(
            kind=kinds[len(self.kernel_size)],
            kernel=tuple(self.kernel_size),
            stride=tuple(self.stride),
            padding=tuple(self.padding) if self._pads_inside() and not isinstance(self.padding, str) else none,
            dilation=tuple(self.dilation),
        )

    def _pads_inside(self) -> bool:
        return self.padding_mode == "zeros" and not isinstance(self.padding, str)


class TrainedConv1d(_TrainedConv, nn.Conv1d):  # type: ignore[misc]
    """``nn.Conv1d`` on tiles."""

    plain = nn.Conv1d


class TrainedConv2d(_TrainedConv, nn.Conv2d):  # type: ignore[misc]
    """``nn.Conv2d`` on tiles."""

    plain = nn.Conv2d


class TrainedConv3d(_TrainedConv, nn.Conv3d):  # type: ignore[misc]
    """``nn.Conv3d`` on tiles."""

    plain = nn.Conv3d
