"""The part of the chip spec on what stores weights: devices, how weights lie in them, how they err, their defects."""

from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from aimc_compiler.chip import checks
from aimc_compiler.chip.quantity import Joules, Seconds, Siemens, SpecModel, raise_faults


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
