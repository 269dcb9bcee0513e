"""Preparing a network for hardware-aware training: its matrix modules are swapped, all else stays.

The network that comes back is of the user's own class, with the same forward, in a plain training loop. ``compile``
takes it as it is: ``__aimc_export__`` gives the plain network and what was learned beside its weights.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from aimc_compiler.analog import MatrixOnTiles
from aimc_compiler.chip import ChipSpec, load_chip
from aimc_compiler.errors import TrainingError
from aimc_compiler.executor.on_tiles import Clock
from aimc_compiler.graph import Rules
from aimc_compiler.training.attached import Attached, Calls
from aimc_compiler.training.attention import form_of
from aimc_compiler.training.batches import Batches
from aimc_compiler.training.choose import Choice, choose_modules, evaluating, layer_of
from aimc_compiler.training.layers import Place, TrainedLayer
from aimc_compiler.training.learned import Learned, LearnedMatrix
from aimc_compiler.training.matrix import TrainedMatrix
from aimc_compiler.training.norms import freeze_norms, has_norms
from aimc_compiler.training.recipe import Recipe


def prepare_hwa(
    model: nn.Module,
    chip: ChipSpec | str | Path,
    recipe: Recipe | Mapping[str, Any] | str | Path | None = None,
    *,
    rules: Rules | None = None,
    example_inputs: Sequence[Any] | None = None,
    steps: int | None = None,
) -> Any:
    """A copy of ``model`` whose matrices are trained with the chip in mind.

    chip: a spec, a built-in name or a path. recipe: a ``Recipe``, a mapping of its settings or a JSON file; None: the
    default. rules: patterns on module paths with settings, as of ``compile``, which takes them over; presets and
    budgets of tiles need example_inputs, one call's positional inputs. steps: mini-batches of the whole run, which
    ``freeze_norms`` of the recipe is a share of; None: batch norms are not frozen.

    In training mode every mini-batch meets fresh noise; in evaluation mode there is none, and converters act. The copy
    is of a class derived from the model's own. Its state dict has the model's names, and more beside each weight:
    ``analog.input_range``, ``analog.column_scale``, ``analog.seen``. Raises TrainingError where nothing is to be
    trained or a module is of a kind that cannot be, RuleError, RecipeError, NotBuiltError.

    Example:
        >>> hwa = prepare_hwa(model, "analog-fabric", Recipe(clip_sigmas=2.5))  # doctest: +SKIP
        >>> compiled = aimc.compile(hwa.eval(), "analog-fabric", (x,))  # doctest: +SKIP
    """
    if not isinstance(model, nn.Module):
        raise TrainingError(f"model is a {type(model).__name__}, no torch.nn.Module: give the network itself")
    if isinstance(model, HardwareAware):
        raise TrainingError("the model is prepared for hardware-aware training already: give the network it came from")
    if steps is not None and steps < 1:
        raise TrainingError(f"steps is {steps}: give the mini-batches of the run, 1 or more, or None")
    spec = chip if isinstance(chip, ChipSpec) else load_chip(chip)
    settings = Recipe.of(recipe)
    twin = copy.deepcopy(model)
    batches = Batches()
    choices = choose_modules(twin, spec, rules, example_inputs)
    forms = _attention_forms(twin, example_inputs)
    owners: dict[int, tuple[str, str]] = {}
    for module in twin.modules():
        if isinstance(module, nn.TransformerEncoder):
            module.enable_nested_tensor = module.use_nested_tensor = False
    for choice in choices:
        if choice.analog:
            form = forms.get(choice.path, "")
            place = Place(
                path=choice.path,
                tile_type=choice.tile_type,
                chip=spec,
                recipe=settings,
                batches=batches,
                owners=owners,
                form=form,
            )
            twin = _swap(twin, place)
    twin.__class__ = _aware(type(twin))  # type: ignore[arg-type]
    prepared: Any = twin
    prepared.hwa = Preparation(spec, settings, rules, batches, choices, steps, normed=has_norms(twin))
    return prepared


class Preparation:
    """What a network was prepared with, and what of it is trained for tiles. choices: of each matrix module; steps: of
    the run; normed: whether there are batch norms; frozen_from: the mini-batch, from 0, from which they are frozen,
    None for never."""

    def __init__(
        self,
        chip: ChipSpec,
        recipe: Recipe,
        rules: Rules | None,
        batches: Batches,
        choices: Sequence[Choice],
        steps: int | None,
        *,
        normed: bool,
    ) -> None:
        self.chip, self.recipe, self.rules, self.batches = chip, recipe, rules, batches
        self.choices, self.normed = tuple(choices), normed
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


class HardwareAware(nn.Module):
    """What a prepared network's class has beside its own. hwa: its ``Preparation``."""

    hwa: Preparation

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """A call in training mode is a mini-batch."""
        if self.training:
            if self.hwa.frozen_from is not None and self.hwa.batches.number >= self.hwa.frozen_from:
                freeze_norms(self)
            self.hwa.batches.begin()
            hold_weights(self)
        clock = self.hwa.clock
        if clock is None:
            return super().__call__(*args, **kwargs)
        clock.count = _samples(args, kwargs)
        outputs = super().__call__(*args, **kwargs)
        clock.first_sample += clock.count
        return outputs

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Pickled by the plain class: this one is made when it is needed."""
        return _blank, (_plain(type(self)),), *super().__reduce_ex__(protocol)[2:]

    def __aimc_export__(self) -> tuple[nn.Module, Learned]:
        """The plain network, and what was learned for each matrix beside its weight."""
        return export(self)


@cache
def _aware(kind: type[nn.Module]) -> type[nn.Module]:
    """The class of a prepared network whose own is ``kind``."""
    return type(f"HardwareAware{kind.__name__}", (HardwareAware, kind), {"__module__": kind.__module__})


def _plain(aware: type[nn.Module]) -> Any:
    """The network's own class, of that of a prepared one."""
    return aware.__mro__[2]


