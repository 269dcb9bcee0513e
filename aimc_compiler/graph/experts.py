"""Which matrices are the experts of a mixture, for a rule that says how its tokens are dealt.

Experts are matrices at numbered or named places of one module (``experts.0.w1`` to ``experts.7.w2``), all alike, or
the groups of one matrix (a stack multiplied by ``bmm``). A stack of which an index chooses a matrix for each vector is
taken apart in the normal form, so that it has the first form too.
"""

from collections.abc import Sequence

from aimc_compiler.errors import RuleError
from aimc_compiler.graph.matrix_cost import MatrixCost
from aimc_compiler.graph.rules import Rule
from aimc_compiler.workload.ir import Routing

#: What an expert holds: the rest of each path, and the shape of the matrix there.
_Holding = tuple[tuple[str, int, int, int], ...]


def find_routings(rule: Rule, costs: Sequence[MatrixCost]) -> dict[str, Routing]:
    """The routing of each operation that a rule with ``experts`` decides.

    Raises RuleError for an operation that belongs to no mixture of so many, and for a stack with an idle expert.
    """
    if rule.experts is None or rule.active is None:
        return {}
    mixtures = _mixtures([cost.path for cost in costs if not _is_stack(rule, cost)], costs)
    found = {}
    for cost in costs:
        stack = _is_stack(rule, cost)
        mixture, expert = (cost.path, None) if stack else _place(rule, cost, mixtures)
        if stack and rule.balance == "worst":
            raise RuleError(
                f"{rule.title} says balance: worst, but {cost.op!r} is one matrix of {rule.experts} groups, which "
                "multiply equally often: write experts as modules of their own, or leave balance out"
            )
        found[cost.op] = Routing(
            mixture=mixture,
            experts=rule.experts,
            active=rule.active,
            balance="worst" if rule.balance == "worst" else "even",
            expert=expert,
            choices=cost.chosen,
        )
    return found


def _is_stack(rule: Rule, cost: MatrixCost) -> bool:
    return cost.matrix.groups == rule.experts and cost.matrix.kernel == 1


def _mixtures(paths: Sequence[str], costs: Sequence[MatrixCost]) -> dict[str, tuple[str, ...]]:
    """Modules that hold matrices under several names, all alike: the names, in order of execution."""
    shapes = {cost.path: cost.matrix for cost in costs}
    held: dict[str, dict[str, set[tuple[str, int, int, int]]]] = {}
    for path in paths:
        parts, matrix = path.split("."), shapes[path]
        for depth, child in enumerate(parts):
            rest = (".".join(parts[depth + 1 :]), matrix.rows, matrix.columns, matrix.groups)
            held.setdefault(".".join(parts[:depth]), {}).setdefault(child, set()).add(rest)
    return {
        module: tuple(children)
        for module, children in held.items()
        if len(children) > 1 and len({frozenset(holding) for holding in children.values()}) == 1
    }


def _place(rule: Rule, cost: MatrixCost, mixtures: dict[str, tuple[str, ...]]) -> tuple[str, int]:
    """(mixture, which expert) of a matrix: the innermost module with so many alike."""
    parts = cost.path.split(".")
    inside = [".".join(parts[:depth]) for depth in reversed(range(len(parts)))]
    for module in inside:
        children = mixtures.get(module, ())
        if len(children) == rule.experts:
            child = parts[module.count(".") + 1 if module else 0]
            return module, children.index(child)
    near = next((module for module in inside if module in mixtures), None)
    there = (
        f"{near or 'the network'!r} holds {len(mixtures[near])} alike ({', '.join(mixtures[near][:4])}"
        f"{', ...' if len(mixtures[near]) > 4 else ''})"
        if near is not None
        else "nothing beside it is like it"
    )
    raise RuleError(
        f"{rule.title} says experts: {rule.experts}, but {cost.op!r} ({cost.matrix.rows} x {cost.matrix.columns}) is "
        f"no part of a mixture of so many: {there}. Experts are matrices at as many places of one module "
        "(experts.0.w1, experts.1.w1, ...), or the groups of a stack: match them alone, and give their number"
    )
