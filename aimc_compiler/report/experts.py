"""What is assumed of mixtures of experts, in words: time, energy and counts are of it, values are not."""

from collections.abc import Iterable
from typing import Any

from aimc_compiler.compiler import CompiledModel
from aimc_compiler.executor import CompiledEntry
from aimc_compiler.workload import Routing


def mixtures_text(routings: Iterable[Routing]) -> str:
    """Mixtures of one assumption together; "" where there is none.

    >>> mixtures_text([Routing(mixture="experts", experts=8, active=2)])
    'experts: timed for 2 of 8 experts a token, balanced'
    """
    alike: dict[str, list[str]] = {}
    for routing in routings:
        alike.setdefault(routing.assumption, []).append(routing.mixture)
    return "; ".join(
        f"{names[0]}{f' and {len(names) - 1:,} more' if len(names) > 1 else ''}: timed for {assumption}"
        for assumption, names in alike.items()
    )


def mixtures_note(compiled: CompiledModel | CompiledEntry) -> str:
    """The assumption, and how many MVMs of the values it leaves out of time and energy; "" without mixtures."""
    text = mixtures_text(compiled.program.routings)
    if not text:
        return ""
    counts = mvm_counts(compiled)
    return (
        f"{text}. Values follow the true routing, and are computed with every expert for every token: "
        f"{counts['computed']:,} MVMs a sample, of which time, energy and counts are of {counts['timed']:,}"
    )


def mvm_counts(compiled: CompiledModel | CompiledEntry) -> dict[str, int]:
    """MVMs a sample: those of the program, and those that its values take."""
    pieces: dict[str, int] = {}
    for piece in compiled.mapping.pieces:
        pieces[piece.matrix] = pieces.get(piece.matrix, 0) + (piece.replica == 0)
    ops = compiled.workload.analog_ops
    return {
        "timed": sum(op.windows * pieces[op.matrix] for op in ops),
        "computed": sum(op.computed_windows * pieces[op.matrix] for op in ops),
    }


def mixtures_json(compiled: CompiledModel) -> list[dict[str, Any]]:
    """Keys of ``mixtures`` in ``inspect --json``."""
    return [
        {
            "mixture": routing.mixture,
            "experts": routing.experts,
            "active": routing.active,
            "balance": routing.balance,
            "assumption": routing.assumption,
        }
        for routing in compiled.program.routings
    ]
