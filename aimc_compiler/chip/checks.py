"""Figures of a spec that must agree with one another: each function gives the faults it finds, with their paths."""

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from aimc_compiler.chip.devices import DEVICES
from aimc_compiler.chip.figures import dotted, plain, section_paths, suggest, value_at
from aimc_compiler.chip.quantity import Fault

if TYPE_CHECKING:
    from aimc_compiler.chip.spec import (
        Adc,
        ChipSpec,
        Dac,
        EnergySplit,
        LocalDigital,
        Mvm,
        MvmNonidealities,
        Tile,
    )
    from aimc_compiler.chip.stored import Defects, Device

#: What is zero or off on a chip without input ranges and column scales, below ``nonidealities``.
_OFF_WITHOUT_RANGE = {
    "mvm.range_clip": False,
    "mvm.sigma_in": 0,
    "mvm.sigma_out": 0,
    "mvm.sigma_w": 0,
    "mvm.ir_drop": 0,
    "mvm.input_scaling": "none",
    "mvm.input_asymmetry": 0,
    "mvm.output_asymmetry": 0,
    "mvm.v_offset_std": 0,
    "mvm.r_series": 0,
    "mvm.s_shape": 0,
    "mvm.slope_calibration": 0,
    "mvm.sigma_out_spread": 0,
    "mvm.bound_management": False,
    "device.programming_noise": 0,
    "device.drift": 0,
    "device.accumulated_read_noise": 0,
    "digital.activation_bits": "off",
    "digital.column_scale_bits": "off",
    "drift_compensation": "off",
    "defects.stuck_at_zero": 0,
    "defects.stuck_at_g_max": 0,
    "defects.stuck_random": 0,
    "defects.map": "off",
    "defects.dead_rows": 0,
    "defects.dead_columns": 0,
    "defects.dead_tiles": 0,
}
_OFF_WITHOUT_RANGE_TILE = {
    "dac.bits": "off",
    "adc.bits": "off",
    "adc.out_bound": "off",
    "adc.gain_std": 0,
    "adc.offset_std": 0,
}


def adc_has_a_step(adc: "Adc") -> Fault | None:
    """A converter's step is 2 out_bound / (2^bits - 2)."""
    if adc.bits == "off" or adc.out_bound != "off":
        return None
    return (
        "out_bound",
    ), "is off, so that bits has no step; give a number or calibrated, or set bits: off (clip: false only unclips)"


def one_curve(converter: "Dac | Adc", lowest: float) -> Iterator[Fault]:
    """A polynomial or a table, not both; a table rises from ``lowest``, or below, to 1 without leaving [-1, 1].

    What lies between the last point and the end of a converter is not for a program to guess.
    """
    table = converter.inl_table
    if table is None:
        return
    if converter.inl_curve is not None:
        yield ("inl_table",), "stands beside inl_curve; remove one of them"
    positions = [position for position, _ in table]
    for index, (before, position) in enumerate(pairwise(positions), 1):
        if position <= before:
            reason = f"at {position:g} follows {before:g}; give points in rising order, each position once"
            yield ("inl_table", index), reason
    if min(positions) < -1 or max(positions) > 1:
        outside = next(position for position in positions if not -1 <= position <= 1)
        yield ("inl_table",), f"has a point at {outside:g}; positions are over the bound, from -1 to 1"
    elif positions[0] > lowest or positions[-1] < 1:
        covered = f"covers {positions[0]:g} to {positions[-1]:g} of {lowest:g} to 1"
        yield (
            ("inl_table",),
            f"{covered}; add points at the ends, with the values next to them where none were measured",
        )


def zero_drives_nothing(dac: "Dac") -> Fault | None:
    """Rows that receive 0 are off: those of padding, and all but one while a tile is read for drift compensation."""
    if dac.inl_table is None or (0, 0) in dac.inl_table:
        return None
    return ("inl_table",), "lacks the point [0, 0]; an input of 0 drives nothing: take the value there off all points"


def shares_sum_to_one(split: "EnergySplit") -> Fault | None:
    total = split.adc + split.array + split.dac
    if abs(total - 1) <= 1e-9:
        return None
    return (), f"the shares adc, array and dac sum to {total:.12g}; change them so that they sum to 1"


