"""One entry of a compiled network: its levels, and what they cost."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property

from aimc_compiler.chip import ChipSpec
from aimc_compiler.errors import DataError
from aimc_compiler.graph import Graph
from aimc_compiler.mapping import Mapping, Utilization, measure_utilization
from aimc_compiler.program import Program, Timing, simulate
from aimc_compiler.workload import Workload


@dataclass(frozen=True, kw_only=True)
class CompiledEntry:
    """One way to call a compiled network. mapping: the pieces of all entries, at the sites that they share, and the
    digital units of this one."""

    name: str
    graph: Graph
    workload: Workload
    mapping: Mapping
    program: Program
    chip: ChipSpec

    @cached_property
    def timing(self) -> Timing:
        """Latency, interval, energy, bounds and busy time of each resource, per sample of this entry."""
        return simulate(self.program)

    @cached_property
    def utilization(self) -> Utilization:
        """Cells used per tile, per layer, in total, of the matrices that this entry multiplies by."""
        own = {op.matrix for op in self.workload.analog_ops}
        pieces = tuple(piece for piece in self.mapping.pieces if piece.matrix in own)
        return measure_utilization(replace(self.mapping, pieces=pieces), self.chip)


def find_entry(names: Sequence[str], name: str | None) -> str:
    """The entry of this name, the first for None. Raises DataError where there is none of it."""
    if name is None:
        return names[0]
    if name in names:
        return name
    close = get_close_matches(name, names, n=1) if isinstance(name, str) else []
    hint = f"did you mean {close[0]!r}?" if close else f"there is {', '.join(map(repr, names))}"
    raise DataError(f"this program has no entry {name!r}: {hint}")
