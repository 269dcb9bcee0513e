"""The table of effects: every nonideality, where it acts, which figures of the spec set it, how it scales.

One entry here and one function in ``aimc_compiler.analog`` make an effect; the spec's switches, sensitivity studies
and the documents go through this table. Symbols: x input, w normalised weight, u output, xi standard normal.
"""

import math
from collections.abc import Collection, Mapping
from typing import Any

from aimc_compiler.chip.column_effects import COLUMN_EFFECTS
from aimc_compiler.chip.effect import Effect
from aimc_compiler.chip.figures import dotted, plain, suggest, value_at
from aimc_compiler.chip.reader import override
from aimc_compiler.chip.spec import ChipSpec
from aimc_compiler.errors import SpecError

_RASCH = "Rasch et al., Nat. Commun. 14, 5282 (2023)"
_USUAL = "the usual model of defects in crossbars; no figures are built in"
_NANDAKUMAR = f"{_RASCH}, Methods; Nandakumar et al., ICECS (2019)"

_STANDARD: dict[str, Effect] = {
    "range_clip": Effect(
        title="input range clipping",
        stage="input",
        path="nonidealities.mvm.range_clip",
        off=False,
        unit="true or false",
        does="inputs beyond the calibrated range of their row block are clipped to it",
        equation="x <- clip(x, -r, r) / r",
        source=f"{_RASCH}, Methods",
        scaling="switch",
    ),
    "dac_quantisation": Effect(
        title="input quantisation",
        stage="input",
        path="dac.bits",
        off="off",
        unit="bits",
        does="inputs are rounded to the codes of the input converter, half to even",
        equation="x <- d rint(x / d), d = 2 / (2^bits - 2)",
        source=f"{_RASCH}, Suppl. Table 1",
        scaling="bits",
        per_tile=True,
    ),
    "input_noise": Effect(
        title="input noise",
        stage="input",
        path="nonidealities.mvm.sigma_in",
        off=0.0,
        unit="input bound",
        does="every input of every multiplication is off by noise of its own",
        equation="x <- x + sigma_in xi",
        source=f"{_RASCH}, Suppl. Table 1",
    ),
    "input_asymmetry": Effect(
        title="asymmetric inputs",
        stage="input",
        path="nonidealities.mvm.input_asymmetry",
        off=0.0,
        unit="share",
        does="negative inputs reach the rows weaker than positive ones",
        equation="x <- (1 - f) x where x < 0",
        source=f"{_RASCH}, Methods",
    ),
    "ir_drop": Effect(
        title="IR drop",
        stage="mac",
        path="nonidealities.mvm.ir_drop",
        off=0.0,
        unit="factor",
        does="the wire of a column drops voltage, the more the larger its currents and the further its rows",
        equation="u_i <- u_i - f c(q_i) sum_j w_ij x_j (1 - (1 - j/n)^2), q_i = (n/G) sum_j |w_ij x_j|",
        source=f"{_RASCH}, Methods",
    ),
    "read_noise": Effect(
        title="short-term read noise",
        stage="mac",
        path="nonidealities.mvm.sigma_w",
        off=0.0,
        unit="normalised weight",
        does="every weight is off by noise of its own at every multiplication",
        equation="u_i <- u_i + sigma_w sqrt(sum_j |w_ij| x_j^2) xi",
        source=f"{_RASCH}, Suppl. Table 1",
    ),
    "output_asymmetry": Effect(
        title="asymmetric outputs",
        stage="output",
        path="nonidealities.mvm.output_asymmetry",
        off=0.0,
        unit="share",
        does="negative outputs are converted weaker than positive ones",
        equation="u <- (1 - f) u where u < 0",
        source=f"{_RASCH}, Methods",
    ),
    "output_noise": Effect(
        title="output noise",
        stage="output",
        path="nonidealities.mvm.sigma_out",
        off=0.0,
        unit="normalised w times x",
        does="every output is off by noise of its own before it is converted",
        equation="u <- u + sigma_out xi",
        source=f"{_RASCH}, Suppl. Table 1",
    ),
    "adc_quantisation": Effect(
        title="output quantisation",
        stage="output",
        path="adc.bits",
        off="off",
        unit="bits",
        does="outputs are rounded to the codes of the output converter, half to even",
        equation="u <- d rint(u / d), d = 2 out_bound / (2^bits - 2)",
        source=f"{_RASCH}, Suppl. Table 1",
        scaling="bits",
        per_tile=True,
    ),
    "adc_clip": Effect(
        title="output clipping",
        stage="output",
        path="adc.clip",
        off=False,
        unit="true or false",
        does="outputs beyond the bound of the output converter are clipped to it",
        equation="u <- clip(u, -out_bound, out_bound)",
        source=f"{_RASCH}, Suppl. Table 1",
        scaling="switch",
        per_tile=True,
    ),
    "programming_noise": Effect(
        title="programming noise",
        stage="device",
        path="nonidealities.device.programming_noise",
        off=0.0,
        unit="factor",
        does="every device is written with an error that stays",
        equation="g_P = max(0, g + f sigma_P(g) xi)",
        source=_NANDAKUMAR,
    ),
    "drift": Effect(
        title="conductance drift",
        stage="device",
        path="nonidealities.device.drift",
        off=0.0,
        unit="factor",
        does="every device loses conductance by a power of time with an exponent of its own",
        equation="g_D = g_P ((t + t0) / t0)^(-f nu)",
        source=_NANDAKUMAR,
    ),
    "drift_tile_spread": Effect(
        title="drift that differs from tile to tile",
        stage="device",
        path="nonidealities.device.drift_tile_spread",
        off=0.0,
        unit="share of the exponent",
        does="all exponents of a tile are off by one factor, drawn with the chip",
        equation="nu <- nu max(0, 1 + spread xi_tile)",
        source="an assumption of the form; no figures are built in",
    ),
    "accumulated_read_noise": Effect(
        title="accumulated 1/f read noise",
        stage="device",
        path="nonidealities.device.accumulated_read_noise",
        off=0.0,
        unit="factor",
        does="low-frequency noise moves every device further the longer it has been written",
        equation="g = max(0, g_D + f g_D Q(g_P) sqrt(ln((t + t0 + t_read) / (2 t_read))) xi)",
        source=_NANDAKUMAR,
    ),
    "stuck_at_zero": Effect(
        title="devices stuck at zero",
        stage="device",
        path="nonidealities.defects.stuck_at_zero",
        off=0.0,
        unit="share of devices",
        does="a share of the devices never conducts",
        equation="g = 0 with probability p",
        source=_USUAL,
    ),
    "stuck_at_g_max": Effect(
        title="devices stuck at g_max",
        stage="device",
        path="nonidealities.defects.stuck_at_g_max",
        off=0.0,
        unit="share of devices",
        does="a share of the devices always conducts fully",
        equation="g = g_max with probability p",
        source=_USUAL,
    ),
    "stuck_random": Effect(
        title="devices stuck anywhere",
        stage="device",
        path="nonidealities.defects.stuck_random",
        off=0.0,
        unit="share of devices",
        does="a share of the devices stays at a conductance of chance",
        equation="g = g_max U(0, 1) with probability p",
        source=_USUAL,
    ),
    "defect_map": Effect(
        title="known defects",
        stage="device",
        path="nonidealities.defects.map",
        off="off",
        unit="list of devices",
        does="devices that were found to be stuck stay where they are",
        equation="g = value g_max",
        source="a measurement of the user's own",
        scaling="switch",
    ),
    "dead_rows": Effect(
        title="dead rows",
        stage="device",
        path="nonidealities.defects.dead_rows",
        off=0.0,
        unit="share of rows",
        does="a share of the rows passes no input",
        equation="w_ij = 0 for all i with probability p",
        source=_USUAL,
    ),
    "dead_columns": Effect(
        title="dead columns",
        stage="device",
        path="nonidealities.defects.dead_columns",
        off=0.0,
        unit="share of columns",
        does="a share of the columns gives no current",
        equation="w_ij = 0 for all j with probability p",
        source=_USUAL,
    ),
    "dead_tiles": Effect(
        title="dead tiles",
        stage="device",
        path="nonidealities.defects.dead_tiles",
        off=0.0,
        unit="share of tiles",
        does="a share of the tiles gives no current",
        equation="w = 0 with probability p",
        source=_USUAL,
    ),
}

