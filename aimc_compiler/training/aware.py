"""A network prepared for hardware-aware training: its own class, and what a call of it is beside."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, wraps
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from aimc_compiler.chip import ChipSpec
from aimc_compiler.errors import TrainingError
from aimc_compiler.executor.on_tiles import Clock
from aimc_compiler.graph import BatchDim, Rules
from aimc_compiler.training.batches import Batches, made_again
from aimc_compiler.training.choose import Choice
from aimc_compiler.training.layers import Untied, derived, layers_of, matrices_of
from aimc_compiler.training.learned import Learned, LearnedMatrix
from aimc_compiler.training.norms import freeze_norms
from aimc_compiler.training.recipe import Recipe


class Preparation:
    """What a network was prepared with, and what of it is trained for tiles. choices: of each matrix module; steps: of
    the run; batch_dim: as of ``compile``; normed: whether there are batch norms; frozen_from: the mini-batch, from 0,
    from which they are frozen, None for never; clock: of the chip that it runs on, if it does."""

    def __init__(
        self,
        chip: ChipSpec,
        recipe: Recipe,
        rules: Rules | None,
        batches: Batches,
        choices: Sequence[Choice],
        steps: int | None,
        batch_dim: BatchDim,
        *,
        normed: bool,
    ) -> None:
        self.chip, self.recipe, self.rules, self.batches = chip, recipe, rules, batches
        self.choices, self.normed, self.batch_dim = tuple(choices), normed, batch_dim
        self.clock: Clock | None = None
        self.frozen_from: int | None = None
        if steps is not None and normed and recipe.freeze_norms:
            self.frozen_from = round(steps * (1 - recipe.freeze_norms))

    def __str__(self) -> str:
        lines = [
            f"  {c.path or '(the network)'}: {'analog' if c.analog else 'digital'} ({c.reason})" for c in self.choices
        ]
        if self.frozen_from is not None:
            lines.append(f"  batch norms are frozen from mini-batch {self.frozen_from + 1}")
        elif self.recipe.freeze_norms and self.normed:
            lines.append("  batch norms are not frozen: prepare_hwa was not given steps, the mini-batches of the run")
        return "\n".join([f"hardware-aware training for {self.chip.name}", *lines])

    def __getstate__(self) -> dict[str, Any]:
        """A copy is on no chip."""
        return vars(self) | {"clock": None}

    @contextmanager
    def call(self) -> Iterator[bool]:
        """Around a call of the network; gives whether it is the outermost of this thread."""
        running = _RUNNING.get()
        outermost = all(each is not self for each in running)
        token = _RUNNING.set((*running, self))
        try:
            yield outermost
        finally:
            _RUNNING.reset(token)


#: The networks whose calls this thread is within.
_RUNNING: ContextVar[tuple[Preparation, ...]] = ContextVar("running", default=())


class HardwareAware(nn.Module):
    """What a prepared network's class has beside its own. hwa: its ``Preparation``."""

    hwa: Preparation

    def __init_subclass__(cls, **settings: Any) -> None:
        """What the user's classes do with theirs is not for the class of a prepared network."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """A call in training mode is a mini-batch."""
        return _called(self, super().__call__, args, kwargs)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Pickled by the plain class: this one is made when it is needed."""
        plain = _plain(type(self))
        return _blank, vars(plain).get("made_of", (plain,)), *super().__reduce_ex__(protocol)[2:]

    def __aimc_export__(self) -> tuple[nn.Module, Learned]:
        """The plain network, and what was learned for each matrix beside its weight."""
        return export(self)


def become_aware(model: nn.Module, preparation: Preparation) -> HardwareAware:
    """The network itself, made one that is prepared."""
    model.__class__ = _aware(type(model))  # type: ignore[arg-type]
    prepared: Any = model
    prepared.hwa = preparation
    return prepared  # type: ignore[no-any-return]


@cache
def _aware(kind: type[nn.Module]) -> type[nn.Module]:
    """The class of a prepared network whose own is ``kind``."""

    @wraps(kind.forward)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return _called(self, super(made, self).forward, args, kwargs)

    members = {"__module__": kind.__module__, "forward": forward}
    made: Any = type(f"HardwareAware{kind.__name__}", (HardwareAware, kind), members)
    return made  # type: ignore[no-any-return]


def _plain(aware: type[nn.Module]) -> Any:
    """The network's own class, of that of a prepared one."""
    return aware.__mro__[2]


