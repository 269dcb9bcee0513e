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
from aimc_compiler.chip.stored import Defects, Device, DeviceNonidealities

#: Resolution of a converter: 1 bit would have no step, and fp32 holds no more than 24.
Bits = Annotated[int, Field(ge=2, le=24)]
#: Coefficients of a polynomial without a constant: an offset is not nonlinearity.
Curve = Annotated[tuple[float, ...], Field(min_length=1)]
#: Measured points [position, LSB], position over the converter's bound; linear between two.
Points = Annotated[tuple[tuple[float, float], ...], Field(min_length=2)]
_TABLE = "instead of inl_curve, measured: [v, LSB] from end to end, linear between; inl: 1 takes it as it is"
#: A name that stands in dotted paths.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+$")]


class Clock(SpecModel):
    tick_s: Seconds = Field(alias="tick", gt=0, description="time step of the schedule; all times are rounded up to it")


def converter_steps(bits: int) -> int:
    """A converter of b bits has 2^b - 1 levels that lie evenly about zero, so 2^b - 2 steps."""
    return int(2**bits - 2)


class Dac(SpecModel):
    bits: Bits | Literal["off"] = Field(description="resolution: 2^bits - 2 steps over twice the bound")
    input_mode: Literal["pulse_width", "amplitude", "bit_serial"] = Field(description="how a code drives a row")
    rounding: Literal["nearest", "stochastic"] = Field(
        "nearest", description="stochastic: up by chance, right on average"
    )
    inl: NonNegativeFloat = Field(0.0, description="integral nonlinearity in LSB: a factor on inl_curve or inl_table")
    inl_curve: Curve | None = Field(
        None, description="c1, c2, ...: sum c_k v^k, v the input over its bound; without a table -1, 0, 1 if left out"
    )
    inl_table: Points | None = Field(None, description=_TABLE)
    bit_code: Literal["sign_magnitude", "twos_complement"] = Field(
        "sign_magnitude", description="bit_serial: what the planes are; bits - 1 of them, or bits"
    )
    accumulate: Literal["digital", "analog"] = Field(
        "digital", description="bit_serial: convert every plane, shift and add; or add planes as charge, convert once"
    )

    @model_validator(mode="after")
    def has_one_curve(self) -> "Dac":
        raise_faults(*checks.one_curve(self, lowest=-1.0), checks.zero_drives_nothing(self))
        return self

    @property
    def steps(self) -> int | None:
        """Steps over twice the bound; None without a converter."""
        return None if self.bits == "off" else converter_steps(self.bits)

    @property
    def planes(self) -> int:
        """Passes through the crossbar; 0 where inputs are not bit-serial."""
        if self.input_mode != "bit_serial" or self.bits == "off":
            return 0
        return self.bits - 1 if self.bit_code == "sign_magnitude" else self.bits