_STAGES = ("input", "mac", "output", "device")
EFFECTS: dict[str, Effect] = dict(
    sorted({**_STANDARD, **COLUMN_EFFECTS}.items(), key=lambda entry: _STAGES.index(entry[1].stage))
)


def active(spec: ChipSpec) -> tuple[str, ...]:
    """Names of the effects that the spec has on, on at least one tile type, in the order of the table."""
    data = plain(spec)
    on = []
    for name, effect in EFFECTS.items():
        if any(_is_on(data, effect, path) for path in _paths(spec, effect)):
            on.append(name)
    return tuple(on)


def switch_off(spec: ChipSpec, names: Collection[str] | str) -> ChipSpec:
    """The chip without these effects, or this one. Raises SpecError on a name that is not in the table.

    >>> from aimc_compiler.chip import load_chip
    >>> "drift" in active(switch_off(load_chip("hermes"), ["drift"]))
    False
    """
    names = _names(names)
    values = {path: effect.off for name, effect in EFFECTS.items() if name in names for path in _paths(spec, effect)}
    return _change(spec, values, "an effect switched off")


def all_off(spec: ChipSpec) -> ChipSpec:
    """The chip without any effect: converters, their bounds, range clipping and drift compensation off, too."""
    bare = switch_off(spec, tuple(EFFECTS))
    bounds: dict[str, Any] = {f"{tile}.adc.out_bound": "off" for tile in _tile_paths(spec)}
    return _change(bare, {**bounds, "nonidealities.drift_compensation": "off"}, "an effect switched off")