def _blank(*parts: Any) -> nn.Module:
    """A prepared network without state. parts: its own class, or what that of a layer in training is made of."""
    aware = _aware(parts[0] if len(parts) == 1 else derived(*parts))
    return aware.__new__(aware)


def _called(model: HardwareAware, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """A call of the network or of its ``forward``; what either calls of them again belongs to it."""
    hwa = vars(model).get("hwa")
    if hwa is None:  # made from the class, as a slice of nn.Sequential is
        return function(*args, **kwargs)
    with hwa.call() as outermost:
        if not outermost:
            return function(*args, **kwargs)
        clock = hwa.clock
        if clock is not None:
            clock.count = _samples(args, kwargs, hwa.batch_dim)
        within = hwa.batches.under_way or not model.training
        with mini_batch(model):
            outputs = function(*args, **kwargs)
        if isinstance(outputs, Iterator) and (clock is not None or not within):
            raise TrainingError(
                f"a call of {_plain(type(model)).__name__} gives a {type(outputs).__name__}, whose steps run behind "
                "the mini-batch: let forward give its values, as in a list"
            )
        if clock is not None:
            clock.first_sample += clock.count
        return outputs


@contextmanager
def mini_batch(model: HardwareAware) -> Iterator[None]:
    """Within it all calls of ``model``, its methods and its parts in training mode are one mini-batch: they meet the
    same weights. A call of the network alone is one by itself; in evaluation mode there are none. Raises TrainingError
    where it is not prepared.

    Example:
        >>> with mini_batch(hwa):  # doctest: +SKIP
        ...     loss = criterion(hwa.decode(hwa.encode(x)), x)
    """
    require_prepared(model)
    batches = model.hwa.batches
    if made_again() or batches.under_way:
        if made_again():
            batches.begin_again()
        yield
        return
    if not (model.training or any(layer.training for layer in layers_of(model))):
        yield
        return
    if not batches.number:
        batches.number = max((int(core.seen) for core in matrices_of(model)), default=0)
    if model.training and model.hwa.frozen_from is not None and batches.number >= model.hwa.frozen_from:
        freeze_norms(model)
    with batches.begun():
        hold_weights(model)
        yield


def require_prepared(model: Any) -> None:
    """Raises TrainingError where ``model`` is not of ``prepare_hwa``."""
    if not isinstance(model, HardwareAware) or "hwa" not in vars(model):
        raise TrainingError(
            f"{type(model).__name__} is no network of prepare_hwa: give that itself, of a wrapper what it wraps "
            "(``.module`` of DistributedDataParallel)"
        )


def hold_weights(model: nn.Module) -> None:
    """Hold weights to the bounds of the recipe, if they have been updated since. A mini-batch does that when it begins;
    in a loop of your own call it behind the last one."""
    for layer in layers_of(model):
        layer.hold()


def export(model: HardwareAware) -> tuple[nn.Module, Learned]:
    """See ``HardwareAware.__aimc_export__``. Raises TrainingError where it is a part of a prepared network."""
    require_prepared(model)
    twin = copy.deepcopy(model)
    preparation = twin.hwa
    learned = [
        LearnedMatrix(
            op=core.op,
            parameter=core.parameter,
            ranges=tuple(tuple(row) for row in core.ranges().tolist()),
            rows=tuple(block.rows for block in core.blocks),
            columns=tuple(piece.columns for piece in core.blocks[0].pieces if piece.group == 0),
            trained=int(core.seen),
        )
        for core in matrices_of(twin)
    ]
    del twin.hwa
    twin.__class__ = _plain(type(model))
    untied: Untied = {}
    for layer in list(layers_of(twin)):
        layer.restore(untied)
    return twin, Learned(chip=preparation.chip.name, rules=preparation.rules, matrices=tuple(learned))


def _samples(args: tuple[Any, ...], kwargs: dict[str, Any], batch_dim: BatchDim) -> int:
    """Samples of a call: the size of the first tensor along its batch dimension."""
    leaves = pytree.tree_leaves((args, kwargs))
    dims = batch_dim if isinstance(batch_dim, tuple) else [batch_dim] * len(leaves)
    for leaf, dim in zip(leaves, dims, strict=False):
        if isinstance(leaf, Tensor) and dim is not None and dim < leaf.dim():
            return int(leaf.shape[dim])
    return 1
