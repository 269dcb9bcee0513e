"""The virtual chip: one manufactured die, programmed once, aged by the time that is asked for, read by running.

Two devices of one seed and index are the same chip. One chip asked twice at one time differs by the noise of its
MVMs alone: samples are numbered from deployment on, and their noise follows their number.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from aimc_compiler.analog import Contraction, MatrixOnTiles
from aimc_compiler.chip import ChipSpec
from aimc_compiler.errors import AimcError, InternalError
from aimc_compiler.executor.ranges import InputRanges
from aimc_compiler.graph import Graph, MatrixModule
from aimc_compiler.graph.values import tensor_of
from aimc_compiler.mapping import Mapping
from aimc_compiler.program import Program, Timing
from aimc_compiler.records import record
from aimc_compiler.workload import MatrixOp, Workload


@record
class Counts:
    """What a run did: samples, and the MVMs of all pieces."""

    samples: int
    mvms: int


@record
class ProgrammingCost:
    """What writing the weights took. pulses: of all devices; time_s: all tiles at once, rows one after another."""

    pulses: int
    time_s: float
    energy_j: float


@record
class RunResult:
    """outputs: like the model's own; timing: of one sample; energy_j: of all samples of this run; counts: of it."""

    outputs: Any
    timing: Timing
    energy_j: float
    counts: Counts


class Device:
    """One programmed chip; made by ``CompiledModel.deploy``.

    Calling it runs samples: ``device(x, time_s=3600.0)`` gives outputs like the model's own.
    """

    def __init__(
        self,
        *,
        graph: Graph,
        workload: Workload,
        mapping: Mapping,
        program: Program,
        chip: ChipSpec,
        ranges: InputRanges | None,
        timing: Callable[[], Timing],
        seed: int,
        chip_index: int = 0,
        torch_device: torch.device | str = "cpu",
    ) -> None:
        self.seed, self.chip_index = seed, chip_index
        self._timing = timing
        self._events = _mvm_events(program)
        self._conversions = sum(task.events * task.adc_conversions for task in program.tasks)
        self._clock = _Clock()
        self._write_verify = chip.nonidealities.device.write_verify
        modules = graph.matrix_modules()
        calls: dict[str, int] = {}
        self._ops: dict[str, _OnTiles] = {}
        for op in workload.analog_ops:
            tiles = _matrix_on_tiles(op, modules[op.name], mapping, chip, seed, chip_index).to(torch_device)
            scale = None if ranges is None else ranges.of(op.name)
            axis = _batch_axis(graph, op.name)
            self._ops[op.name] = _OnTiles(tiles, scale, self._clock, calls.get(op.matrix, 0), axis)
            calls[op.matrix] = calls.get(op.matrix, 0) + op.windows
        self._graph = graph.with_modules(dict(self._ops))

    @property
    def samples(self) -> int:
        """Samples run since deployment."""
        return self._clock.first_sample

    def __call__(self, *args: Any, time_s: float = 0.0, **kwargs: Any) -> Any:
        """Outputs, structured like the model's own, ``time_s`` seconds after programming.

        Inputs are those of the network, any number of samples along the batch dimension.
        """
        count = self._graph.sample_count(*args, **kwargs)
        before = {name: op.tiles.mvms for name, op in self._ops.items()}
        conversions = sum(op.tiles.adc_conversions for op in self._ops.values())
        self._clock.time_s, self._clock.count = time_s, count
        with torch.no_grad():
            outputs = self._graph(*args, **kwargs)
        self._clock.first_sample += count
        self._check(before, conversions, count)
        return outputs

    def run(self, *args: Any, time_s: float = 0.0, **kwargs: Any) -> RunResult:
        """Outputs together with the time, energy and counts of the program that made them."""
        before = sum(op.tiles.mvms for op in self._ops.values())
        first = self.samples
        outputs = self(*args, time_s=time_s, **kwargs)
        samples = self.samples - first
        timing = self._timing()
        mvms = sum(op.tiles.mvms for op in self._ops.values()) - before
        return RunResult(
            outputs=outputs,
            timing=timing,
            energy_j=samples * timing.energy_j,
            counts=Counts(samples=samples, mvms=mvms),
        )

    def recalibrate(self, time_s: float | None) -> None:
        """Read the tiles for drift compensation at ``time_s`` seconds after programming and keep those factors.

        None goes back to the default: the tiles are read at every time that is asked for.
        """
        self._clock.recalibrated_s = time_s

    def rewind(self) -> None:
        """Number samples from 0 again: the same inputs then give the same bytes."""
        self._clock.first_sample = 0

    def conductances(self, op: str, time_s: float) -> Tensor:
        """(groups, columns, rows) normalised weights of one operation as the devices hold them at ``time_s``."""
        return self._ops[op].tiles.state(time_s, self._clock.recalibrated_s).weights

    def compensation(self, op: str, time_s: float) -> Tensor:
        """(row blocks, groups, columns) drift-compensation factors of one operation at ``time_s``."""
        return self._ops[op].tiles.state(time_s, self._clock.recalibrated_s).alpha

    def programming(self) -> ProgrammingCost:
        """Pulses, time and energy of programming this chip, by write-verify.

        Raises AimcError where the chip has no ``nonidealities.device.write_verify``, whose figures price a pulse.
        """
        rule = self._write_verify
        if rule is None:
            raise AimcError(
                "this chip is written once, without pulses to count: give nonidealities.device.write_verify "
                "(tolerance, max_pulses, pulse_time, pulse_energy), or see tile.programming of its spec"
            )
        pulses, in_turn = 0, dict[int, int]()
        programmed = {op.tiles.name: op.tiles for op in self._ops.values()}
        for tiles in programmed.values():
            for tile, (total, steps) in tiles.programming().items():
                pulses += total
                in_turn[tile] = in_turn.get(tile, 0) + steps
        time_s = max(in_turn.values(), default=0) * rule.pulse_time_s
        return ProgrammingCost(pulses=pulses, time_s=time_s, energy_j=pulses * rule.pulse_energy_j)

    def _check(self, before: dict[str, int], conversions: int, samples: int) -> None:
        """The numerics and the program are one description: their MVMs and conversions agree."""
        for name, op in self._ops.items():
            done, planned = op.tiles.mvms - before[name], samples * self._events[name]
            if done != planned:
                raise InternalError(f"{name}: {done} MVMs were computed, the program has {planned}")
        converted = sum(op.tiles.adc_conversions for op in self._ops.values()) - conversions
        if converted != samples * self._conversions:
            raise InternalError(f"{converted} outputs were converted, the program has {samples * self._conversions}")


