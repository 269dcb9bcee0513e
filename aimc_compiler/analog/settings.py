"""What the spec says about one MVM, as plain numbers, and what of a spec is not modelled yet."""

from dataclasses import replace
from math import inf
from typing import Any, Literal

from aimc_compiler.chip.devices import PcmFigures, device_figures
from aimc_compiler.chip.spec import Adc, Dac, Nonidealities, Tile, converter_steps
from aimc_compiler.errors import NotBuiltError, VerificationError
from aimc_compiler.records import record

#: What a converter's nonlinearity is in LSB where the spec gives neither curve nor table: v^3 - v.
_CURVE = (-1.0, 0.0, 1.0)


@record
class Points:
    """A measured nonlinearity: values at rising positions over the bound, linear between them, constant beyond."""

    positions: tuple[float, ...]
    values: tuple[float, ...]

    def times(self, factor: float) -> "Points":
        """With values ``factor`` times as large."""
        return replace(self, values=tuple(value * factor for value in self.values))

    def __str__(self) -> str:
        return f"of {len(self.positions)} points"


@record
class MvmSettings:
    """One MVM of a tile, in units of normalised inputs and weights; an effect at its neutral value is off.

    in_bound: inputs are clipped to it (inf: not); dac_step, adc_step: 0 is no rounding; out_bound: outputs are
    clipped to it; sigma_in, sigma_out, sigma_w: standard deviations; ir_drop: factor, 0 is none; g_ratio: conductance
    of the wire between two cells over that of a full weight, ``1 / (r_wire g_ir)``; ir_drop_model, ir_drop_load: as in
    the spec, see ``ir_drop.py`` and ``traced_drop.py``; input_scaling to sum_share: see ``scaling.py``; asymmetries
    to inl_bound: ``converter.py``, nonlinearities as coefficients of v, v^2, ... or Points, of x and u; v_offset_std to
    offset_residual: ``columns.py``, ``s_shape`` per unit of output and ``slope_span`` in its units; bound_management:
    ``bound_management.py``; signed: whether outputs may be negative; input_planes: bit planes of bit-serial inputs, 0
    where they are not, input_code and accumulate see ``passes.py``; own_bounds: each piece has an output bound
    of its own, which is the unit of all lengths of the converter here: see ``at_bound``.
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
    input_scaling: Literal["none", "constant", "abs_max", "abs_max_sums"] = "none"
    scaling_bound: float = 0.0
    sum_share: float = 0.0
    input_asymmetry: float = 0.0
    output_asymmetry: float = 0.0
    dac_stochastic: bool = False
    adc_stochastic: bool = False
    dac_inl: tuple[float, ...] | Points = ()
    adc_inl: tuple[float, ...] | Points = ()
    inl_bound: float = inf
    v_offset_std: float = 0.0
    r_series: float = 0.0
    reference_weight: float = -1.0
    s_shape: float = 0.0
    s_shape_std: float = 0.0
    slope_span: float = 0.0
    sigma_out_spread: float = 0.0
    columns_per_adc: int = 1
    gain_std: float = 0.0
    offset_std: float = 0.0
    mismatch_calibrated: bool = False
    gain_residual: float = 0.0
    offset_residual: float = 0.0
    passes: Literal["one", "analog", "digital"] = "one"
    bound_management: bool = False
    signed: bool = True
    input_planes: int = 0
    input_code: Literal["sign_magnitude", "twos_complement"] = "sign_magnitude"
    accumulate: Literal["digital", "analog"] = "digital"
    own_bounds: bool = False

    def at_bound(self, bound: float) -> "MvmSettings":
        """Of a piece whose output converter has this bound, in normalised w times x; self where bounds are fixed.

        What the spec gives in LSB or in shares of the bound follows it; noise and offsets before the converter do not.
        """
        if not self.own_bounds:
            return self
        curve = self.adc_inl
        return replace(
            self,
            adc_step=self.adc_step * bound,
            out_bound=self.out_bound * bound,
            inl_bound=self.inl_bound * bound,
            sum_share=self.sum_share / bound,
            adc_inl=curve.times(bound) if isinstance(curve, Points) else tuple(c * bound for c in curve),
            s_shape=self.s_shape / bound,
            slope_span=self.slope_span * bound,
            own_bounds=False,
        )

    @property
    def scales_vectors(self) -> bool:
        """Whether each input vector has a scale of its own."""
        return self.input_scaling in ("abs_max", "abs_max_sums")

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
        return self.reads_alone or self.scales_vectors

    @property
    def reads_alone(self) -> bool:
        """Whether every piece multiplies inputs of its own, rather than all pieces of a row block at once."""
        return self.sigma_in > 0 or self.dac_stochastic or self.traces_wires or self.bound_management

    @property
    def biases_columns(self) -> bool:
        """Whether voltage offsets or series resistance act."""
        return self.v_offset_std > 0 or self.r_series > 0

    @property
    def bends(self) -> bool:
        """Whether the S-shape or the calibration of its slope acts."""
        return self.s_shape > 0 or (self.slope_span > 0 and self.r_series > 0)

    @property
    def splits_noise(self) -> bool:
        """Whether something nonlinear stands between the read noise and the output noise."""
        return self.output_asymmetry != 0 or self.bends

    @property
    def reads_in_closed_form(self) -> bool:
        """Whether a reading with one-hot inputs follows from each weight by itself."""
        return not (
            self.sigma_in > 0
            or self.input_scaling != "none"
            or self.input_asymmetry
            or self.splits_noise
            or self.dac_stochastic
            or self.adc_stochastic
            or self.adc_inl
            or self.biases_columns
            or self.sigma_out_spread
            or self.gain_std
            or self.offset_std
            or self.passes != "one"
            or self.bound_management
            or self.input_planes
        )

    @classmethod
    def of(cls, tile: Tile, nonidealities: Nonidealities) -> "MvmSettings":
        """From a spec that passed its checks."""
        mvm = nonidealities.mvm
        bound = _full_scale(tile.adc)
        full = 0.0 if bound is None else bound
        # A weight of several rows takes as many segments of wire.
        conductance_ratio = mvm.r_wire_ohm * mvm.g_ir_s * tile.device.rows_per_weight
        return cls(
            in_bound=1.0 if mvm.range_clip else inf,
            dac_step=_dac_step(tile.dac),
            adc_step=_adc_step(tile.adc),
            out_bound=full if tile.adc.clip and full else inf,
            sigma_in=mvm.sigma_in,
            sigma_out=mvm.sigma_out,
            sigma_w=mvm.sigma_w,
            read_noise=mvm.read_noise,
            ir_drop=mvm.ir_drop if conductance_ratio else 0.0,
            g_ratio=1 / conductance_ratio if conductance_ratio else inf,
            ir_drop_model=mvm.ir_drop_model,
            ir_drop_load="grounded" if tile.dac.input_mode == "amplitude" else mvm.ir_drop_load,
            input_scaling=mvm.input_scaling,
            scaling_bound=mvm.input_scaling_bound,
            sum_share=0.6 / full if full else 0.0,
            input_asymmetry=mvm.input_asymmetry,
            output_asymmetry=mvm.output_asymmetry,
            v_offset_std=mvm.v_offset_std,
            r_series=mvm.r_series,
            reference_weight=mvm.reference_weight,
            s_shape=mvm.s_shape / full if full else 0.0,
            s_shape_std=mvm.s_shape_std,
            slope_span=mvm.slope_calibration * full,
            sigma_out_spread=mvm.sigma_out_spread,
            passes=mvm.passes,
            bound_management=mvm.bound_management,
            **_converters(tile),
        )


def _converters(tile: Tile) -> dict[str, Any]:
    """What converters are beyond steps and bounds. A nonlinearity is in LSB: without steps there is none."""
    dac, adc = tile.dac, tile.adc
    return {
        "dac_stochastic": dac.rounding == "stochastic" and dac.bits != "off",
        "adc_stochastic": adc.rounding == "stochastic" and adc.bits != "off",
        "dac_inl": _nonlinearity(dac, _dac_step(dac)),
        "adc_inl": _nonlinearity(adc, _adc_step(adc)),
        "inl_bound": _full_scale(adc) or inf,
        "own_bounds": adc.out_bound == "calibrated",
        "columns_per_adc": adc.columns_per_adc,
        "gain_std": adc.gain_std,
        "offset_std": adc.offset_std,
        "mismatch_calibrated": adc.mismatch_calibrated,
        "gain_residual": adc.gain_residual,
        "offset_residual": adc.offset_residual,
        "signed": adc.signed,
        "input_planes": dac.planes,
        "input_code": dac.bit_code,
        "accumulate": dac.accumulate,
    }


def _nonlinearity(converter: Dac | Adc, step: float) -> tuple[float, ...] | Points:
    scale = converter.inl * step
    if not scale:
        return ()
    if converter.inl_table is None:
        return tuple(scale * c for c in converter.inl_curve or _CURVE)
    positions, values = zip(*converter.inl_table, strict=True)
    return Points(positions=positions, values=tuple(scale * value for value in values))


def _dac_step(dac: Dac) -> float:
    return 0.0 if dac.steps is None else 2.0 / dac.steps


def _full_scale(adc: Adc) -> float | None:
    """The bound in normalised w times x; 1 where each piece has its own, which then is the unit; None without one."""
    if adc.out_bound == "off":
        return None
    return 1.0 if adc.out_bound == "calibrated" else adc.out_bound


def _adc_step(adc: Adc) -> float:
    if adc.bits == "off":
        return 0.0
    bound = _full_scale(adc)
    if bound is None:
        raise VerificationError("an output converter with bits but without out_bound passed the checks of the spec")
    return 2.0 * bound / adc_levels(adc.bits, signed=adc.signed)


def adc_levels(bits: int, *, signed: bool) -> int:
    """Steps of an output converter over twice its bound, of which one without sign uses the upper half."""
    return converter_steps(bits) if signed else 2 * int(2**bits - 1)


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
    if tile.adc.out_bound == "calibrated" and nonidealities.mvm.input_scaling == "abs_max_sums":
        faults.append(
            "adc.out_bound calibrated with input_scaling abs_max_sums, whose scales go by the bound that is sought "
            "under these scales: give adc.out_bound a number, or set nonidealities.mvm.input_scaling to abs_max"
        )
    if tile.dac.planes and not nonidealities.mvm.range_clip:
        faults.append(
            "dac.input_mode bit_serial without range clipping, though inputs beyond the range have no bits: set "
            "nonidealities.mvm.range_clip to true, or dac.bits to off"
        )
    if tile.dac.planes and tile.dac.inl:
        faults.append(
            "dac.inl with dac.input_mode bit_serial, whose drivers are on or off and have no curve: set dac.inl to 0, "
            "or use pulse_width"
        )
    if tile.dac.planes and tile.dac.accumulate == "digital" and nonidealities.mvm.bound_management:
        faults.append(
            "bound management with dac.input_mode bit_serial and dac.accumulate digital, where halved inputs move to "
            "lower bit planes whose outputs are no smaller: set nonidealities.mvm.bound_management to false, or "
            "dac.accumulate to analog"
        )
    if mode == "amplitude" and drops and by_formula:
        faults.append(
            "dac.input_mode amplitude with IR drop, whose formula holds for pulse-width inputs: use pulse_width, "
            "set nonidealities.mvm.ir_drop_model to exact, or nonidealities.mvm.ir_drop to 0"
        )
    return faults