def only(spec: ChipSpec, names: Collection[str] | str) -> ChipSpec:
    """The chip with no effects but these, or this one, as they are in ``spec``.

    Drift compensation stays where drift does. Raises SpecError on a name that is not in the table.
    """
    names = _names(names)
    rest = switch_off(spec, [name for name in EFFECTS if name not in names])
    if "drift" in names:
        return rest
    return _change(rest, {"nonidealities.drift_compensation": "off"}, "an effect switched off")


def scale(spec: ChipSpec, name: str, factor: float) -> ChipSpec:
    """The chip with one effect ``factor`` times as strong: 0 is off, 1 changes nothing.

    A number is multiplied; a converter loses log2(factor) bits, so that factor is a power of two; a clipping is on or
    off, so that factor is 0 or 1. Raises SpecError on any other factor, and where the scaled figure is out of range.
    """
    effect = _effect(name)
    if not math.isfinite(factor) or factor < 0:
        raise SpecError(f"effect {name}: a factor of {factor:g} has no meaning; give 0 (off) or a positive number")
    if factor == 0:
        return switch_off(spec, [name])
    data = plain(spec)
    values = {path: _scaled(name, effect, value_at(data, path.split(".")), factor) for path in _paths(spec, effect)}
    return _change(spec, values, f"effect {name} scaled by {factor:g}")


def _scaled(name: str, effect: Effect, value: Any, factor: float) -> Any:
    if factor == 1 or value == effect.off:
        return value
    if effect.scaling == "factor":
        return value * factor
    if effect.scaling == "switch":
        raise SpecError(f"effect {name} is on or off: a factor of {factor:g} has no meaning; give 0 or 1")
    lost = math.log2(factor)
    if lost != int(lost):
        raise SpecError(f"effect {name} goes by whole bits: a factor of {factor:g} is no power of two; give 2, 4, 0.5")
    return value - int(lost)


def _names(names: Collection[str] | str) -> Collection[str]:
    """Each of them is in the table."""
    names = [names] if isinstance(names, str) else names
    for name in names:
        _effect(name)
    return names


def _change(spec: ChipSpec, values: Mapping[str, Any], note: str) -> ChipSpec:
    return override(spec, values, note) if values else spec


def _effect(name: str) -> Effect:
    if name not in EFFECTS:
        raise SpecError(f"no effect is called {name!r}; {suggest(name, tuple(EFFECTS), 'effects')}")
    return EFFECTS[name]


def _paths(spec: ChipSpec, effect: Effect) -> tuple[str, ...]:
    if not effect.per_tile:
        return (effect.path,)
    return tuple(f"{tile}.{effect.path}" for tile in _tile_paths(spec))


def _tile_paths(spec: ChipSpec) -> tuple[str, ...]:
    return ("tile",) if spec.tile is not None else tuple(dotted(("tiles", name)) for name in spec.tiles or ())


def _is_on(data: Mapping[str, Any], effect: Effect, path: str) -> bool:
    value = value_at(data, path.split("."))
    if effect.path == "adc.clip":
        # A converter without a bound has nothing to clip to.
        return bool(value) and value_at(data, [*path.split(".")[:-1], "out_bound"]) != "off"
    return bool(value != effect.off)