def one_form(mvm: "Mvm") -> Iterator[Fault]:
    """Either the four figures, or modes and the one in use."""
    direct = {
        "time": mvm.time_s,
        "initiation_interval": mvm.initiation_interval_s,
        "energy": mvm.energy_j,
        "split": mvm.split,
    }
    if mvm.modes is None and mvm.mode is None:
        missing = [key for key, value in direct.items() if value is None]
        if missing:
            yield (
                (),
                f"{', '.join(missing)} missing; give time, initiation_interval, energy and split, or modes and mode",
            )
        return
    for key, value in direct.items():
        if value is not None:
            yield (key,), "stands beside modes; put it inside each of the modes, or remove modes and mode"
    if mvm.modes is None:
        yield ("mode",), f"is {mvm.mode!r}, but there are no modes; add modes, or remove mode"
    elif mvm.mode is None:
        yield (), f"mode missing; say which of the modes is in use: {', '.join(mvm.modes)}"
    elif mvm.mode not in mvm.modes:
        yield ("mode",), f"is {mvm.mode!r}, which is not among modes; {suggest(mvm.mode, tuple(mvm.modes))}"


def device_is_known(device: "Device") -> Iterator[Fault]:
    """The model is registered, and has what it needs and nothing else."""
    if device.model not in DEVICES:
        yield ("model",), f"is {device.model!r}, which is no device; {suggest(device.model, tuple(DEVICES))}"
        return
    if (device.model == "custom") != (device.custom is not None):
        what = (
            "is custom, without custom; add" if device.custom is None else f"is {device.model}, beside custom; remove"
        )
        yield ("model",), f"{what} the section custom"
    if device.extrapolate is not None and device.model != "reram_wan2022":
        yield ("extrapolate",), f"is given, but {device.model} has no fits that end; remove it"
    if device.significance is not None and len(device.significance) != device.pairs:
        yield (
            ("significance",),
            f"has {len(device.significance)} factors for {device.pairs} pairs; give one a pair, or leave it out",
        )


def stuck_at_most_all(defects: "Defects") -> Fault | None:
    if defects.stuck <= 1 + 1e-9:
        return None
    return (), f"stuck_at_zero, stuck_at_g_max and stuck_random sum to {defects.stuck:.12g} of all devices; at most 1"


def holds_a_weight(tile: "Tile") -> Iterator[Fault]:
    device = tile.device
    if device.rows_per_weight > tile.rows:
        yield (
            ("device", "rows_per_weight"),
            f"is {device.rows_per_weight}, more than the tile's {tile.rows} rows; a tile must hold one weight",
        )
    if device.slices > tile.columns:
        yield (
            ("device", "slices"),
            f"is {device.slices}, more than the tile's {tile.columns} columns; a tile must hold one weight",
        )
    if device.slices > 1 and device.bits_per_slice is None:
        yield ("device", "slices"), f"is {device.slices}, without bits_per_slice; add the bits that one cell holds"
    if device.slices == 1 and device.bits_per_slice is not None:
        yield ("device", "bits_per_slice"), "is given, but slices is 1; remove it, or give slices"
    if device.encoding == "differential" and device.flip_columns:
        yield ("device", "flip_columns"), "is true, but signs are stored differentially; set it to false"
    if device.encoding == "differential" and not tile.adc.signed:
        yield ("adc", "signed"), "is false, but differential columns give either sign; set it to true"
    if device.slices > 1 and tile.normalisation == "none":
        yield ("normalisation",), "is none, but sliced weights need a scale; set it to column"
    if tile.adc.columns_per_adc > tile.columns:
        yield (
            ("adc", "columns_per_adc"),
            f"is {tile.adc.columns_per_adc}, more than the tile's {tile.columns} columns; make it smaller",
        )


def ir_drop_has_a_wire(mvm: "MvmNonidealities") -> Iterator[Fault]:
    """The drop goes with r_wire times g_ir: without either there is none to multiply. The formula has one load."""
    for key, value in (("r_wire", mvm.r_wire_ohm), ("g_ir", mvm.g_ir_s)):
        if mvm.ir_drop > 0 and value == 0:
            yield (key,), f"is 0 while ir_drop is {mvm.ir_drop:g}; give it, or set ir_drop: 0"
    if mvm.ir_drop_load != "spread" and mvm.ir_drop_model == "closed_form":
        why = "but ir_drop_model is closed_form, which stands for spread"
        yield ("ir_drop_load",), f"is {mvm.ir_drop_load}, {why}; set ir_drop_model: exact, or this to spread"


def each_once(local: "LocalDigital") -> Fault | None:
    twice = [op for op in dict.fromkeys(local.ops) if local.ops.count(op) > 1]
    return (("ops",), f"{', '.join(twice)} stands twice; name each operation once") if twice else None


