"""`compile`: capture, partition, lower, map and program, each level verified before the next is made."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from aimc_compiler.calibration import RangeMethod
from aimc_compiler.chip import ChipSpec, load_chip
from aimc_compiler.compiler.compiled import Calibration, CompiledModel
from aimc_compiler.compiler.entries import ONLY, read_calibration, read_entries
from aimc_compiler.compiler.learned import exported, learned_ranges
from aimc_compiler.errors import CaptureError, DoesNotFitError
from aimc_compiler.executor import CompiledEntry
from aimc_compiler.graph import BatchDim, Entry, Graph, Rules, capture_entries, lower_entries, partition
from aimc_compiler.mapping import DoesNotFit, map_entries, verify_entries
from aimc_compiler.program import lower_mapping, verify_program
from aimc_compiler.records import without_collection
from aimc_compiler.workload import verify_workload


def compile_model(
    model: nn.Module,
    chip: ChipSpec | str | Path,
    example_inputs: Sequence[Any] | None = None,
    calibration: Calibration | None = None,
    *,
    example_kwargs: Mapping[str, Any] | None = None,
    batch_dim: int | Sequence[int | None] | None = 0,
    rules: Rules | None = None,
    objective: str = "tiles",
    limits: Mapping[str, int] | None = None,
    entries: Mapping[str, Entry | Sequence[Any]] | None = None,
    range_method: str = "percentile:99.9",
    output_ranges: str | None = None,
    seed: int = 0,
) -> CompiledModel:
    """Compile a trained network for a chip.

    model: in evaluation mode, unchanged by this call; of one from ``prepare_hwa``, rules and learned input ranges are
    taken over where none are given here. chip: a spec, a built-in name or a path. example_inputs: one
    call's positional inputs (``example_kwargs`` its keyword inputs), of the shapes the program is for. calibration:
    batches of inputs that set the input ranges by ``range_method`` ("percentile:P", "k-sigma:K", "mse", "max"); without
    it mapping and timing work and running analog is an error. output_ranges: how the bounds of output converters are
    set where the chip's ``adc.out_bound`` is calibrated, one of the same (default "mse"). batch_dim: the
    batch dimension, one for all inputs or one each; None where the whole example is one sample. rules: the name
    of a preset, or patterns on module paths with settings, first match wins (``graph.partition``). entries: in the
    place of example_inputs several ways to call the network, by name: of each the positional inputs of one call, or an
    ``Entry``. Their matrices are mapped once and share the chip's tiles; each has a program of its own. calibration is
    then a mapping from entries to batches. seed: default of ``deploy``.

    Raises CaptureError, BatchError, UnsupportedOpError, RuleError, SpecError, CalibrationError, and DoesNotFitError
    whose ``reason`` is the DoesNotFit value.

    Example:
        >>> compiled = aimc.compile(model, "hermes", (images[:1],), calibration=images.split(100))
    """
    model, learned = exported(model)
    rules = learned.rules if rules is None and learned is not None else rules
    if not isinstance(model, nn.Module):
        raise CaptureError(f"model is a {type(model).__name__}, no torch.nn.Module: give the network itself")
    wanted = _wanted(example_inputs, example_kwargs, _dims(batch_dim), entries)
    RangeMethod.parse(range_method)
    if output_ranges is not None:
        RangeMethod.parse(output_ranges)
    data = None if calibration is None else read_calibration(calibration, tuple(wanted))
    spec = chip if isinstance(chip, ChipSpec) else load_chip(chip)
    graphs = capture_entries(model, wanted)
    made = _place(graphs, rules or (), spec, objective, limits)
    ranges = learned_ranges(learned, made) if learned is not None and data is None else None
    compiled = CompiledModel(entries=made, chip=spec, ranges=ranges, seed=seed)
    return compiled if data is None else compiled.calibrate(data, range_method, output_ranges)


def _wanted(
    example_inputs: Sequence[Any] | None,
    example_kwargs: Mapping[str, Any] | None,
    batch_dim: BatchDim,
    entries: Mapping[str, Any] | None,
) -> dict[str, Entry]:
    """The entries by name."""
    if entries is not None:
        if example_inputs is not None or example_kwargs is not None:
            raise CaptureError(
                "example_inputs and entries both say how the network is called: give one of them, the inputs as an "
                "entry of their own"
            )
        return read_entries(entries, batch_dim)
    if example_inputs is None:
        raise CaptureError("example_inputs is missing: give the inputs of one call as a tuple, example_inputs=(x,)")
    if isinstance(example_inputs, Tensor):
        raise CaptureError("example_inputs is a tensor: give the inputs of one call as a tuple, example_inputs=(x,)")
    return {ONLY: Entry(inputs=tuple(example_inputs), kwargs=example_kwargs, batch_dim=batch_dim)}


def _place(
    graphs: Mapping[str, Graph], rules: Rules, spec: ChipSpec, objective: str, limits: Mapping[str, int] | None
) -> list[CompiledEntry]:
    """The entries on the tiles that they share: one partition and one mapping, a program each."""
    held = tuple(graphs.values())
    workloads = lower_entries(held, partition(held, rules, spec))
    for workload in workloads:
        verify_workload(workload)
    with without_collection():
        mappings = map_entries(workloads, spec, objective=objective, limits=limits)
        if isinstance(mappings, DoesNotFit):
            raise DoesNotFitError(mappings)
        verify_entries(mappings, workloads, spec)
        entries = []
        for (name, graph), workload, mapping in zip(graphs.items(), workloads, mappings, strict=True):
            program = lower_mapping(workload, mapping, spec)
            verify_program(program)
            entries.append(
                CompiledEntry(name=name, graph=graph, workload=workload, mapping=mapping, program=program, chip=spec)
            )
    return entries


def _dims(batch_dim: int | Sequence[int | None] | None) -> BatchDim:
    return batch_dim if batch_dim is None or isinstance(batch_dim, int) else tuple(batch_dim)
