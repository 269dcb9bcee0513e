"""A prepared network on a manufactured and programmed chip, in its own place."""

from collections.abc import Iterator
from contextlib import contextmanager

from aimc_compiler.analog import MatrixOnTiles
from aimc_compiler.executor.on_tiles import Clock
from aimc_compiler.training.attached import Attached, Calls
from aimc_compiler.training.aware import HardwareAware, require_prepared
from aimc_compiler.training.layers import OneMatrix, TrainedLayer, layers_of
from aimc_compiler.training.matrix import TrainedMatrix


@contextmanager
def on_chip(
    model: HardwareAware,
    seed: int = 0,
    *,
    chip_index: int = 0,
    time_s: float = 0.0,
    recalibrated_s: float | None = None,
) -> Iterator[Clock]:
    """Within it, ``model`` runs on a manufactured and programmed chip, that of ``CompiledModel.deploy`` of this seed.

    Batch norms are not folded here and so act after rounding; all else is what the compiled network computes. Samples
    are numbered along the batch dimension of the first tensor that the network is called with.
    Raises TrainingError where the network is not prepared.
    """
    require_prepared(model)
    clock = Clock()
    clock.time_s, clock.recalibrated_s = time_s, recalibrated_s
    held = [(layer, name, core) for layer in layers_of(model) for name, core in layer.cores().items()]
    model.hwa.clock = clock
    calls: dict[str, Calls] = {}
    # Layers of several matrices have samples first themselves, and the layers within them, too.
    within = {id(part) for layer, *_ in held for part in layer.modules() if not isinstance(layer, OneMatrix)}
    dim = model.hwa.batch_dim if isinstance(model.hwa.batch_dim, int) else 0
    try:
        for layer, name, core in held:
            made = _on_tiles(layer, name, core, seed, chip_index)
            ranges, axis = core.ranges() if core.normalised else None, 0 if id(layer) in within else dim
            core.attach(Attached(made, ranges, clock, calls.setdefault(core.name, Calls()), axis))
        yield clock
    finally:
        model.hwa.clock = None
        for _, _, core in held:
            core.attach(None)


def _on_tiles(layer: TrainedLayer, name: str, core: TrainedMatrix, seed: int, chip_index: int) -> MatrixOnTiles:
    """The matrix of a layer, of this name, on its tiles of a chip."""
    weight = core.mapped(layer.blocks(name))
    return MatrixOnTiles(
        weight,
        core.contraction,
        core.pieces,
        core.chip.tile_types[core.tile_type],
        core.chip.nonidealities,
        seed=seed,
        chip=chip_index,
        dtype=weight.dtype,
    )
