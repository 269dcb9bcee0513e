"""The chip spec: what a chip is made of, in SI inside and with units in YAML.

``docs/chip-spec.md`` documents every key; it is generated from the descriptions here. Cells are *unit cells*: one
weight's worth of devices at one crossing, unless ``rows_per_weight`` or ``slices`` say that a weight takes several.
Figures that must agree with one another are compared in ``checks.py``.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    StringConstraints,
    model_validator,
)

from aimc_compiler.chip import checks
from aimc_compiler.chip.costs import CostClass
from aimc_compiler.chip.quantity import (
    Age,
    Bytes,
    Joules,
    Ohms,
    Rate,
    Seconds,
    Siemens,
    SpecModel,
    SquareMetres,
    raise_faults,
)

#: Resolution of a converter: 1 bit would have no step, and fp32 holds no more than 24.
Bits = Annotated[int, Field(ge=2, le=24)]
#: A name that stands in dotted paths.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+$")]


class Clock(SpecModel):
    tick_s: Seconds = Field(alias="tick", gt=0, description="time step of the schedule; all times are rounded up to it")


class CustomDevice(SpecModel):
    programming_us: tuple[float, ...] = Field(
        alias="programming", description="sd of the programmed conductance in uS, polynomial in r = g/g_max from r^0 up"
    )
    drift_mean: tuple[float, ...] = Field((), description="mean of the drift exponent, polynomial in r; none: no drift")
    drift_sd: tuple[float, ...] = Field((), description="sd of the drift exponent, polynomial in r")
    read: tuple[float, ...] = Field((), description="amplitude Q of the 1/f read noise, polynomial in r")
    t0_s: Seconds = Field(20.0, alias="t0", gt=0, description="from programming to the first read")
    t_read_s: Seconds = Field(250e-9, alias="t_read", gt=0, description="duration of a read")


class Device(SpecModel):
    model: str = Field(description="device model: a name in `aimc_compiler.chip.DEVICES`, or one registered there")
    g_max_s: Siemens = Field(alias="g_max", gt=0, description="largest target conductance")
    custom: CustomDevice | None = Field(None, description="statistics of `model: custom`")
    extrapolate: Literal["error", "hold"] | None = Field(
        None, description="after the last fit of reram_wan2022: refuse (the default), or hold the last fit"
    )
    pairs: PositiveInt = Field(1, description="differential pairs a weight")
    significance: tuple[PositiveFloat, ...] | None = Field(
        None, description="what each pair counts, of any sum; all pairs hold the same target; none: all alike"
    )
    slices: PositiveInt = Field(1, description="columns a weight: its bits cut over several cells")
    bits_per_slice: PositiveInt | None = Field(None, description="bits a cell where slices > 1")
    encoding: Literal["differential", "offset_column"] = Field("differential", description="how signs are stored")
    flip_columns: bool = Field(
        False, description="offset_column: a column more than half full stores the complement, for one bit less out"
    )
    rows_per_weight: PositiveInt = Field(1, description="adjacent rows a weight")

    @model_validator(mode="after")
    def is_known(self) -> "Device":
        raise_faults(*checks.device_is_known(self))
        return self


class Dac(SpecModel):
    bits: Bits | Literal["off"] = Field(description="resolution: 2^bits - 2 steps over twice the bound")
    input_mode: Literal["pulse_width", "amplitude", "bit_serial"] = Field(description="how a code drives a row")
    bit_code: Literal["sign_magnitude", "twos_complement"] = Field(
        "sign_magnitude", description="bit_serial: what the planes are; bits - 1 of them, or bits"
    )
    accumulate: Literal["digital", "analog"] = Field(
        "digital", description="bit_serial: convert every plane, shift and add; or add planes as charge, convert once"
    )

    @property
    def planes(self) -> int:
        """Passes through the crossbar; 0 where inputs are not bit-serial."""
        if self.input_mode != "bit_serial" or self.bits == "off":
            return 0
        return self.bits - 1 if self.bit_code == "sign_magnitude" else self.bits


class Adc(SpecModel):
    bits: Bits | Literal["off"] = Field(description="resolution: 2^bits - 2 steps over twice out_bound")
    out_bound: PositiveFloat | Literal["off"] = Field(description="largest output, in units of normalised w times x")
    signed: bool = Field(
        True, description="false: from 0 to out_bound in 2^bits - 1 steps, for columns whose outputs are not negative"
    )
    clip: bool = Field(True, description="outputs beyond out_bound are clipped to it (false: a converter without end)")
    columns_per_adc: PositiveInt = Field(1, description="columns that share a converter")

    @model_validator(mode="after")
    def has_a_step(self) -> "Adc":
        raise_faults(checks.adc_has_a_step(self))
        return self


class EnergySplit(SpecModel):
    adc: float = Field(ge=0, le=1, description="share of the output converters")
    array: float = Field(ge=0, le=1, description="share of the crossbar")
    dac: float = Field(ge=0, le=1, description="share of the input converters")

    @model_validator(mode="after")
    def sums_to_one(self) -> "EnergySplit":
        raise_faults(checks.shares_sum_to_one(self))
        return self


class MvmMode(SpecModel):
    time_s: Seconds = Field(alias="time", gt=0, description="from inputs at the tile to outputs converted")
    initiation_interval_s: Seconds = Field(
        alias="initiation_interval",
        gt=0,
        description="from one MVM to the next; shorter than time where a tile pipelines, longer where it recovers",
    )
    energy_j: Joules = Field(alias="energy", description="of one MVM of a whole tile")
    split: EnergySplit = Field(description="energy by component")


class Mvm(SpecModel):
    time_s: Seconds | None = Field(
        None, alias="time", gt=0, description="from inputs at the tile to outputs converted; not with modes"
    )
    initiation_interval_s: Seconds | None = Field(
        None, alias="initiation_interval", gt=0, description="from one MVM to the next; not with modes"
    )
    energy_j: Joules | None = Field(None, alias="energy", description="of one MVM of a whole tile; not with modes")
    split: EnergySplit | None = Field(None, description="energy by component; not with modes")
    modes: dict[Name, MvmMode] | None = Field(None, description="several ways to multiply, by name")
    mode: str | None = Field(None, description="the mode in use")
    energy_scaling: Literal["tile", "used"] = Field(
        "tile", description="tile: a partly used tile costs a whole MVM; used: shares scale with rows, columns, cells"
    )

    @model_validator(mode="after")
    def one_form(self) -> "Mvm":
        raise_faults(*checks.one_form(self))
        return self

    @property
    def active(self) -> MvmMode:
        """The mode in use."""
        if self.modes is not None and self.mode is not None:
            return self.modes[self.mode]
        assert self.time_s is not None
        assert self.initiation_interval_s is not None
        assert self.energy_j is not None
        assert self.split is not None
        return MvmMode.model_construct(
            time_s=self.time_s,
            initiation_interval_s=self.initiation_interval_s,
            energy_j=self.energy_j,
            split=self.split,
        )


class Programming(SpecModel):
    time_per_row_s: Seconds = Field(alias="time_per_row", description="to program one row of a tile")
    energy_per_cell_j: Joules = Field(alias="energy_per_cell", description="to program one cell")


class Tile(SpecModel):
    rows: PositiveInt = Field(description="unit cells down a column: inputs")
    columns: PositiveInt = Field(description="unit cells along a row: outputs")
    count: PositiveInt | Literal["auto"] = Field(description="tiles on the chip; auto: as many as the network needs")
    normalisation: Literal["column", "none"] = Field(
        "column", description="column: weights by column, inputs by a calibrated range; none: neither, no calibration"
    )
    device: Device = Field(description="what holds a weight")
    dac: Dac = Field(description="input converters")
    adc: Adc = Field(description="output converters")
    mvm: Mvm = Field(description="one matrix-vector multiplication")
    area_m2: SquareMetres | None = Field(None, alias="area", description="of one tile")
    programming: Programming | None = Field(None, description="what writing the weights takes")

    @property
    def weight_rows(self) -> int:
        """Rows of weights: the largest number of inputs of a piece."""
        return self.rows // self.device.rows_per_weight

    @property
    def weight_columns(self) -> int:
        """Columns of weights: the largest number of outputs of a piece."""
        return self.columns // self.device.slices

    @property
    def adc_conversions_per_column(self) -> int:
        """Conversions of one column of weights in one MVM: slices, and bit planes that are not added as charge."""
        planes = self.dac.planes if self.dac.accumulate == "digital" else 1
        return self.device.slices * max(1, planes)

    @model_validator(mode="after")
    def holds_a_weight(self) -> "Tile":
        raise_faults(*checks.holds_a_weight(self))
        return self


class MvmNonidealities(SpecModel):
    range_clip: bool = Field(description="inputs beyond the calibrated range are clipped to it")
    sigma_in: NonNegativeFloat = Field(description="input noise, in units of the input bound")
    sigma_out: NonNegativeFloat = Field(description="output noise, in units of normalised w times x")
    sigma_w: NonNegativeFloat = Field(description="short-term read noise")
    read_noise: Literal["pcm", "constant"] = Field(description="pcm: sd by sqrt(sum |w| x^2); constant: by ||x||")
    ir_drop: NonNegativeFloat = Field(description="factor on the IR drop; 1 is the physical one, 0 none")
    ir_drop_model: Literal["closed_form", "exact"] = Field(
        "closed_form", description="closed_form: the published formula; exact: every column solved (slow, small runs)"
    )
    ir_drop_load: Literal["spread", "aligned", "grounded"] = Field(
        "spread",
        description="exact: which cells load the wire. spread: pulses anywhere in the reading, as the formula has it; "
        "aligned: pulses begin together; grounded: off rows stay connected (so do amplitude inputs)",
    )
    r_wire_ohm: Ohms = Field(alias="r_wire", description="wire resistance between neighbouring cells of a column")
    g_ir_s: Siemens = Field(alias="g_ir", description="conductance of a full weight in the IR-drop formula")

    @model_validator(mode="after")
    def ir_drop_has_a_wire(self) -> "MvmNonidealities":
        raise_faults(*checks.ir_drop_has_a_wire(self))
        return self


class WriteVerify(SpecModel):
    tolerance: PositiveFloat = Field(description="accepted distance from the target, over g_max")
    max_pulses: PositiveInt = Field(description="after as many a device stays where it is")
    pulse_time_s: Seconds = Field(alias="pulse_time", description="of one pulse and the read that follows it")
    pulse_energy_j: Joules = Field(alias="pulse_energy", description="of one pulse and the read that follows it")


class DeviceNonidealities(SpecModel):
    programming_noise: NonNegativeFloat = Field(1.0, description="factor on the device's programming noise")
    write_verify: WriteVerify | None = Field(
        None, description="PCM: write again until a device is near its target; none: written once"
    )
    drift: NonNegativeFloat = Field(1.0, description="factor on the device's drift exponents")
    drift_tile_spread: NonNegativeFloat = Field(
        0.0, description="relative sd, from tile to tile, of a factor on all drift exponents of a tile"
    )
    accumulated_read_noise: NonNegativeFloat = Field(1.0, description="factor on the device's 1/f read noise")
    read_noise_process: Literal["independent", "log_time"] = Field(
        "independent", description="1/f read noise at two times: drawn anew at each, or one Brownian motion in ln T"
    )


class Defect(SpecModel):
    tile: NonNegativeInt = Field(description="index on the chip, as the mapping counts")
    row: NonNegativeInt = Field(description="row of weights on the tile")
    column: NonNegativeInt = Field(description="column of weights on the tile")
    polarity: Literal["plus", "minus"] = Field(description="which device of the differential pair")
    pair: NonNegativeInt = Field(0, description="which pair, where a weight has several (or which slice)")
    value: float = Field(ge=0, le=1, description="where it is stuck, over g_max")


class Defects(SpecModel):
    stuck_at_zero: float = Field(0.0, ge=0, le=1, description="share of devices that stay at zero")
    stuck_at_g_max: float = Field(0.0, ge=0, le=1, description="share of devices that stay at g_max")
    stuck_random: float = Field(0.0, ge=0, le=1, description="share of devices that stay anywhere")
    map: tuple[Defect, ...] | Literal["off"] = Field("off", description="devices known to be stuck, one by one")
    dead_rows: float = Field(0.0, ge=0, le=1, description="share of a tile's rows that pass no input")
    dead_columns: float = Field(0.0, ge=0, le=1, description="share of a tile's columns that give no current")
    dead_tiles: float = Field(0.0, ge=0, le=1, description="share of tiles that give no current")

    @model_validator(mode="after")
    def shares_are_shares(self) -> "Defects":
        raise_faults(checks.stuck_at_most_all(self))
        return self

    @property
    def stuck(self) -> float:
        """Share of devices that are stuck by chance."""
        return self.stuck_at_zero + self.stuck_at_g_max + self.stuck_random

    @property
    def dead(self) -> bool:
        """Whether lines or tiles may be dead."""
        return max(self.dead_rows, self.dead_columns, self.dead_tiles) > 0

    @property
    def any(self) -> bool:
        """Whether there are defects at all."""
        return self.stuck > 0 or self.dead or self.map != "off"


class Nonidealities(SpecModel):
    mvm: MvmNonidealities = Field(description="at every multiplication")
    device: DeviceNonidealities = Field(DeviceNonidealities(), description="of the stored weights")
    drift_compensation: Literal["off", "tile", "column", "exact"] = Field(description="what is read again, and scaled")
    defects: Defects = Field(Defects(), description="devices that never answer to programming")


class LocalDigital(SpecModel):
    ops: tuple[Literal["scale", "bias", "accumulate", "relu"], ...] = Field(description="what a tile's unit can do")
    rate: Rate = Field(description="elements a tick")
    energy_j: Joules = Field(alias="energy", description="of one element of one operation")

    @model_validator(mode="after")
    def each_once(self) -> "LocalDigital":
        raise_faults(checks.each_once(self))
        return self


class CostClassSpec(SpecModel):
    startup_s: Seconds = Field(alias="startup", description="before the first element of a window")
    rate: Rate = Field(description="elements (or multiply-accumulates) a tick")
    energy_j: Joules = Field(alias="energy", description="of one element (or multiply-accumulate)")


class DigitalUnits(SpecModel):
    count: PositiveInt = Field(description="global digital units, spread evenly over the mesh")
    cost_classes: dict[CostClass, CostClassSpec] = Field(description="price of each class of operations")


class Network(SpecModel):
    topology: Literal["mesh"] = Field(description="2-D mesh with XY routes and multicast")
    shape: tuple[PositiveInt, PositiveInt] | None = Field(None, description="rows and columns of the mesh of tiles")
    link_bits_per_tick: PositiveInt = Field(description="width of a link")
    hop_time_s: Seconds = Field(alias="hop_time", description="from one router to the next")
    energy_per_bit_j: Joules = Field(alias="energy_per_bit", description="of one bit over one hop")
    activation_bits: PositiveInt = Field(description="of one activation on a link")
    partial_sum_bits: PositiveInt = Field(16, description="of one partial sum on a link")


class Buffers(SpecModel):
    input_bytes: Bytes = Field(alias="input", description="at a tile, for the vector that waits")
    line_bytes: Bytes = Field(alias="line", description="at a tile, for the rows of a convolution's input")


class Evaluation(SpecModel):
    times_s: tuple[Age, ...] = Field(
        alias="times", min_length=1, description="times after programming that are evaluated"
    )


class Provenance(SpecModel):
    kind: Literal["published", "derived", "assumed"] = Field(
        description="published: the source states it; derived: it follows from what the source states; assumed: neither"
    )
    source: str | None = Field(None, description="key of `sources`; needed for published and derived figures")
    note: str = Field("", description="how it was derived, or why it was assumed")


class ChipSpec(SpecModel):
    """A chip. Exactly one of ``tile`` (one tile type) and ``tiles`` (several, by name) is given."""

    schema_version: Literal[1] = Field(description="version of this format")
    name: Name = Field(description="letters, digits, - and _")
    description: str = Field("", description="one sentence for people")
    sources: dict[Name, str] = Field(default_factory=dict, description="papers, by a short key")
    clock: Clock = Field(description="the time base of the schedule")
    tile: Tile | None = Field(None, description="the tile type of a chip that has one")
    tiles: dict[Name, Tile] | None = Field(None, min_length=1, description="the tile types of a chip that has several")
    nonidealities: Nonidealities = Field(description="how the analog part errs")
    local_digital: LocalDigital = Field(description="the digital unit at every tile")
    digital_units: DigitalUnits = Field(description="digital units that all tiles share")
    network: Network = Field(description="what moves vectors between tiles and units")
    buffers: Buffers = Field(description="memory at a tile")
    evaluation: Evaluation = Field(description="what `aimc run` and `evaluate` do unless told otherwise")
    provenance: dict[str, Provenance] = Field(
        default_factory=dict, description="where figures come from, by path; a section's entry covers what is below it"
    )

    @model_validator(mode="after")
    def agrees(self) -> "ChipSpec":
        raise_faults(*checks.chip_agrees(self))
        return self

    @property
    def tile_types(self) -> Mapping[str, Tile]:
        """Tile types by name; the single one is called "tile"."""
        if self.tiles is not None:
            return self.tiles
        assert self.tile is not None
        return {"tile": self.tile}
