"""The chip spec: what a chip is made of, in SI inside and with units in YAML.

``docs/chip-spec.md`` documents every key; it is generated from the descriptions here. Cells are *unit cells*: one
weight's worth of devices at one crossing, unless ``rows_per_weight`` or ``slices`` say that a weight takes several.
"""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from aimc_compiler.chip.costs import CostClass
from aimc_compiler.chip.devices import DeviceModel
from aimc_compiler.chip.quantity import Bytes, Joules, Ohms, Rate, Seconds, Siemens, SpecModel, SquareMetres

Fraction = float


class Clock(SpecModel):
    tick_s: Seconds = Field(alias="tick", gt=0, description="time step of the schedule; all times are rounded up to it")


class Device(SpecModel):
    model: DeviceModel = Field(description="device model, one of `aimc_compiler.chip.DEVICES`")
    g_max_s: Siemens = Field(alias="g_max", gt=0, description="largest target conductance")
    pairs: PositiveInt = Field(1, description="differential pairs a weight")
    slices: PositiveInt = Field(1, description="columns a weight: its bits cut over several cells")
    bits_per_slice: PositiveInt | None = Field(None, description="bits a cell where slices > 1")
    encoding: Literal["differential", "offset_column"] = Field("differential", description="how signs are stored")
    rows_per_weight: PositiveInt = Field(1, description="adjacent rows a weight")


class Dac(SpecModel):
    bits: PositiveInt | Literal["off"] = Field(description="resolution: 2^bits - 2 steps over twice the bound")
    input_mode: Literal["pulse_width", "amplitude", "bit_serial"] = Field(description="how a code drives a row")


class Adc(SpecModel):
    bits: PositiveInt | Literal["off"] = Field(description="resolution: 2^bits - 2 steps over twice out_bound")
    out_bound: PositiveFloat | Literal["off"] = Field(description="largest output, in units of normalised w times x")
    columns_per_adc: PositiveInt = Field(1, description="columns that share a converter")


class EnergySplit(SpecModel):
    adc: Fraction = Field(ge=0, le=1, description="share of the output converters")
    array: Fraction = Field(ge=0, le=1, description="share of the crossbar")
    dac: Fraction = Field(ge=0, le=1, description="share of the input converters")

    @model_validator(mode="after")
    def sums_to_one(self) -> "EnergySplit":
        total = self.adc + self.array + self.dac
        if abs(total - 1) > 1e-9:
            raise ValueError(f"the shares adc, array and dac sum to {total:g}: they must sum to 1")
        return self


class MvmMode(SpecModel):
    time_s: Seconds = Field(alias="time", gt=0, description="from inputs at the tile to outputs converted")
    initiation_interval_s: Seconds = Field(alias="initiation_interval", gt=0, description="from one MVM to the next")
    energy_j: Joules = Field(alias="energy", description="of one MVM of a whole tile")
    split: EnergySplit = Field(description="energy by component")


class Mvm(SpecModel):
    time_s: Seconds | None = Field(None, alias="time")
    initiation_interval_s: Seconds | None = Field(None, alias="initiation_interval")
    energy_j: Joules | None = Field(None, alias="energy")
    split: EnergySplit | None = None
    modes: dict[str, MvmMode] | None = Field(None, description="several ways to multiply, by name")
    mode: str | None = Field(None, description="the mode in use")
    energy_scaling: Literal["tile", "used"] = Field(
        "tile", description="tile: a partly used tile costs a whole MVM; used: shares scale with rows, columns, cells"
    )

    @model_validator(mode="after")
    def one_form(self) -> "Mvm":
        direct = (self.time_s, self.initiation_interval_s, self.energy_j, self.split)
        if self.modes is None and self.mode is None:
            if any(value is None for value in direct):
                raise ValueError("give time, initiation_interval, energy and split, or modes and mode")
            return self
        if any(value is not None for value in direct):
            raise ValueError("time, initiation_interval, energy and split stand inside modes where modes are given")
        if not self.modes or self.mode not in self.modes:
            known = ", ".join(self.modes or ()) or "none"
            raise ValueError(f"mode {self.mode!r} is not among modes ({known})")
        return self

    @property
    def active(self) -> MvmMode:
        """The mode in use."""
        if self.modes is not None and self.mode is not None:
            return self.modes[self.mode]
        assert self.time_s and self.initiation_interval_s and self.energy_j is not None and self.split
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
    device: Device
    dac: Dac
    adc: Adc
    mvm: Mvm
    area_m2: SquareMetres | None = Field(None, alias="area", description="of one tile")
    programming: Programming | None = None

    @property
    def weight_rows(self) -> int:
        """Rows of weights: the largest number of inputs of a piece."""
        return self.rows // self.device.rows_per_weight

    @property
    def weight_columns(self) -> int:
        """Columns of weights: the largest number of outputs of a piece."""
        return self.columns // self.device.slices

    @model_validator(mode="after")
    def holds_a_weight(self) -> "Tile":
        if not self.weight_rows or not self.weight_columns:
            raise ValueError("one weight takes more rows or columns (rows_per_weight, slices) than the tile has")
        if (self.device.slices > 1) != (self.device.bits_per_slice is not None):
            raise ValueError("device.slices > 1 and device.bits_per_slice go together")
        return self


