"""Deciding which matrix operations are analog: one mechanism, rules on module paths, first match wins."""

import difflib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from aimc_compiler.chip.spec import ChipSpec
from aimc_compiler.errors import RuleError
from aimc_compiler.graph.ir import Graph, op_name
from aimc_compiler.graph.origin import Origin
from aimc_compiler.records import record

#: Patterns on module paths with their settings, in order: a mapping, or a sequence of pairs.
Rules = Mapping[str, Mapping[str, Any]] | Sequence[tuple[str, Mapping[str, Any]]]
_SETTINGS: dict[str, type] = {"analog": bool, "tile_type": str, "groups_per_tile": int}


@record
class Assignment:
    """Where a matrix operation runs. path: the module path that rules match; reason: why, in words; groups_per_tile: at
    most so many groups of its matrix share a tile, None for as many as fit.
    """

    op: str
    path: str
    parameter: str
    analog: bool
    tile_type: str
    reason: str
    groups_per_tile: int | None = None


@record
class Partition:
    """An assignment for each matrix operation, in execution order."""

    assignments: tuple[Assignment, ...]

    def of(self, op: str) -> Assignment:
        return next(assignment for assignment in self.assignments if assignment.op == op)


def partition(graph: Graph, rules: Rules, chip: ChipSpec) -> Partition:
    """Assign every matrix operation to tiles or to digital units.

    rules: (pattern, settings) in order of precedence; pattern: shell glob (``*``, ``?``, ``[...]``) on the module
    path, where ``*`` also crosses dots; settings: ``analog`` (bool), ``tile_type`` (a name of the chip's) and
    ``groups_per_tile`` (at most so many groups of a grouped convolution on one tile).
    Raises RuleError for a rule that matches nothing or never applies, an unknown setting or tile type, and uses of
    one matrix that disagree.

    Example:
        >>> partition(graph, {"head": {"analog": False}}, chip).of("head").reason
        "rule 'head' says digital"
    """
    pairs = [(str(pattern), dict(settings)) for pattern, settings in _pairs(rules)]
    for pattern, settings in pairs:
        _check_settings(pattern, settings, chip)
    paths = {name: name.partition("@")[0] for name in graph.matrix_nodes()}
    winners = {name: _winner(path, pairs) for name, path in paths.items()}
    _check_matches(graph, pairs, list(paths.values()), list(winners.values()))
    modules = graph.matrix_modules()
    default_type = next(iter(chip.tile_types))
    assignments = tuple(
        _assign(name, paths[name], modules[name].parameter, None if winner is None else pairs[winner], default_type)
        for name, winner in winners.items()
    )
    _check_agreement(assignments)
    return Partition(assignments=assignments)


def _pairs(rules: Rules) -> Sequence[tuple[str, Mapping[str, Any]]]:
    pairs = list(rules.items()) if isinstance(rules, Mapping) else list(rules)
    for pair in pairs:
        if not (isinstance(pair, tuple | list) and len(pair) == 2 and isinstance(pair[1], Mapping)):
            raise RuleError(f"{pair!r} is no rule: write (pattern, settings), as in ('head', {{'analog': False}})")
    return pairs


def _check_settings(pattern: str, settings: Mapping[str, Any], chip: ChipSpec) -> None:
    if not settings:
        raise RuleError(f"rule {pattern!r} sets nothing: give one of {', '.join(_SETTINGS)}")
    for key, value in settings.items():
        if key not in _SETTINGS:
            raise RuleError(f"rule {pattern!r}: there is no setting {key!r}{_suggest(key, list(_SETTINGS))}")
        if not isinstance(value, _SETTINGS[key]) or (isinstance(value, bool) and _SETTINGS[key] is not bool):
            wanted = _SETTINGS[key].__name__
            raise RuleError(f"rule {pattern!r}: {key} is {value!r}, a {type(value).__name__}: give a {wanted}")
    groups = settings.get("groups_per_tile", 1)
    if groups < 1:
        raise RuleError(f"rule {pattern!r}: groups_per_tile is {groups}: give 1, for a tile a group, or more")
    tile_type = settings.get("tile_type")
    if tile_type is not None and tile_type not in chip.tile_types:
        known = list(chip.tile_types)
        raise RuleError(f"rule {pattern!r}: {chip.name} has no tile type {tile_type!r}{_suggest(tile_type, known)}")


def _winner(path: str, pairs: list[tuple[str, dict[str, Any]]]) -> int | None:
    return next((index for index, (pattern, _) in enumerate(pairs) if fnmatchcase(path, pattern)), None)


def _check_matches(
    graph: Graph, pairs: list[tuple[str, dict[str, Any]]], paths: list[str], winners: list[int | None]
) -> None:
    for index, (pattern, _) in enumerate(pairs):
        if index in winners:
            continue
        matched = [path for path in paths if fnmatchcase(path, pattern)]
        if matched:
            taken = pairs[winners[paths.index(matched[0])] or 0][0]
            raise RuleError(
                f"rule {pattern!r} never applies: {matched[0]!r} and all else it matches is taken by earlier rules "
                f"({taken!r}); the first match wins, so put the narrower pattern first"
            )
        digital = _digital_match(graph, pattern)
        if digital:
            raise RuleError(
                f"rule {pattern!r} matches no matrix operation, only the digital {digital}, which is never analog: "
                f"remove the rule{_suggest(pattern, paths)}"
            )
        raise RuleError(f"rule {pattern!r} matches no matrix operation{_suggest(pattern, paths)}")


def _digital_match(graph: Graph, pattern: str) -> str:
    for node in graph.nodes:
        path = node.meta.get("origin", Origin()).path
        if node.op == "call_function" and path and fnmatchcase(path, pattern):
            return f"{op_name(node)} at {path!r}"
    return ""


def _assign(
    name: str, path: str, parameter: str, rule: tuple[str, dict[str, Any]] | None, default_type: str
) -> Assignment:
    pattern, settings = rule if rule is not None else ("", {})
    analog = settings.get("analog", True)
    if rule is None:
        reason = "default: every matrix is analog"
    elif not analog:
        reason = f"rule {pattern!r} says digital"
    else:
        on = f" on tile type {settings['tile_type']!r}" if "tile_type" in settings else ""
        groups = settings.get("groups_per_tile")
        on += "" if groups is None else f", at most {groups} of its groups a tile"
        reason = f"rule {pattern!r} says analog{on}"
    tile_type = settings.get("tile_type", default_type)
    return Assignment(
        op=name,
        path=path,
        parameter=parameter,
        analog=analog,
        tile_type=tile_type,
        reason=reason,
        groups_per_tile=settings.get("groups_per_tile"),
    )


def _check_agreement(assignments: tuple[Assignment, ...]) -> None:
    first: dict[str, Assignment] = {}
    for assignment in assignments:
        other = first.setdefault(assignment.parameter, assignment)
        if _place(other) != _place(assignment):
            raise RuleError(
                f"{other.op!r} and {assignment.op!r} use one matrix ({assignment.parameter}), but rules put them in "
                f"different places ({other.reason}; {assignment.reason}): write a rule that matches both"
            )


def _place(assignment: Assignment) -> tuple[bool, str, int | None]:
    return assignment.analog, assignment.tile_type, assignment.groups_per_tile


def _suggest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(known) or 'none'}"
