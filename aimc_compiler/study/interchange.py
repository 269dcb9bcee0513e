"""The same chip and network in aihwkit, IBM's public accuracy simulator, to compare the two.

    twin = as_aihwkit(model, compiled)
    twin.program_analog_weights()
    twin.drift_analog_weights(3600.0)
    outputs = twin(images)

aihwkit is imported where it is called for. Figures that it cannot express are an error, none is left out in silence.
Rasch et al., Nat. Commun. 14, 5282 (2023), describe the model that both share; ``docs/interchange.md`` says what
corresponds to what, and what differs.
"""

import warnings
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from aimc_compiler.chip import ChipSpec, figures, load_chip
from aimc_compiler.chip.figures import Figure
from aimc_compiler.chip.spec import converter_steps
from aimc_compiler.compiler import CompiledModel
from aimc_compiler.errors import CalibrationError, DataError, MissingDependencyError, SpecError

#: The built-in chip that has aihwkit's standard settings.
PRESET = "aihwkit"
#: Figures that have a field of their own in aihwkit, under ``tile`` and ``nonidealities``.
_FORWARD = {
    "tile.adc.out_bound": "out_bound",
    "nonidealities.mvm.sigma_in": "inp_noise",
    "nonidealities.mvm.sigma_out": "out_noise",
    "nonidealities.mvm.sigma_out_spread": "out_noise_std",
    "nonidealities.mvm.sigma_w": "w_noise",
    "nonidealities.mvm.ir_drop": "ir_drop",
    "nonidealities.mvm.v_offset_std": "v_offset_std",
    "nonidealities.mvm.reference_weight": "v_offset_w_min",
    "nonidealities.mvm.r_series": "r_series",
    "nonidealities.mvm.s_shape": "out_nonlinearity",
    "nonidealities.mvm.s_shape_std": "out_nonlinearity_std",
    "nonidealities.mvm.slope_calibration": "slope_calibration",
}
_TRANSLATED = frozenset(_FORWARD) | {
    "tile.device.g_max",
    "tile.dac.bits",
    "tile.adc.bits",
    "nonidealities.mvm.read_noise",
    "nonidealities.mvm.r_wire",
    "nonidealities.mvm.g_ir",
    "nonidealities.device.programming_noise",
    "nonidealities.device.drift",
    "nonidealities.device.accumulated_read_noise",
    "nonidealities.drift_compensation",
}
#: Of area alone, as long as converters do not differ.
_WITHOUT_EFFECT = frozenset({"tile.adc.columns_per_adc"})
_NUMERIC = ("tile.normalisation", "tile.device.", "tile.dac.", "tile.adc.", "nonidealities.")


def unusable_because() -> str | None:
    """Why aihwkit cannot be used here, in a sentence; None where a layer of it runs.

    Its layers are compiled against one version of torch: beside another they may import and still not run.
    """
    if find_spec("aihwkit") is None:
        return "aihwkit is not installed"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from aihwkit.nn import AnalogLinear
            from aihwkit.simulator.presets import StandardHWATrainingPreset

            with torch.no_grad():
                AnalogLinear(2, 2, rpu_config=StandardHWATrainingPreset()).eval()(torch.ones(1, 2))
    except (ImportError, OSError, RuntimeError, TypeError, AttributeError) as error:
        reason = str(error).strip().splitlines()[0]
        return f"aihwkit {version('aihwkit')} does not run beside torch {torch.__version__}: {reason}"
    return None


def rpu_config_of(chip: ChipSpec) -> Any:
    """The ``rpu_config`` under which an inference layer of aihwkit has this chip's physics.

    It is its StandardHWATrainingPreset with the chip's figures. Raises SpecError naming the figures that aihwkit has no
    field for, and MissingDependencyError without a working aihwkit.

    Example:
        >>> config = rpu_config_of(load_chip("aihwkit", ["nonidealities.mvm.sigma_out=0.06"]))
    """
    _require_counterparts(chip)
    _require_aihwkit()
    from aihwkit.inference.noise.pcm import PCMLikeNoiseModel
    from aihwkit.simulator.parameters.enums import WeightNoiseType
    from aihwkit.simulator.presets import StandardHWATrainingPreset

    assert chip.tile is not None
    tile, mvm, device = chip.tile, chip.nonidealities.mvm, chip.nonidealities.device
    config = StandardHWATrainingPreset()
    config.mapping.max_input_size, config.mapping.max_output_size = tile.weight_rows, tile.weight_columns
    values = {figure.path: figure.value for figure in figures(chip)}
    for path, field in _FORWARD.items():
        setattr(config.forward, field, float(values[path]))
    for field, bits in (("inp_res", tile.dac.bits), ("out_res", tile.adc.bits)):
        setattr(config.forward, field, -1.0 if bits == "off" else float(converter_steps(bits)))
    if mvm.ir_drop:
        config.forward.ir_drop_g_ratio = 1.0 / mvm.r_wire_ohm / mvm.g_ir_s
    pcm_read, constant = WeightNoiseType.PCM_READ, WeightNoiseType.ADDITIVE_CONSTANT
    config.forward.w_noise_type = pcm_read if mvm.read_noise == "pcm" else constant
    config.noise_model = PCMLikeNoiseModel(
        g_max=tile.device.g_max_s * 1e6,
        prog_noise_scale=device.programming_noise,
        drift_scale=device.drift,
        read_noise_scale=device.accumulated_read_noise,
    )
    config.drift_compensation = _compensation(chip.nonidealities.drift_compensation)
    return config


