"""What the spec says about one MVM, as plain numbers, and what of a spec is not modelled yet."""

from math import inf
from typing import Literal

from aimc_compiler.chip.devices import PcmFigures, device_figures
from aimc_compiler.chip.spec import Adc, Dac, Nonidealities, Tile
from aimc_compiler.errors import NotBuiltError, VerificationError
from aimc_compiler.records import record


@record
class MvmSettings:
    """One MVM of a tile, in units of normalised inputs and weights; an effect at its neutral value is off.

    in_bound: inputs are clipped to it (inf: not); dac_step, adc_step: 0 is no rounding; out_bound: outputs are
    clipped to it; sigma_in, sigma_out, sigma_w: standard deviations; ir_drop: factor, 0 is none; g_ratio: conductance
    of the wire between two cells over that of a full weight, ``1 / (r_wire g_ir)``; ir_drop_model, ir_drop_load: as in
    the spec, see ``ir_drop.py`` and ``traced_drop.py``; signed: whether outputs may be negative; input_planes: bit
    planes of bit-serial inputs, 0 where they are not, input_code and accumulate see ``passes.py``.
    """

    in_bound: float = inf
    dac_step: float = 0.0
    adc_step: float = 0.0
    out_bound: float = inf
    sigma_in: float = 0.0
    sigma_out: float = 0.0
    sigma_w: float = 0.0
    read_noise: Literal["pcm", "constant"] = "pcm"
    ir_drop: float = 0.0
    g_ratio: float = inf
    ir_drop_model: Literal["closed_form", "exact"] = "closed_form"
    ir_drop_load: Literal["spread", "aligned", "grounded"] = "spread"
    signed: bool = True
    input_planes: int = 0
    input_code: Literal["sign_magnitude", "twos_complement"] = "sign_magnitude"
    accumulate: Literal["digital", "analog"] = "digital"

    @property
    def drops_by_formula(self) -> bool:
        """Whether the closed form of the IR drop applies."""
        return self.ir_drop > 0 and self.ir_drop_model == "closed_form"

    @property
    def drops_in_weights(self) -> bool:
        """Whether the exact IR drop is one with the weights, the network being linear in its inputs."""
        return self.ir_drop > 0 and self.ir_drop_model == "exact" and self.ir_drop_load == "grounded"

    @property
    def traces_wires(self) -> bool:
        """Whether the exact IR drop is solved for each input vector."""
        return self.ir_drop > 0 and self.ir_drop_model == "exact" and self.ir_drop_load != "grounded"

    @property
    def unfolds(self) -> bool:
        """Whether an MVM needs the input vector of each window, unfolded."""
        return self.sigma_in > 0 or self.traces_wires

    @classmethod
    def of(cls, tile: Tile, nonidealities: Nonidealities) -> "MvmSettings":
        """From a spec that passed its checks."""
        mvm = nonidealities.mvm
        # A weight of several rows takes as many segments of wire.
        conductance_ratio = mvm.r_wire_ohm * mvm.g_ir_s * tile.device.rows_per_weight
        return cls(
            in_bound=1.0 if mvm.range_clip else inf,
            dac_step=_dac_step(tile.dac),
            adc_step=_adc_step(tile.adc),
            out_bound=tile.adc.out_bound if tile.adc.clip and tile.adc.out_bound != "off" else inf,
            sigma_in=mvm.sigma_in,
            sigma_out=mvm.sigma_out,
            sigma_w=mvm.sigma_w,
            read_noise=mvm.read_noise,
            ir_drop=mvm.ir_drop if conductance_ratio else 0.0,
            g_ratio=1 / conductance_ratio if conductance_ratio else inf,
            ir_drop_model=mvm.ir_drop_model,
            ir_drop_load="grounded" if tile.dac.input_mode == "amplitude" else mvm.ir_drop_load,
            signed=tile.adc.signed,
            input_planes=tile.dac.planes,
            input_code=tile.dac.bit_code,
            accumulate=tile.dac.accumulate,
        )


def _dac_step(dac: Dac) -> float:
    return 0.0 if dac.bits == "off" else 2.0 / _steps(dac.bits)


def _adc_step(adc: Adc) -> float:
    if adc.bits == "off":
        return 0.0
    if adc.out_bound == "off":
        raise VerificationError("an output converter with bits but without out_bound passed the checks of the spec")
    if not adc.signed:
        return adc.out_bound / int(2**adc.bits - 1)
    return 2.0 * adc.out_bound / _steps(adc.bits)


def _steps(bits: int) -> int:
    """A converter of b bits has 2^b - 1 levels that lie evenly about zero, so 2^b - 2 steps."""
    return int(2**bits - 2)


def require_built(tile: Tile, nonidealities: Nonidealities, name: str = "tile") -> None:
    """Raise NotBuiltError naming every key of the spec that asks for physics this version does not model.

    name: of the tile type, for the message. Mapping and timing do not need what is asked for here.
    """
    faults = [*_device_faults(tile, nonidealities), *_mvm_faults(tile, nonidealities)]
    if faults:
        listed = "\n".join(f"  - {fault}" for fault in faults)
        raise NotBuiltError(
            f"tile type {name!r} cannot be run yet (mapping and timing of this chip work): it asks for\n{listed}\n"
            "Change these keys, in a copy of the spec or with --set KEY=VALUE, or run on another chip"
        )


def _device_faults(tile: Tile, nonidealities: Nonidealities) -> list[str]:
    effects = nonidealities.device
    noisy = any((effects.programming_noise, effects.drift, effects.accumulated_read_noise))
    faults = []
    if effects.write_verify and effects.programming_noise and not isinstance(device_figures(tile.device), PcmFigures):
        faults.append(
            f"nonidealities.device.write_verify with device.model {tile.device.model!r}, which has no statistics of "
            "single pulses: leave write_verify out"
        )
    if noisy and tile.normalisation == "none":
        faults.append("noisy devices with normalisation none: use normalisation column, so that weights fit g_max")
    return faults


def _mvm_faults(tile: Tile, nonidealities: Nonidealities) -> list[str]:
    mode, drops = tile.dac.input_mode, nonidealities.mvm.ir_drop > 0
    by_formula = nonidealities.mvm.ir_drop_model == "closed_form"
    faults = []
    if tile.dac.planes and not nonidealities.mvm.range_clip:
        faults.append(
            "dac.input_mode bit_serial without range clipping, though inputs beyond the range have no bits: set "
            "nonidealities.mvm.range_clip to true, or dac.bits to off"
        )
    if mode == "amplitude" and drops and by_formula:
        faults.append(
            "dac.input_mode amplitude with IR drop, whose formula holds for pulse-width inputs: use pulse_width, "
            "set nonidealities.mvm.ir_drop_model to exact, or nonidealities.mvm.ir_drop to 0"
        )
    return faults
