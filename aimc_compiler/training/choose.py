"""Which modules of a network are trained for tiles: the rules of ``compile``, on module paths."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from aimc_compiler.chip import ChipSpec
from aimc_compiler.errors import RuleError, TrainingError
from aimc_compiler.graph import BatchDim, Rules, capture, partition
from aimc_compiler.graph.rules import Rule, read_rules, suggest
from aimc_compiler.records import record
from aimc_compiler.training.kinds import LAYERS
from aimc_compiler.training.stored_by_rows import layer_by_rows


@record
class Choice:
    """A matrix module. path: "" for the network itself; reason: why, in words."""

    path: str
    analog: bool
    tile_type: str
    reason: str


def choose_modules(
    model: nn.Module,
    chip: ChipSpec,
    rules: Rules | None,
    example_inputs: Sequence[Any] | None,
    batch_dim: BatchDim = 0,
) -> tuple[Choice, ...]:
    """Every module that can be swapped, in order, and whether it is; one at several paths stands there at each.

    With example inputs the rules are those of ``compile`` in full; without, presets and budgets of tiles, which need
    the network's graph, are an error. Raises RuleError, TrainingError where nothing is left to train, or a module's
    weight is computed from other parameters.
    """
    modules = model.named_modules(remove_duplicate=False)
    found = {path: module for path, module in modules if layer_of(module) is not None}
    if example_inputs is not None:
        choices = _by_graph(model, chip, rules, tuple(example_inputs), batch_dim, found)
    else:
        choices = _by_path(chip, rules, found)
    _require_agreement(choices, found)
    for choice in choices:
        if choice.analog and nn.utils.parametrize.is_parametrized(found[choice.path]):
            raise TrainingError(
                f"{choice.path!r} has a parametrised weight (weight norm, spectral norm): remove it first with "
                "torch.nn.utils.parametrize.remove_parametrizations, or keep the module digital by a rule"
            )
    if not any(choice.analog for choice in choices):
        kinds = ", ".join(kind.__name__ for kind in LAYERS)
        raise TrainingError(
            f"{type(model).__name__} has no module to train for tiles ({kinds})"
            + (": the rules keep all of them digital" if found else "; functional calls are not swapped")
        )
    return choices


def layer_of(module: nn.Module) -> Any:
    """What stands for a module in training; None for those that have no matrix, or a forward of their own."""
    if "forward" in vars(module):
        return None
    for kind, layer in LAYERS.items():
        if isinstance(module, kind) and all(_same(type(module), kind, name) for name in ("forward", "_conv_forward")):
            return layer
    return layer_by_rows(type(module))


def _same(one: type[nn.Module], other: type[nn.Module], method: str) -> bool:
    return getattr(one, method, None) is getattr(other, method, None)


def _by_path(chip: ChipSpec, rules: Rules | None, found: dict[str, nn.Module]) -> tuple[Choice, ...]:
    read = read_rules(rules or (), (), chip)
    if any(rule.max_tiles is not None for rule in read):
        raise RuleError("max_tiles needs the network's graph: give example_inputs")
    default = next(iter(chip.tile_types))
    choices, used = [], set()
    for path, module in found.items():
        index = next((number for number, rule in enumerate(read) if fnmatchcase(path, rule.pattern)), None)
        if index is None:
            choices.append(Choice(path=path, analog=True, tile_type=default, reason="default: every matrix is analog"))
            continue
        used.add(index)
        choices.append(_decided(path, module, read[index], default))
    for number, rule in enumerate(read):
        if number not in used:
            raise RuleError(f"{rule.title} matches no module that can be trained{suggest(rule.pattern, list(found))}")
    return tuple(choices)


def _decided(path: str, module: Any, rule: Rule, default: str) -> Choice:
    tile_type = rule.tile_type or default
    if not rule.analog:
        return Choice(path=path, analog=False, tile_type=tile_type, reason=f"{rule.title} says digital")
    cells = sum(weight.numel() for name, weight in module.named_parameters(recurse=False) if weight.dim() > 1)
    rows = min(weight[0].numel() for name, weight in module.named_parameters(recurse=False) if weight.dim() > 1)
    if cells < rule.min_cells:
        reason = f"{rule.title} says digital: {cells:,} cells are fewer than min_cells {rule.min_cells:,}"
        return Choice(path=path, analog=False, tile_type=tile_type, reason=reason)
    if rows < rule.min_rows:
        reason = f"{rule.title} says digital: {rows:,} rows are fewer than min_rows {rule.min_rows:,}"
        return Choice(path=path, analog=False, tile_type=tile_type, reason=reason)
    return Choice(path=path, analog=True, tile_type=tile_type, reason=f"{rule.title} says analog")


def _require_agreement(choices: tuple[Choice, ...], found: dict[str, nn.Module]) -> None:
    """Raises RuleError where a module is to be one thing at one path, another at another."""
    first: dict[int, Choice] = {}
    for choice in choices:
        other = first.setdefault(id(found[choice.path]), choice)
        if (other.analog, other.tile_type) != (choice.analog, choice.tile_type):
            raise RuleError(
                f"{other.path!r} and {choice.path!r} are one module, but rules put them in different places "
                f"({other.reason}; {choice.reason}): write a rule that matches both"
            )


def _by_graph(
    model: nn.Module,
    chip: ChipSpec,
    rules: Rules | None,
    example_inputs: tuple[Any, ...],
    batch_dim: BatchDim,
    found: dict[str, nn.Module],
) -> tuple[Choice, ...]:
    """What ``compile`` would do. Raises TrainingError where it would put a matrix on tiles that no module holds."""
    with evaluating(model):
        graph = capture(model, example_inputs, batch_dim=batch_dim)
    assigned = partition(graph, rules or (), chip).assignments
    choices: dict[str, Choice] = {}
    for assignment in assigned:
        owner = next((path for path in _prefixes(assignment.parameter) if path in found), None)
        if owner is None:
            if assignment.analog:
                raise TrainingError(
                    f"{assignment.op!r} goes on tiles, but its weight {assignment.parameter!r} is held by no module "
                    "that can be swapped: hold it in a torch layer, or keep it digital by a rule"
                )
            continue
        for path in _holders(found, owner):
            choices.setdefault(
                path,
                Choice(path=path, analog=assignment.analog, tile_type=assignment.tile_type, reason=assignment.reason),
            )
    return tuple(choices[path] for path in found if path in choices)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within it the network is in evaluation mode; behind it, each module is in the mode that it had."""
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _holders(found: dict[str, nn.Module], owner: str) -> list[str]:
    """The module at ``owner`` and those that hold one of its weights, too."""
    weights = {id(weight) for weight in found[owner].parameters(recurse=False) if weight.dim() > 1}
    return [path for path, module in found.items() if weights & {id(p) for p in module.parameters(recurse=False)}]


def _prefixes(parameter: str) -> list[str]:
    """Module paths that may hold a parameter, the longest first."""
    parts = parameter.split(".")
    return [".".join(parts[:count]) for count in range(len(parts) - 1, -1, -1)]
