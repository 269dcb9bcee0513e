"""`compile`: capture, partition, lower, map and program, each level verified before the next is made."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from aimc_compiler.calibration import RangeMethod
from aimc_compiler.chip import ChipSpec, load_chip
from aimc_compiler.compiler.compiled import CompiledModel
from aimc_compiler.compiler.learned import exported, learned_ranges
from aimc_compiler.errors import CaptureError, DoesNotFitError, NotBuiltError
from aimc_compiler.graph import Rules, capture, lower, partition
from aimc_compiler.mapping import DoesNotFit, map_workload, verify_mapping
from aimc_compiler.program import lower_mapping, verify_program
from aimc_compiler.records import without_collection
from aimc_compiler.workload import verify_workload


def compile_model(
    model: nn.Module,
    chip: ChipSpec | str | Path,
    example_inputs: Sequence[Any],
    calibration: Iterable[Any] | None = None,
    *,
    example_kwargs: Mapping[str, Any] | None = None,
    batch_dim: int | Sequence[int] | None = 0,
    rules: Rules | None = None,
    objective: str = "tiles",
    limits: Mapping[str, int] | None = None,
    entries: Mapping[str, Any] | None = None,
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
    of a preset, or patterns on module paths with settings, first match wins (``graph.partition``). seed: default of
    ``deploy``.

    Raises CaptureError, BatchError, UnsupportedOpError, RuleError, SpecError, CalibrationError, and DoesNotFitError
    whose ``reason`` is the DoesNotFit value.

    Example:
        >>> compiled = aimc.compile(model, "hermes", (images[:1],), calibration=images.split(100))
    """
    if entries is not None:
        raise NotBuiltError("entries: several named entries of one program are not built yet; compile one at a time")
    model, learned = exported(model)
    rules = learned.rules if rules is None and learned is not None else rules
    if not isinstance(model, nn.Module):
        raise CaptureError(f"model is a {type(model).__name__}, no torch.nn.Module: give the network itself")
    if isinstance(example_inputs, Tensor):
        raise CaptureError("example_inputs is a tensor: give the inputs of one call as a tuple, example_inputs=(x,)")
    RangeMethod.parse(range_method)
    if output_ranges is not None:
        RangeMethod.parse(output_ranges)
    spec = chip if isinstance(chip, ChipSpec) else load_chip(chip)
    graph = capture(model, tuple(example_inputs), example_kwargs=dict(example_kwargs or {}), batch_dim=_dims(batch_dim))
    workload = lower(graph, partition(graph, rules or (), spec))
    verify_workload(workload)
    with without_collection():
        mapping = map_workload(workload, spec, objective=objective, limits=limits)
        if isinstance(mapping, DoesNotFit):
            raise DoesNotFitError(mapping)
        verify_mapping(mapping, workload, spec)
        program = lower_mapping(workload, mapping, spec)
        verify_program(program)
    ranges = learned_ranges(learned, workload, mapping) if learned is not None and calibration is None else None
    compiled = CompiledModel(
        graph=graph, workload=workload, mapping=mapping, program=program, chip=spec, ranges=ranges, seed=seed
    )
    return compiled if calibration is None else compiled.calibrate(calibration, range_method, output_ranges)


def _dims(batch_dim: int | Sequence[int] | None) -> int | tuple[int, ...] | None:
    return batch_dim if batch_dim is None or isinstance(batch_dim, int) else tuple(batch_dim)
