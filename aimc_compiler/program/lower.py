"""From a Mapping to a Program: what every tile, unit, link and port does for one sample.

Inputs enter at the host port, are multicast to the tiles whose rows they drive, partial sums meet on one tile of each
column block, digital operations run on their unit, outputs leave at the host port. Every window of a tensor is sent
once to each consumer, whose buffers keep what a sliding kernel needs again.

What an operation reads of an operation behind it, in the step before, is sent once that one is lowered: its transfers
stand behind the tasks that wait for them.
"""

from fractions import Fraction

from aimc_compiler.chip.costs import FREE
from aimc_compiler.chip.spec import ChipSpec
from aimc_compiler.errors import NotBuiltError
from aimc_compiler.mapping.bounds import bound_tiles
from aimc_compiler.mapping.ir import Mapping, Piece, UnitAssignment
from aimc_compiler.mapping.place import HOST_SITE
from aimc_compiler.mapping.ticks import class_price, unit_ticks
from aimc_compiler.program.build import SAME, Part, ProgramBuilder
from aimc_compiler.program.ir import Need, Program, Task, TaskKind
from aimc_compiler.program.lower_matrix import (
    Given,
    add_local,
    collect,
    digital_name,
    feed_analog,
    lower_analog,
    lower_digital_matrix,
)
from aimc_compiler.workload.ir import DigitalOp, MatrixOp, TensorShape, Workload


def lower_mapping(workload: Workload, mapping: Mapping, chip: ChipSpec) -> Program:
    """The Program of a mapped workload. Raises SpecError where the chip has no price for an operation."""
    lowering = _Lowering(workload, mapping, chip)
    return Program(
        workload=workload.name,
        chip=chip.name,
        tick_s=chip.clock.tick_s,
        macs=sum(op.windows * workload.matrix(op.matrix).cells for op in workload.matrix_ops),
        tiles=mapping.tiles_used,
        tiles_bound=bound_tiles(mapping, chip).tiles,
        energy_per_bit_j=chip.network.energy_per_bit_j,
        tasks=lowering.run(),
        resources=tuple(lowering.builder.resources),
        routings=workload.routings,
    )


