"""Preparing a network for hardware-aware training: its matrix modules are swapped, all else stays.

The network that comes back is of the user's own class, with the same forward, in a plain training loop. ``compile``
takes it as it is: ``__aimc_export__`` gives the plain network and what was learned beside its weights.
"""

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from aimc_compiler.chip import ChipSpec, load_chip
from aimc_compiler.errors import TrainingError
from aimc_compiler.graph import BatchDim, Rules
from aimc_compiler.training.attention import form_of
from aimc_compiler.training.aware import HardwareAware, Preparation, become_aware
from aimc_compiler.training.batches import Batches
from aimc_compiler.training.choose import choose_modules, evaluating, layer_of
from aimc_compiler.training.layers import Place, TrainedLayer
from aimc_compiler.training.matrix import TrainedMatrix
from aimc_compiler.training.norms import has_norms
from aimc_compiler.training.recipe import Recipe


def prepare_hwa(
    model: nn.Module,
    chip: ChipSpec | str | Path,
    recipe: Recipe | Mapping[str, Any] | str | Path | None = None,
    *,
    rules: Rules | None = None,
    example_inputs: Sequence[Any] | None = None,
    batch_dim: BatchDim = 0,
    steps: int | None = None,
) -> Any:
    """A copy of ``model`` whose matrices are trained with the chip in mind.

    chip: a spec, a built-in name or a path. recipe: a ``Recipe``, a mapping of its settings or a JSON file; None: the
    default. rules: patterns on module paths with settings, as of ``compile``, which takes them over; presets and
    budgets of tiles need example_inputs, one call's positional inputs, and batch_dim, as of ``compile``. steps:
    mini-batches of the whole run, which ``freeze_norms`` of the recipe is a share of; None: batch norms are not frozen.

    In training mode every mini-batch meets fresh noise; in evaluation mode there is none, and converters act. A call of
    the copy is a mini-batch (``mini_batch`` makes one of several calls, or of methods and parts). It is of a class
    derived from the model's own. Its state dict has the model's names, and more beside each weight:
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
    _require_plain(model)
    twin = copy.deepcopy(model)
    batches = Batches()
    choices = choose_modules(twin, spec, rules, example_inputs, batch_dim)
    forms = _attention_forms(twin, example_inputs)
    owners: dict[tuple[int, bool], TrainedMatrix] = {}
    for module in twin.modules():
        if isinstance(module, nn.TransformerEncoder):
            module.enable_nested_tensor = module.use_nested_tensor = False
    for choice in choices:
        module = twin.get_submodule(choice.path)
        if choice.analog and not isinstance(module, TrainedLayer):  # one at several paths is there at the first
            place = Place(
                path=choice.path,
                tile_type=choice.tile_type,
                chip=spec,
                recipe=settings,
                batches=batches,
                owners=owners,
                form=forms.get(choice.path, ""),
            )
            # Torch's fused encoder layers read weights past our forward; they keep off modules with hooks.
            layer_of(module).of(module, place).register_forward_pre_hook(_seen)
    preparation = Preparation(spec, settings, rules, batches, choices, steps, batch_dim, normed=has_norms(twin))
    return become_aware(twin, preparation)


def _require_plain(model: nn.Module) -> None:
    """Raises TrainingError where the network's parameters are not there yet, or are computed by hooks."""
    for path, module in model.named_modules():
        where = repr(path) if path else "the network"
        if any(is_lazy(value) for value in [*module._parameters.values(), *module._buffers.values()]):
            raise TrainingError(f"{where} is lazy, without weights so far: call the network once before, on a batch")
        for name, value in vars(module).items():
            if isinstance(value, Tensor) and value.grad_fn is not None:
                raise TrainingError(
                    f"{name!r} of {where} is computed from other parameters by a hook (pruning, old weight norm): make "
                    "it a parameter first, with torch.nn.utils.prune.remove or torch.nn.utils.remove_weight_norm"
                )


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
