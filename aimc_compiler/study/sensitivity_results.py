"""What a sensitivity study found. A* is normalised accuracy, as a fraction."""

from typing import Literal

from aimc_compiler.records import record
from aimc_compiler.study.confidence import Estimate
from aimc_compiler.study.tolerance import Tolerance


@record
class EqualError:
    """An effect at the level that gives the tile the asked MVM error. value: its figure there, of a converter between
    two whole bits; factor: on the chip's own, None where it has the effect off or goes by bits; mvm_error: reached;
    loss: of A* against the chip as it is, on the same chips."""

    value: float
    factor: float | None
    mvm_error: float
    loss: Estimate


@record
class EffectSensitivity:
    """One effect, or several scaled together. kind: "factor", "value" (the chip has it off), "bits", "switch"; figure:
    the chip's own; without: gain of A* where it is off, None where it is off already; equal: at equal MVM error;
    tolerance: its levels are factors, figures or bits by ``kind``; notes: what could not be had, and why."""

    name: str
    title: str
    effects: tuple[str, ...]
    kind: Literal["factor", "value", "bits", "switch"]
    figure: bool | float | int | str
    unit: str
    without: Estimate | None
    equal: EqualError | None
    tolerance: Tolerance | None
    notes: tuple[str, ...]


@record
class LayerSensitivity:
    """One matrix. operations: that multiply by it; parameters: weights; gain: of A* where it alone is exempt; alone:
    loss of A* against the float network where all others are exempt."""

    matrix: str
    operations: tuple[str, ...]
    parameters: int
    gain: Estimate
    alone: Estimate


@record
class ProtectedPoint:
    """Something exempt from the chip's effects. count: of layers or columns; parameters: share of all on tiles."""

    count: int
    parameters: float
    a_star: Estimate


@record
class ColumnShare:
    """One output of an operation. share: of the summed squared first-order changes of the loss of all outputs."""

    operation: str
    output: int
    share: float


@record
class ColumnSensitivity:
    """Outputs by what their errors change the loss, first order. top: the first of them; protected: the first so many
    exempt; random: as many drawn by chance; left_out: operations without a gradient of their own."""

    columns: int
    top: tuple[ColumnShare, ...]
    protected: tuple[ProtectedPoint, ...]
    random: tuple[ProtectedPoint, ...]
    left_out: tuple[str, ...]


@record
class SweepPoint:
    """value: of what is swept; a_star: None where the chip cannot be had, for the reason in ``note``."""

    value: float
    a_star: Estimate | None
    note: str = ""


@record
class SensitivitySweep:
    """A* over one figure of the chip. unit: of the values; own: the chip's value, None where there is none."""

    name: str
    title: str
    unit: str
    own: float | None
    points: tuple[SweepPoint, ...]


@record
class Sensitivity:
    """float_metric: of the network in floating point; baseline, chance: what A* takes for 1 and 0; a_star: of the
    chip as it is; mvm_error: of its tile, and target_error: what effects are scaled to; threshold: of A*,
    asked_threshold where the chip itself reaches it; layers_protected: most sensitive layers exempt, one more at
    each point."""

    network: str
    chip: str
    entry: str
    metric: str
    time_s: float
    n_chips: int
    n_samples: int
    seed: int
    recalibration: str
    precision: str
    confidence: float
    float_metric: float
    baseline: float
    chance: float
    a_star: Estimate
    mvm_error: float | None
    target_error: float | None
    threshold: float
    asked_threshold: float
    effects: tuple[EffectSensitivity, ...]
    layers: tuple[LayerSensitivity, ...]
    layers_protected: tuple[ProtectedPoint, ...]
    columns: ColumnSensitivity | None
    sweeps: tuple[SensitivitySweep, ...]
    notes: tuple[str, ...] = ()
