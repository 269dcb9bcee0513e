"""What a sensitivity study turns: the effects of the table, several of them together, and other figures of the chip.

A level is a factor on the chip's own figure, or the figure itself where the chip has the effect off; of a converter it
is its bits. Everything else stays as the chip has it.
"""

from typing import Any, Literal

from aimc_compiler.chip import EFFECTS, ChipSpec, override, switch_off
from aimc_compiler.chip.effect import Effect
from aimc_compiler.chip.figures import dotted, plain, suggest, value_at
from aimc_compiler.chip.schema import field_at
from aimc_compiler.errors import DataError
from aimc_compiler.records import record

Kind = Literal["factor", "value", "bits", "switch"]

#: Effects that are scaled together: what the fabrication of a device sets as a whole.
TOGETHER: dict[str, tuple[str, tuple[str, ...]]] = {
    "device_noise": ("programming and 1/f noise", ("programming_noise", "accumulated_read_noise")),
    "all_noise": (
        "all noise",
        ("input_noise", "read_noise", "output_noise", "programming_noise", "accumulated_read_noise"),
    ),
}
#: What a study takes on beside the effects that the chip has on.
USUAL = ("input_noise", "s_shape", "stuck_at_zero", "stuck_at_g_max", "stuck_random", "device_noise")
LARGEST_FACTOR = 1e4
#: Resolution that stands for a converter which the chip has none of.
_FINE = 12
_COARSEST = 2


@record
class Knob:
    """effects: of the table, scaled by one factor; kind: what a level is; figure: the chip's own, of the first effect
    on the first tile type; unit: of it; largest: level."""

    name: str
    title: str
    effects: tuple[str, ...]
    kind: Kind
    figure: bool | float | int | str
    unit: str
    largest: float

    @property
    def is_on(self) -> bool:
        """Whether the chip has it."""
        return self.kind != "value" and self.figure != EFFECTS[self.effects[0]].off

    def value(self, level: float) -> float:
        """The figure at a level."""
        return level * float(self.figure) if self.kind == "factor" else level

    def turned(self, chip: ChipSpec, level: float) -> ChipSpec:
        """The chip at this level. Raises SpecError where a figure is out of range."""
        values: dict[str, Any] = {}
        data = plain(chip)
        for name in self.effects:
            effect = EFFECTS[name]
            for path in figure_paths(chip, effect):
                own = value_at(data, path.split("."))
                if self.kind != "factor":
                    values[path] = round(level) if self.kind == "bits" else level
                elif own != effect.off:
                    values[path] = own * level
        return override(chip, values, f"{self.name} set for a study")

    def off(self, chip: ChipSpec) -> ChipSpec:
        """The chip without it."""
        return switch_off(chip, self.effects)


def figure_paths(chip: ChipSpec, effect: Effect) -> tuple[str, ...]:
    """Paths of an effect's figure: one of each tile type, where it belongs to tiles."""
    if not effect.per_tile:
        return (effect.path,)
    return tuple(f"{section}.{effect.path}" for section in _sections(chip))


def find_knob(name: str, chip: ChipSpec) -> Knob:
    """The knob of an effect, or of several together. Raises DataError on another name."""
    if name not in EFFECTS and name not in TOGETHER:
        raise DataError(f"no effect is called {name!r}; {suggest(name, (*EFFECTS, *TOGETHER), 'effects')}")
    title, effects = TOGETHER[name] if name in TOGETHER else (EFFECTS[name].title, (name,))
    data = plain(chip)
    own = {each: value_at(data, figure_paths(chip, EFFECTS[each])[0].split(".")) for each in effects}
    if name in TOGETHER:
        on = tuple(each for each in effects if own[each] != EFFECTS[each].off)
        if not on:
            raise DataError(f"chip {chip.name} has none of {', '.join(effects)} on, so {name} scales nothing")
        return Knob(
            name=name, title=title, effects=on, kind="factor", figure=1.0, unit="factor", largest=LARGEST_FACTOR
        )
    effect, figure = EFFECTS[name], own[name]
    kind: Kind = "switch"
    if effect.scaling == "bits":
        kind = "bits"
    elif effect.scaling == "factor":
        kind = "value" if figure == effect.off else "factor"
    return Knob(
        name=name,
        title=title,
        effects=effects,
        kind=kind,
        figure=figure,
        unit=effect.unit,
        largest=_largest(effect, figure, kind),
    )


def _largest(effect: Effect, figure: Any, kind: Kind) -> float:
    if kind == "bits":
        return float(_FINE if figure == "off" else figure)
    if kind == "switch":
        return 1.0
    path = ("tile", *effect.path.split(".")) if effect.per_tile else tuple(effect.path.split("."))
    field = field_at(path)
    limits = [limit for limit in map(_limit, field.metadata if field else ()) if limit is not None]
    most = min(limits, default=LARGEST_FACTOR)
    return most / float(figure) if kind == "factor" else most


def _limit(constraint: Any) -> float | None:
    found = getattr(constraint, "le", None)
    return None if found is None else float(found)


def bits_below(knob: Knob) -> tuple[int, ...]:
    """Whole bits from the chip's own down to the least that a converter has."""
    return tuple(range(int(knob.largest), _COARSEST - 1, -1))


def default_names(on: tuple[str, ...], chip: ChipSpec) -> tuple[str, ...]:
    """The effects that the chip has on, and the usual ones beside them."""
    noisy = any(each in on for each in TOGETHER["device_noise"][1])
    return tuple(dict.fromkeys([*on, *(name for name in USUAL if name != "device_noise" or noisy)]))


def scaled_g_max(chip: ChipSpec, factor: float) -> ChipSpec:
    """The chip with all devices' largest conductance times ``factor``, and with it the conductance of the IR drop."""
    values = {"nonidealities.mvm.g_ir": _siemens(chip.nonidealities.mvm.g_ir_s * factor)}
    for section, tile in zip(_sections(chip), chip.tile_types.values(), strict=True):
        values[f"{section}.device.g_max"] = _siemens(tile.device.g_max_s * factor)
    return override(chip, values, f"g_max scaled by {factor:g}")


def _siemens(value: float) -> str:
    return f"{value * 1e6:.9g} uS"


def _sections(chip: ChipSpec) -> tuple[str, ...]:
    """Where the tile types stand in the spec."""
    return ("tile",) if chip.tile is not None else tuple(dotted(("tiles", name)) for name in chip.tile_types)
