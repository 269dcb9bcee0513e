"""The chip: its spec, read strictly from YAML, its devices by name, and the table of its effects. No torch."""

from aimc_compiler.chip.builtin import builtin_names, load_chip
from aimc_compiler.chip.costs import COST_CLASSES, FREE
from aimc_compiler.chip.devices import DEVICES, register_device
from aimc_compiler.chip.effect import Effect
from aimc_compiler.chip.effects import EFFECTS, active, all_off, only, scale, switch_off
from aimc_compiler.chip.figures import Figure, figures, missing_provenance
from aimc_compiler.chip.reader import dump_yaml, json_schema, override, read_spec
from aimc_compiler.chip.spec import ChipSpec, Tile

__all__ = [
    "COST_CLASSES",
    "DEVICES",
    "EFFECTS",
    "FREE",
    "ChipSpec",
    "Effect",
    "Figure",
    "Tile",
    "active",
    "all_off",
    "builtin_names",
    "dump_yaml",
    "figures",
    "json_schema",
    "load_chip",
    "missing_provenance",
    "only",
    "override",
    "read_spec",
    "register_device",
    "scale",
    "switch_off",
]
