"""What writing the weights of a chip took, where it is written and verified pulse by pulse."""

from collections.abc import Iterable

from aimc_compiler.analog import MatrixOnTiles
from aimc_compiler.chip.stored import WriteVerify
from aimc_compiler.errors import AimcError
from aimc_compiler.records import record


@record
class ProgrammingCost:
    """What writing the weights took. pulses: of all devices; time_s: all tiles at once, rows one after another."""

    pulses: int
    time_s: float
    energy_j: float


def programming_cost(rule: WriteVerify | None, matrices: Iterable[MatrixOnTiles]) -> ProgrammingCost:
    """Of matrices on one chip; operations may share one, which is written once. Raises AimcError without a rule."""
    if rule is None:
        raise AimcError(
            "this chip is written once, without pulses to count: give nonidealities.device.write_verify "
            "(tolerance, max_pulses, pulse_time, pulse_energy), or see tile.programming of its spec"
        )
    pulses, in_turn = 0, dict[int, int]()
    for tiles in {tiles.name: tiles for tiles in matrices}.values():
        for tile, (total, steps) in tiles.programming().items():
            pulses += total
            in_turn[tile] = in_turn.get(tile, 0) + steps
    time_s = max(in_turn.values(), default=0) * rule.pulse_time_s
    return ProgrammingCost(pulses=pulses, time_s=time_s, energy_j=pulses * rule.pulse_energy_j)