def as_aihwkit(model: nn.Module, compiled: CompiledModel) -> nn.Module:
    """The network in aihwkit on the compiled chip, in evaluation mode, with its analog layers and input ranges.

    model: the network that was compiled; it is copied. Call ``program_analog_weights()`` of the result for a new chip,
    and ``drift_analog_weights(time_s)`` for its state ``time_s`` seconds after programming. Raises DataError where
    there are several entries or an analog operation is no linear or convolution module of its own, CalibrationError
    without input ranges, SpecError and MissingDependencyError as ``rpu_config_of``.
    """
    if len(compiled.entries) > 1:
        raise DataError(
            f"this program has several entries ({', '.join(compiled.entries)}), and a network in aihwkit has one: "
            "compile the network for one example"
        )
    if compiled.ranges is None:
        raise CalibrationError("this program has no input ranges: call compiled.calibrate(batches) first")
    names = _analog_modules(model, compiled)
    config = rpu_config_of(compiled.chip)
    from aihwkit.nn.conversion import convert_to_analog

    matrices = [name for name, module in model.named_modules() if isinstance(module, _CONVERTED)]
    twin: nn.Module = convert_to_analog(model, config, exclude_modules=[m for m in matrices if m not in names]).eval()
    for name in names:
        layer: Any = twin.get_submodule(name).analog_module
        row_blocks = getattr(layer, "array", [[layer]])
        for tiles, value in zip(row_blocks, compiled.ranges.of(name)[0].tolist(), strict=True):
            for tile in tiles:
                tile.set_input_range(value)
    return twin


_CONVERTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def _analog_modules(model: nn.Module, compiled: CompiledModel) -> list[str]:
    modules = dict(model.named_modules())
    for op in compiled.workload.analog_ops:
        module = modules.get(op.name)
        if op.name != op.matrix or not isinstance(module, _CONVERTED) or getattr(module, "groups", 1) != 1:
            raise DataError(
                f"{op.name!r} has no counterpart in aihwkit, which converts linear and convolution modules without "
                "groups, each used once: keep it digital with a rule"
            )
    return [op.name for op in compiled.workload.analog_ops]


def _require_counterparts(chip: ChipSpec) -> None:
    if chip.tile is None:
        raise SpecError(f"chip {chip.name} has several tile types, an rpu_config has one: choose a chip with `tile`")
    standard = {figure.path: figure.text for figure in figures(load_chip(PRESET))}
    others = [
        f"{figure.path} ({figure.text})"
        for figure in figures(chip)
        if figure.path.startswith(_NUMERIC) and not _has_field(figure) and figure.text != standard.get(figure.path)
    ]
    if others:
        raise SpecError(
            f"chip {chip.name} has figures without a counterpart in aihwkit: {', '.join(others)}. Set them as in the "
            f"built-in chip {PRESET}"
        )


def _has_field(figure: Figure) -> bool:
    one_number = figure.path != "tile.adc.out_bound" or figure.text not in ("off", "calibrated")
    return figure.path in _TRANSLATED | _WITHOUT_EFFECT and one_number


def _require_aihwkit() -> None:
    reason = unusable_because()
    if reason is not None:
        raise MissingDependencyError(
            f"{reason}. Install one that was built for this torch (pip install aihwkit; docs/interchange.md)"
        )


def _compensation(kind: str) -> Any:
    from aihwkit.inference.compensation import drift

    classes = {
        "tile": drift.GlobalDriftCompensation,
        "column": drift.PerColumnDriftCompensation,
        "exact": drift.GlobalDriftCompensationWithExactReference,
    }
    return classes[kind]() if kind in classes else None