def chip_agrees(spec: "ChipSpec") -> Iterator[Fault]:
    """Checks across sections."""
    if (spec.tile is None) == (spec.tiles is None):
        what = "neither tile nor tiles is given" if spec.tile is None else "both tile and tiles are given"
        yield (() if spec.tile is None else ("tiles",)), f"{what}; give tile (one type) or tiles (several, by name)"
        return
    yield from _mesh_holds_tiles(spec)
    yield from _defects_are_on_tiles(spec)
    for path, tile in _tiles(spec):
        if tile.normalisation == "none":
            yield from _off_without_range(spec, path)
        elif tile.adc.out_bound == "off":
            yield from _bends_at_a_bound(spec, path)
    yield from _provenance(spec)


def _tiles(spec: "ChipSpec") -> "tuple[tuple[tuple[str, ...], Tile], ...]":
    if spec.tile is not None:
        return ((("tile",), spec.tile),)
    return tuple((("tiles", name), tile) for name, tile in (spec.tiles or {}).items())


def _mesh_holds_tiles(spec: "ChipSpec") -> Iterator[Fault]:
    counts = [tile.count for _, tile in _tiles(spec)]
    if spec.network.shape is None:
        return
    sites = spec.network.shape[0] * spec.network.shape[1]
    tiles = sum(count for count in counts if isinstance(count, int))
    if tiles > sites:
        shape = " x ".join(map(str, spec.network.shape))
        yield ("network", "shape"), f"{shape} has {sites} sites for {tiles} tiles; enlarge it, or lower the tile count"


def _defects_are_on_tiles(spec: "ChipSpec") -> Iterator[Fault]:
    tiles = [tile for _, tile in _tiles(spec)]
    limits = {
        "row": max(tile.weight_rows for tile in tiles),
        "column": max(tile.weight_columns for tile in tiles),
        "pair": max(tile.device.pairs * tile.device.slices for tile in tiles),
    }
    counts = [tile.count for tile in tiles if tile.count != "auto"]
    if len(counts) == len(tiles):
        limits["tile"] = sum(counts)
    known = spec.nonidealities.defects.map
    for index, defect in enumerate(() if known == "off" else known):
        for key, limit in limits.items():
            if getattr(defect, key) >= limit:
                path = ("nonidealities", "defects", "map", index, key)
                yield path, f"is {getattr(defect, key)}, of {limit} that count from 0; name one that is there"


def _off_without_range(spec: "ChipSpec", tile_path: tuple[str, ...]) -> Iterator[Fault]:
    """Without ranges and scales every bound and every noise would be in no known unit."""
    data = plain(spec)
    expected = {("nonidealities", *key.split(".")): off for key, off in _OFF_WITHOUT_RANGE.items()}
    expected |= {(*tile_path, *key.split(".")): off for key, off in _OFF_WITHOUT_RANGE_TILE.items()}
    for path, off in expected.items():
        value = value_at(data, path)
        if value != off:
            shown = str(off).lower()
            reason = f"{dotted(tile_path)}.normalisation is none, which leaves it without a range"
            yield path, f"is {_shown(value)}, but {reason}; set it to {shown}, or normalisation to column"


def _bends_at_a_bound(spec: "ChipSpec", tile_path: tuple[str, ...]) -> Iterator[Fault]:
    """Both figures are relative to the bound of the output converter."""
    mvm = spec.nonidealities.mvm
    for key, value in (("s_shape", mvm.s_shape), ("slope_calibration", mvm.slope_calibration)):
        if value:
            reason = f"{dotted(tile_path)}.adc.out_bound, which it goes by, is off; give out_bound a number, or set"
            yield ("nonidealities", "mvm", key), f"is {value:g}, but {reason} {key}: 0"


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _provenance(spec: "ChipSpec") -> Iterator[Fault]:
    known = section_paths(spec)
    for key, entry in spec.provenance.items():
        if key not in known:
            yield ("provenance", key), f"is no path of this spec; {suggest(key, known)}"
        if entry.source is None and entry.kind != "assumed":
            yield ("provenance", key, "kind"), f"is {entry.kind}, without a source; add source, a key of sources"
        if entry.source is not None and entry.source not in spec.sources:
            suggestion = suggest(entry.source, tuple(spec.sources))
            yield ("provenance", key, "source"), f"is {entry.source!r}, which is not among sources; {suggestion}"