class MvmNonidealities(SpecModel):
    range_clip: bool = Field(description="inputs beyond the calibrated range are clipped to it")
    sigma_in: NonNegativeFloat = Field(description="input noise, in units of the input bound")
    sigma_out: NonNegativeFloat = Field(description="output noise, in units of normalised w times x")
    sigma_w: NonNegativeFloat = Field(description="short-term read noise")
    read_noise: Literal["pcm", "constant"] = Field(description="pcm: sd by sqrt(sum |w| x^2); constant: by ||x||")
    ir_drop: NonNegativeFloat = Field(description="factor on the IR drop; 1 is the physical one, 0 none")
    r_wire_ohm: Ohms = Field(alias="r_wire", description="wire resistance between neighbouring cells of a column")
    g_ir_s: Siemens = Field(alias="g_ir", description="conductance of a full weight in the IR-drop formula")


class DeviceNonidealities(SpecModel):
    programming_noise: NonNegativeFloat = Field(1.0, description="factor on the device's programming noise")
    drift: NonNegativeFloat = Field(1.0, description="factor on the device's drift exponents")
    accumulated_read_noise: NonNegativeFloat = Field(1.0, description="factor on the device's 1/f read noise")


class Defects(SpecModel):
    stuck_at_zero: Fraction = Field(0.0, ge=0, le=1, description="share of devices that stay at zero")
    stuck_at_g_max: Fraction = Field(0.0, ge=0, le=1, description="share of devices that stay at g_max")
    stuck_random: Fraction = Field(0.0, ge=0, le=1, description="share of devices that stay anywhere")


class Nonidealities(SpecModel):
    mvm: MvmNonidealities
    device: DeviceNonidealities = DeviceNonidealities()
    drift_compensation: Literal["off", "tile", "column", "exact"] = Field(description="what is read again, and scaled")
    defects: Defects = Defects()


class LocalDigital(SpecModel):
    ops: tuple[Literal["scale", "bias", "accumulate", "relu"], ...] = Field(description="what a tile's unit can do")
    rate: Rate = Field(description="elements a tick")
    energy_j: Joules = Field(alias="energy", description="of one element of one operation")


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
    times_s: tuple[Seconds, ...] = Field(alias="times", description="times after programming that are evaluated")


class Provenance(SpecModel):
    kind: Literal["published", "derived", "assumed"]
    source: str | None = Field(None, description="key of `sources`; needed for published and derived figures")
    note: str = ""


class ChipSpec(SpecModel):
    """A chip. Exactly one of ``tile`` (one tile type) and ``tiles`` (several, by name) is given."""

    schema_version: Literal[1]
    name: str
    description: str = ""
    sources: dict[str, str] = {}
    clock: Clock
    tile: Tile | None = None
    tiles: dict[str, Tile] | None = None
    nonidealities: Nonidealities
    local_digital: LocalDigital
    digital_units: DigitalUnits
    network: Network
    buffers: Buffers
    evaluation: Evaluation
    provenance: dict[str, Provenance] = {}

    @property
    def tile_types(self) -> Mapping[str, Tile]:
        """Tile types by name; the single one is called "tile"."""
        if self.tiles is not None:
            return self.tiles
        assert self.tile is not None
        return {"tile": self.tile}
