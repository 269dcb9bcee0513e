"""Deciding which matrix operations are analog: one mechanism, rules on module paths, first match wins."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from aimc_compiler.chip.spec import ChipSpec
from aimc_compiler.errors import RuleError
from aimc_compiler.graph.experts import find_routings
from aimc_compiler.graph.ir import Graph, op_name
from aimc_compiler.graph.matrix_cost import MatrixCost, joint_costs
from aimc_compiler.graph.origin import Origin
from aimc_compiler.graph.rules import Rule, Rules, read_rules, suggest
from aimc_compiler.records import record
from aimc_compiler.workload.ir import MatrixKey, Routing

__all__ = ["Assignment", "Partition", "Rules", "partition"]


@record
class Assignment:
    """Where a matrix operation runs. path: the module path that rules match; reason: why, in words; groups_per_tile: at
    most so many groups of its matrix share a tile, None for as many as fit; routing: of an expert, how its mixture is
    timed, None for every window.
    """

    op: str
    path: str
    parameter: str
    analog: bool
    tile_type: str
    reason: str
    groups_per_tile: int | None = None
    routing: Routing | None = None


@record
class Partition:
    """An assignment for each matrix operation, in execution order."""

    assignments: tuple[Assignment, ...]

    def of(self, op: str) -> Assignment:
        return next(assignment for assignment in self.assignments if assignment.op == op)


def partition(graph: Graph | Sequence[Graph], rules: Rules, chip: ChipSpec) -> Partition:
    """Assign every matrix operation to tiles or to digital units.

    graph: or those of all entries of a network, in order, which get one partition: what rules say of "all matrices"
    they say of all entries together, and the work of an operation is that of one sample of each.

    rules: (pattern, settings) in order of precedence, or presets by name among them; pattern: shell glob (``*``, ``?``,
    ``[...]``) on the module path, where ``*`` also crosses dots; settings: ``analog`` (bool), ``tile_type`` (a name of
    the chip's), ``groups_per_tile`` (at most so many groups of a grouped convolution on one tile), ``min_cells`` and
    ``min_rows`` (matrices of fewer stay digital), ``max_tiles`` (for all matrices that the rule decides: those with the
    most multiply-accumulates a tile first, as far as each fits into what is left), ``experts``, ``active`` and
    ``balance`` (how a mixture of experts is timed), ``reason`` (words for the report).
    Raises RuleError for a rule that matches nothing or never applies, an unknown setting, preset or tile type, and uses
    of one matrix that disagree.

    Example:
        >>> partition(graph, {"head": {"analog": False}}, chip).of("head").reason
        "rule 'head' says digital"
    """
    graphs = (graph,) if isinstance(graph, Graph) else tuple(graph)
    costs = joint_costs(graphs)
    found = read_rules(rules, graphs, chip)
    winners = {name: _winner(cost.path, found) for name, cost in costs.items()}
    _check_matches(graphs, found, [cost.path for cost in costs.values()], list(winners.values()))
    default_type = next(iter(chip.tile_types))
    places: dict[str, tuple[bool, str]] = {
        name: (True, "default: every matrix is analog") for name, winner in winners.items() if winner is None
    }
    routings: dict[str, Routing] = {}
    for index, rule in enumerate(found):
        decided = [costs[name] for name, winner in winners.items() if winner == index]
        places |= _decide(rule, decided, chip, default_type)
        routings |= find_routings(rule, decided)
    assignments = []
    for name, cost in costs.items():
        winner, (analog, reason) = winners[name], places[name]
        tile_type = default_type if winner is None else found[winner].tile_type or default_type
        parameter = cost.matrix.parameter
        assignments.append(
            Assignment(
                op=name,
                path=cost.path,
                parameter=parameter,
                analog=analog,
                tile_type=tile_type,
                reason=reason,
                groups_per_tile=None if winner is None else found[winner].groups_per_tile,
                routing=routings.get(name),
            )
        )
    _check_agreement(assignments, graphs)
    return Partition(assignments=tuple(assignments))


def _winner(path: str, rules: list[Rule]) -> int | None:
    return next((index for index, rule in enumerate(rules) if fnmatchcase(path, rule.pattern)), None)


def _decide(rule: Rule, costs: list[MatrixCost], chip: ChipSpec, default_type: str) -> dict[str, tuple[bool, str]]:
    """(analog, reason) of each operation that a rule decides."""
    routed = f", timed for {timed}" if (timed := rule.assumption) else ""
    why = f"{routed}: {rule.reason}" if rule.reason else routed
    if not rule.analog:
        return {cost.op: (False, f"{rule.title} says digital{why}") for cost in costs}
    on = f" on tile type {rule.tile_type!r}" if rule.tile_type else ""
    on += "" if rule.groups_per_tile is None else f", at most {rule.groups_per_tile} of its groups a tile"
    small = {cost.op: text for cost in costs if (text := _too_small(rule, cost))}
    budget = _within_budget(rule, [cost for cost in costs if cost.op not in small], chip, default_type)
    places = {}
    for cost in costs:
        fits, text = budget.get(cost.op, (False, small.get(cost.op, "")))
        where = f"analog{on}" if fits else "digital"
        places[cost.op] = (
            fits,
            f"{rule.title} says {where}{why}{f'; {text}' if why and text else f': {text}' if text else ''}",
        )
    return places


def _too_small(rule: Rule, cost: MatrixCost) -> str:
    """Why a matrix is too small for the rule, "" where it is not."""
    matrix = cost.matrix
    if matrix.cells < rule.min_cells:
        return f"{matrix.cells:,} cells are fewer than min_cells {rule.min_cells:,}"
    if matrix.rows < rule.min_rows:
        return f"{matrix.rows:,} rows are fewer than min_rows {rule.min_rows:,}"
    return ""


def _within_budget(
    rule: Rule, costs: list[MatrixCost], chip: ChipSpec, default_type: str
) -> dict[str, tuple[bool, str]]:
    """(on tiles, why) of each operation: the most multiply-accumulates a tile first, each that fits into what is left.

    Uses of one matrix count as one: their work is added, their tiles are not.
    """
    if rule.max_tiles is None:
        return {cost.op: (True, "") for cost in costs}
    tile = chip.tile_types[rule.tile_type or default_type]
    uses: dict[MatrixKey, list[MatrixCost]] = {}
    for cost in costs:
        uses.setdefault(cost.matrix.key, []).append(cost)
    worth = {
        key: sum(cost.macs for cost in held) / held[0].tiles(tile, rule.groups_per_tile) for key, held in uses.items()
    }
    left = rule.max_tiles
    places: dict[str, tuple[bool, str]] = {}
    for key in sorted(uses, key=lambda key: -worth[key]):  # stable: equals in execution order
        tiles = uses[key][0].tiles(tile, rule.groups_per_tile)
        fits = tiles <= left
        count = f"{tiles:,} tile{'s' if tiles > 1 else ''}"
        verb = f"takes {count} of" if fits else f"needs {count}, {left:,} left of"
        text = f"{verb} max_tiles {rule.max_tiles:,} ({worth[key]:,.0f} MACs a tile)"
        places |= {cost.op: (fits, text) for cost in uses[key]}
        left -= tiles if fits else 0
    return places


def _check_matches(graphs: Sequence[Graph], rules: list[Rule], paths: list[str], winners: list[int | None]) -> None:
    for index, rule in enumerate(rules):
        if index in winners:
            continue
        matched = [path for path in paths if fnmatchcase(path, rule.pattern)]
        if matched and rule.preset and any(w is not None and rules[w].preset == rule.preset for w in winners):
            continue  # one of a preset's own: an earlier rule is an exception to it, as the reasons say
        if matched:
            taken = rules[winners[paths.index(matched[0])] or 0].pattern
            raise RuleError(
                f"{rule.title} never applies: {matched[0]!r} and all else it matches is taken by earlier rules "
                f"({taken!r}); the first match wins, so put the narrower pattern first"
            )
        digital = _digital_match(graphs, rule.pattern)
        if digital:
            raise RuleError(
                f"{rule.title} matches no matrix operation, only the digital {digital}, which is never analog: "
                f"remove the rule{suggest(rule.pattern, paths)}"
            )
        raise RuleError(f"{rule.title} matches no matrix operation{suggest(rule.pattern, paths)}")


def _digital_match(graphs: Sequence[Graph], pattern: str) -> str:
    for node in (node for graph in graphs for node in graph.nodes):
        path = node.meta.get("origin", Origin()).path
        if node.op == "call_function" and path and fnmatchcase(path, pattern):
            return f"{op_name(node)} at {path!r}"
    return ""


def _check_agreement(assignments: Sequence[Assignment], graphs: Sequence[Graph]) -> None:
    first: dict[str, Assignment] = {}
    for assignment in assignments:
        other = first.setdefault(assignment.parameter, assignment)
        if _place(other) != _place(assignment):
            raise RuleError(
                f"{_place_name(other, graphs)} and {_place_name(assignment, graphs)} use one matrix "
                f"({assignment.parameter}), but rules put them in different places ({other.reason}; "
                f"{assignment.reason}): write a rule that matches both"
            )


def _place_name(assignment: Assignment, graphs: Sequence[Graph]) -> str:
    """The operation, and of several entries the first that has it."""
    name = next(graph.name for graph in graphs if assignment.op in graph.matrix_nodes())
    return repr(assignment.op) if len(graphs) == 1 else f"{assignment.op!r} of entry {name.rpartition(':')[2]!r}"


def _place(assignment: Assignment) -> tuple[bool, str, int | None]:
    return assignment.analog, assignment.tile_type, assignment.groups_per_tile