class _Lowering:
    def __init__(self, workload: Workload, mapping: Mapping, chip: ChipSpec) -> None:
        self.workload = workload
        self.chip = chip
        self.builder = ProgramBuilder(chip, mapping)
        self.tensors = {tensor.name: tensor for tensor in workload.tensors}
        self.matrices = {matrix.name: matrix for matrix in workload.matrices}
        self.units: dict[str, UnitAssignment] = {unit.op: unit for unit in mapping.units}
        self.parts: dict[str, tuple[Part, ...]] = {}
        #: Inputs of operations in front that wait for a tensor: (operation, number of the input).
        self.feedback: dict[str, list[tuple[MatrixOp | DigitalOp, int]]] = {}
        self.pieces: dict[str, list[Piece]] = {}
        for piece in mapping.pieces:
            self.pieces.setdefault(piece.matrix, []).append(piece)

    def run(self) -> tuple[Task, ...]:
        for name in self.workload.inputs:
            self.parts[name] = self._enter(self.tensors[name])
        for op in self.workload.ops:
            self.parts[op.output] = self._lower_op(op)
            for reader, index in self.feedback.pop(op.output, ()):
                self._feed_back(reader, index)
        for name in dict.fromkeys(self.workload.outputs):
            self._leave(self.tensors[name])
        return tuple(self.builder.tasks)

    def _lower_op(self, op: MatrixOp | DigitalOp) -> tuple[Part, ...]:
        unit = self.units.get(op.name)
        if self._idle(op):
            return ()
        if isinstance(op, MatrixOp):
            matrix, inputs = self.matrices[op.matrix], self._given(op)
            if op.analog:
                number = unit.unit if unit is not None else None
                return lower_analog(self.builder, op, matrix, inputs, number, tuple(self.pieces[op.matrix]))
            return lower_digital_matrix(self.builder, op, matrix, inputs, self.units[op.name].unit)
        if op.cost_class == FREE:
            return self._view(op)
        if self.units[op.name].local:
            return tuple(self._local(op, part) for part in self.parts[op.inputs[0]])
        return self._digital(op, self.units[op.name].unit)

    def _idle(self, op: MatrixOp | DigitalOp) -> bool:
        """Whether it makes nothing: an expert that sees no token, and what reads only such experts."""
        if isinstance(op, MatrixOp) and not op.windows:
            return True
        return bool(op.inputs) and all(self.parts.get(name) == () for name in op.inputs)

    def _given(self, op: MatrixOp | DigitalOp) -> tuple[Given, ...]:
        """The inputs that are made already; the others are noted, to be fed back."""
        for index, name in enumerate(op.inputs):
            if name not in self.parts:
                self.feedback.setdefault(name, []).append((op, index))
        return tuple(self._input(op, index) for index, name in enumerate(op.inputs) if name in self.parts)

    def _input(self, op: MatrixOp | DigitalOp, index: int) -> Given:
        name, label = op.inputs[index], f" {index}"
        if isinstance(op, MatrixOp):
            label = " initial" if index else ""
        return Given(tensor=self.tensors[name], access=op.accesses[index], parts=self.parts[name], label=label)

    def _feed_back(self, op: MatrixOp | DigitalOp, index: int) -> None:
        """Sends an operation in front, step by step, what was made behind it."""
        given = self._input(op, index)
        if isinstance(op, MatrixOp) and op.analog:
            feed_analog(self.builder, op, self.matrices[op.matrix], given, tuple(self.pieces[op.matrix]))
            return
        needs = collect(self.builder, op.name, given, self.builder.unit_site(self.units[op.name].unit))
        names = [task.name for task in self.builder.tasks]
        self.builder.add_needs(names.index(digital_name(op)), needs)

    def _enter(self, tensor: TensorShape) -> tuple[Part, ...]:
        bits = tensor.width * self.chip.network.activation_bits
        task = self._port(f"{tensor.name}.input", "host in", tensor, bits, ())
        return (Part(site=HOST_SITE, first=0, width=tensor.width, task=task),)

    def _leave(self, tensor: TensorShape) -> None:
        given = Given(tensor=tensor, access=SAME, parts=self.parts[tensor.name], label=f" {tensor.name}")
        needs = collect(self.builder, "output", given, HOST_SITE)
        self._port(f"{tensor.name}.output", "host out", tensor, tensor.width * self.chip.network.activation_bits, needs)

    def _port(self, name: str, port: str, tensor: TensorShape, bits: int, needs: tuple[Need, ...]) -> int:
        """Passing the host port, which is as wide as a link. Its energy is the host's."""
        ticks = Fraction(bits, self.chip.network.link_bits_per_tick)
        resource = self.builder.resource(port, "host")
        kind: TaskKind = "output" if port == "host out" else "input"
        return self.builder.add_work(name, kind, kind, tensor.windows, resource, ticks, needs)

    def _local(self, op: DigitalOp, part: Part) -> Part:
        """An activation on the unit of the tile whose outputs it takes."""
        made_by = self.builder.tasks[part.task]
        tile = int(self.builder.resources[made_by.uses[0][0]].name.removeprefix("local "))
        task = add_local(
            self.builder,
            f"{op.name}.local[{part.first}]",
            op.name,
            made_by.events,
            tile,
            part.width,
            (Need(task=part.task),),
        )
        return Part(site=part.site, first=part.first, width=part.width, task=task)

    def _digital(self, op: DigitalOp, unit: int) -> tuple[Part, ...]:
        tensor, site = self.tensors[op.output], self.builder.unit_site(unit)
        price = class_price(self.chip, op.cost_class, op.name, op.source)
        needs = [need for given in self._given(op) for need in collect(self.builder, op.name, given, site)]
        work = Fraction(op.work, tensor.windows)
        task = self.builder.add_work(
            digital_name(op),
            "digital",
            op.name,
            tensor.windows,
            self.builder.resource(f"unit {unit}", "unit"),
            unit_ticks(price, work, self.chip),
            tuple(needs),
            (("digital", float(work) * price.energy_j),),
        )
        return (Part(site=site, first=0, width=tensor.width, task=task),)

    def _view(self, op: DigitalOp) -> tuple[Part, ...]:
        """A free operation moves nothing. Where it folds windows, its parts keep their share of a window, and wait
        for all the parts it reads.
        """
        late = [name for name in op.inputs if name not in self.parts]
        if late:
            raise NotBuiltError(
                f"{op.name!r} is free and reads {late[0]!r} of the step before: that is built for operations on tiles "
                "and units; let those behind it read it with access 'previous'"
            )
        tensor = self.tensors[op.output]
        sources = [self.tensors[name] for name in op.inputs]
        parts = [part for name in op.inputs for part in self.parts[name]]
        shapes = {(source.windows, source.width) for source in sources}
        if len(sources) == 1 and shapes == {(tensor.windows, tensor.width)} and op.accesses[0].kind == "same":
            return tuple(parts)
        needs = tuple(
            Need(task=part.task, access=access)
            for name, access in zip(op.inputs, op.accesses, strict=True)
            for part in self.parts[name]
        )
        total = sum(source.width for source in sources)
        viewed, before = [], 0
        for part in parts:
            first, last = (edge * tensor.width // total for edge in (before, before + part.width))
            before += part.width
            if last > first:
                name = f"{op.name}.view[{first}]"
                task = self.builder.add(Task(name=name, kind="view", op=op.name, events=tensor.windows, needs=needs))
                viewed.append(Part(site=part.site, first=first, width=last - first, task=task))
        return tuple(viewed)
