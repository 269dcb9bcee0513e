"""A* of one network on the same chips, changed in one thing or another."""

from collections.abc import Sequence

from aimc_compiler.analog.fast import Precision
from aimc_compiler.chip import ChipSpec
from aimc_compiler.compiler import CompiledModel
from aimc_compiler.errors import DataError
from aimc_compiler.executor import Device
from aimc_compiler.executor.exempt import Exempt
from aimc_compiler.metrics import normalised
from aimc_compiler.study.bench import Bench
from aimc_compiler.study.recalibration import Recalibration


class ChipScores:
    """Scores chips 0 to n_chips - 1 of a seed: whatever is changed, they share every draw (common random numbers), so
    that differences are those of the change."""

    def __init__(
        self,
        compiled: CompiledModel,
        bench: Bench,
        chance: float | None,
        baseline: float | None,
        n_chips: int,
        seed: int,
        time_s: float,
        policy: Recalibration,
        precision: Precision,
    ) -> None:
        self.compiled, self.n_chips, self.seed, self.time_s = compiled, n_chips, seed, time_s
        self.bench, self.policy, self.precision = bench, policy, precision
        base = bench.chance() if chance is None else chance
        if base is None:
            raise DataError(f"metric {bench.metric_name!r} says nothing of chance, which A* needs: give chance=...")
        self.float_metric, self.chance = bench.float_metric(), base
        self.baseline = self.float_metric if baseline is None else baseline
        if not self.baseline > base:
            whose = "float network" if baseline is None else "baseline"
            raise DataError(
                f"the {whose} reaches {self.baseline:g} and chance {base:g}, so there is no A* to lose: check the "
                "data, the metric and chance"
            )

    @property
    def float_a_star(self) -> float:
        """Of the network in floating point: 1, but for another baseline."""
        return self._normalised(self.float_metric)

    def of(self, chip: ChipSpec | None = None, time_s: float | None = None) -> tuple[float, ...]:
        """A* of every chip; chip: with other nonidealities. Raises SpecError, NotBuiltError as ``deploy``."""
        compiled = self.compiled if chip is None else self.compiled.with_chip(chip)
        return tuple(self._score(self._deployed(compiled, index), time_s) for index in range(self.n_chips))

    def exempting(self, choices: Sequence[Exempt]) -> list[tuple[float, ...]]:
        """A* of every chip for each choice of what is exempt from it."""
        found: list[list[float]] = [[] for _ in choices]
        for index in range(self.n_chips):
            device = self._deployed(self.compiled, index)
            for values, choice in zip(found, choices, strict=True):
                device.exempt(choice)
                values.append(self._score(device, None))
        return [tuple(values) for values in found]

    def deployed(self, index: int) -> Device:
        """One more chip of the series, as it is."""
        device = self._deployed(self.compiled, index)
        device.recalibrate(self.policy.last_s(self.time_s))
        return device

    def _deployed(self, compiled: CompiledModel, index: int) -> Device:
        return compiled.deploy(self.seed, chip_index=index, precision=self.precision)

    def _score(self, device: Device, time_s: float | None) -> float:
        time_s = self.time_s if time_s is None else time_s
        device.rewind()
        device.recalibrate(self.policy.last_s(time_s))
        value = self.bench.score(device, time_s)
        return self._normalised(value)

    def _normalised(self, value: float) -> float:
        return normalised(value, float_value=self.baseline, chance=self.chance)