def _blank(kind: type[nn.Module]) -> nn.Module:
    """A prepared network without state."""
    aware = _aware(kind)  # type: ignore[arg-type]
    return aware.__new__(aware)


def hold_weights(model: nn.Module) -> None:
    """Hold weights to the bounds of the recipe, if they have been updated since. A mini-batch does that when it begins;
    in a loop of your own call it behind the last one."""
    for layer in _layers(model):
        layer.hold()


def export(model: HardwareAware) -> tuple[nn.Module, Learned]:
    """See ``HardwareAware.__aimc_export__``."""
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
        for layer in _layers(twin)
        for core in layer.cores().values()
    ]
    del twin.hwa
    twin.__class__ = _plain(type(model))
    for layer in _layers(twin):
        layer.restore()
    return twin, Learned(chip=preparation.chip.name, rules=preparation.rules, matrices=tuple(learned))


@contextmanager
def on_chip(
    model: HardwareAware,
    seed: int = 0,
    *,
    chip_index: int = 0,
    time_s: float = 0.0,
    recalibrated_s: float | None = None,
) -> Iterator[Clock]:
    """Within it, ``model`` runs on a manufactured and programmed chip, that of ``CompiledModel.deploy`` of this seed.

    Batch norms are not folded here and so act after rounding; all else is what the compiled network computes. Samples
    are numbered along the first dimension of the first tensor that the network is called with.
    """
    clock = Clock()
    clock.time_s, clock.recalibrated_s = time_s, recalibrated_s
    held = [(layer, name, core) for layer in _layers(model) for name, core in layer.cores().items()]
    model.hwa.clock = clock
    calls: dict[str, Calls] = {}
    try:
        for layer, name, core in held:
            made = _on_tiles(layer, name, core, seed, chip_index)
            ranges = core.ranges() if core.normalised else None
            core.attach(Attached(made, ranges, clock, calls.setdefault(core.name, Calls())))
        yield clock
    finally:
        model.hwa.clock = None
        for _, _, core in held:
            core.attach(None)


def _layers(model: nn.Module) -> list[TrainedLayer]:
    return [module for module in model.modules() if isinstance(module, TrainedLayer)]


def _on_tiles(layer: TrainedLayer, name: str, core: TrainedMatrix, seed: int, chip_index: int) -> MatrixOnTiles:
    """The matrix of a layer, of this name, on its tiles of a chip."""
    weight = core.mapped(layer.blocks(name))
    return MatrixOnTiles(
        weight,
        core.contraction,
        core.pieces,
        core.chip.tile_types[core.tile_type],
        core.chip.nonidealities,
        seed=seed,
        chip=chip_index,
        dtype=weight.dtype,
    )


def _samples(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """Samples of a call: the first dimension of its first tensor."""
    leaves = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) and leaf.dim()]
    return int(leaves[0].shape[0]) if leaves else 1


def _swap(model: nn.Module, place: Place) -> nn.Module:
    """``model`` with the module at ``place`` swapped: in place, or the new module where it is the network itself."""
    module = model.get_submodule(place.path)
    trained: nn.Module = layer_of(module).of(module, place)
    # Torch's fused encoder layers read weights past our forward; they keep off modules with hooks.
    trained.register_forward_pre_hook(_seen)
    if not place.path:
        return trained
    parent, _, name = place.path.rpartition(".")
    setattr(model.get_submodule(parent), name, trained)
    return model


def _seen(module: nn.Module, inputs: Any) -> None:
    """A hook that does nothing."""


def _attention_forms(model: nn.Module, example_inputs: Sequence[Any] | None) -> dict[str, str]:
    """How each attention is called, by its path: by running the example, or else by its place."""
    forms = {
        f"{path}.multihead_attn".lstrip("."): "shared"
        for path, module in model.named_modules()
        if isinstance(module, nn.TransformerDecoderLayer)
    }
    attentions = {path: module for path, module in model.named_modules() if isinstance(module, nn.MultiheadAttention)}
    if example_inputs is None or not attentions:
        return forms
    hooks = [
        module.register_forward_pre_hook(partial(_note_form, forms, path), with_kwargs=True)
        for path, module in attentions.items()
    ]
    try:
        with evaluating(model), torch.no_grad():
            model(*example_inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return forms


def _note_form(forms: dict[str, str], path: str, module: nn.Module, args: Any, kwargs: Any) -> None:
    named = dict(zip(("query", "key", "value"), args, strict=False)) | kwargs
    forms[path] = form_of(named["query"], named["key"], named["value"])