class Adc(SpecModel):
    bits: Bits | Literal["off"] = Field(description="resolution: 2^bits - 2 steps over twice out_bound")
    out_bound: PositiveFloat | Literal["off", "calibrated"] = Field(
        description="largest output, in units of normalised w times x; calibrated: each piece's own, set by data"
    )
    signed: bool = Field(
        True, description="false: from 0 to out_bound in 2^bits - 1 steps, for columns whose outputs are not negative"
    )
    clip: bool = Field(True, description="outputs beyond out_bound are clipped to it (false: a converter without end)")
    columns_per_adc: PositiveInt = Field(1, description="columns that share a converter")
    rounding: Literal["nearest", "stochastic"] = Field(
        "nearest", description="stochastic: up by chance, right on average"
    )
    gain_std: float = Field(0.0, ge=0, le=0.14, description="standard deviation of the converters' gains about 1")
    offset_std: NonNegativeFloat = Field(
        0.0, description="standard deviation of the converters' offsets, in units of normalised w times x"
    )
    mismatch_calibrated: bool = Field(
        False, description="each converter's gain and offset were measured and are taken off digitally"
    )
    gain_residual: float = Field(
        0.0, ge=0, le=0.14, description="error of a measured gain: standard deviation over the gain"
    )
    offset_residual: NonNegativeFloat = Field(
        0.0, description="error of a measured offset: standard deviation, its units"
    )
    inl: NonNegativeFloat = Field(0.0, description="integral nonlinearity in LSB: a factor on inl_curve or inl_table")
    inl_curve: Curve | None = Field(
        None, description="c1, c2, ...: sum c_k v^k, v the output over out_bound; without a table -1, 0, 1 if left out"
    )
    inl_table: Points | None = Field(None, description=_TABLE)

    @model_validator(mode="after")
    def has_a_step(self) -> "Adc":
        raise_faults(checks.adc_has_a_step(self), *checks.one_curve(self, lowest=-1.0 if self.signed else 0.0))
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
    area_m2: SquareMetres | None = Field(None, alias="area", description="of one tile (no effect yet)")
    programming: Programming | None = Field(None, description="what writing the weights takes (no effect yet)")

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
    input_scaling: Literal["none", "constant", "abs_max", "abs_max_sums"] = Field(
        "none",
        description="input vectors are divided by a scale, results multiplied; constant: input_scaling_bound; abs_max: "
        "their largest input; abs_max_sums: more where inputs of one sign add up to large outputs",
    )
    input_scaling_bound: NonNegativeFloat = Field(
        0.0, description="constant: the scale (0: 1); abs_max: the largest scale (0: no limit); in input ranges"
    )
    input_asymmetry: float = Field(0.0, ge=0, le=1, description="share that negative inputs lose")
    output_asymmetry: float = Field(0.0, ge=0, le=1, description="share that negative outputs lose")
    v_offset_std: NonNegativeFloat = Field(
        0.0, description="voltage offset of a column, a share of the read voltage: max(0, v_offset_std xi), fixed"
    )
    r_series: NonNegativeFloat = Field(
        0.0, description="series resistance: the loss of a column per unit of output, in normalised w times x"
    )
    reference_weight: float = Field(
        -1.0, ge=-1, le=0, description="weight of the reference column that is subtracted; 0: there is none"
    )
    s_shape: NonNegativeFloat = Field(0.0, description="curvature of S-shaped converters at out_bound")
    s_shape_std: NonNegativeFloat = Field(0.0, description="its spread from converter to converter, a share of s_shape")
    slope_calibration: NonNegativeFloat = Field(
        0.0, description="share of out_bound at which the slope lost to S-shape and series resistance is given back"
    )
    sigma_out_spread: NonNegativeFloat = Field(
        0.0, description="spread of the output noise from converter to converter, a share of sigma_out"
    )
    passes: Literal["one", "analog", "digital"] = Field(
        "one",
        description="analog, digital: positive and negative inputs one after the other, summed before or after the ADC",
    )
    bound_management: bool = Field(
        False, description="a tile repeats a multiplication whose output clips, with halved inputs"
    )

    @model_validator(mode="after")
    def ir_drop_has_a_wire(self) -> "MvmNonidealities":
        raise_faults(*checks.ir_drop_has_a_wire(self))
        return self


class DigitalNonidealities(SpecModel):
    activation_bits: Bits | Literal["off"] = Field(
        "off", description="inputs of a matrix are sent as integers of these bits over their row block's range"
    )
    partial_sums: Literal["off", "fp16", "bf16"] = Field(
        "off", description="sums of row blocks are made in this format (off: in that of the computation)"
    )
    column_scale_bits: Annotated[int, Field(ge=1, le=24)] | Literal["off"] = Field(
        "off", description="column scales of a piece are integers of these bits times one scale"
    )


class Nonidealities(SpecModel):
    mvm: MvmNonidealities = Field(description="at every multiplication")
    device: DeviceNonidealities = Field(DeviceNonidealities(), description="of the stored weights")
    digital: DigitalNonidealities = Field(DigitalNonidealities(), description="of the digital numbers about a tile")
    drift_compensation: Literal["off", "tile", "column", "exact"] = Field(
        description="what is read again, and scaled: all pieces on a tile together, or each of its columns"
    )
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
    buffers: Buffers = Field(description="memory at a tile (no effect yet)")
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