class _Clock:
    """What changes from run to run, shared by all operations of a device."""

    def __init__(self) -> None:
        self.time_s = 0.0
        self.recalibrated_s: float | None = None
        self.first_sample = 0
        self.count = 1


class _OnTiles(nn.Module):
    """A matrix operation of the graph, run on its tiles."""

    def __init__(
        self, tiles: MatrixOnTiles, ranges: Tensor | None, clock: _Clock, first_call: int, batch_axis: int
    ) -> None:
        super().__init__()
        self.tiles, self.ranges, self.clock = tiles, ranges, clock
        self.first_call, self.batch_axis = first_call, batch_axis

    def forward(self, x: Tensor) -> Tensor:
        """x: the operation's input; returns its output in the same dtype."""
        y = self.tiles.forward(
            x.movedim(self.batch_axis, 0),
            self.ranges,
            self.clock.time_s,
            recalibrated_s=self.clock.recalibrated_s,
            first_sample=self.clock.first_sample,
            first_call=self.first_call,
            samples=self.clock.count,
        )
        return y.movedim(0, self.batch_axis).to(x.dtype)


def _matrix_on_tiles(
    op: MatrixOp, module: MatrixModule, mapping: Mapping, chip: ChipSpec, seed: int, chip_index: int
) -> MatrixOnTiles:
    return MatrixOnTiles(
        module.blocks(),
        contraction_of(module),
        mapping.pieces_of(op.matrix),
        chip.tile_types[op.tile_type],
        chip.nonidealities,
        factor=module.factor,
        bias=module.bias,
        seed=seed,
        chip=chip_index,
        dtype=module.weight.dtype,
    )


def contraction_of(module: MatrixModule) -> Contraction:
    """How the matrix of a module meets its inputs."""
    return Contraction(
        kind=module.kind,
        kernel=module.kernel,
        stride=module.stride,
        padding=module.padding,
        dilation=module.dilation,
    )


def _batch_axis(graph: Graph, op: str) -> int:
    """The axis of the operation's input that counts samples; 0 where the batch is folded into the first axis."""
    operand = graph.matrix_nodes()[op].args[0]
    value = tensor_of(operand) if isinstance(operand, fx.Node) else None
    return 0 if value is None or value.batch is None else value.batch


def _mvm_events(program: Program) -> dict[str, int]:
    """MVMs a sample of each operation."""
    events: dict[str, int] = {}
    for task in program.tasks:
        if task.mvms:
            events[task.op] = events.get(task.op, 0) + task.events * task.mvms
    return events
