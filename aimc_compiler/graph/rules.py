"""Rules as users write them: pairs of pattern and settings, presets by name, or a YAML file of both."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aimc_compiler.chip.spec import ChipSpec
from aimc_compiler.chip.yaml_tree import read_tree
from aimc_compiler.errors import RuleError, SpecError
from aimc_compiler.graph.ir import Graph
from aimc_compiler.graph.presets import PRESETS, preset_rules
from aimc_compiler.records import record
from aimc_compiler.workload.ir import Routing

#: The name of a preset, or patterns on module paths with their settings, in order: a mapping, or a sequence of pairs,
#: of mappings and of presets.
Rules = str | Mapping[str, Mapping[str, Any]] | Sequence[str | tuple[str, Mapping[str, Any]] | Mapping[str, Any]]
_SETTINGS: dict[str, type] = {
    "analog": bool,
    "tile_type": str,
    "groups_per_tile": int,
    "min_cells": int,
    "min_rows": int,
    "max_tiles": int,
    "experts": int,
    "active": int,
    "balance": str,
    "reason": str,
}
#: Settings that choose among matrices, and so say nothing of matrices that stay digital.
CHOICES = ("min_cells", "min_rows", "max_tiles")
#: How the tokens of a mixture of experts are assumed to be dealt.
BALANCES = ("even", "worst")


@record
class Rule:
    """One rule. min_cells, min_rows: matrices of fewer stay digital; max_tiles: for all matrices that the rule
    decides, None: no limit; tile_type: "" for the chip's first; groups_per_tile: at most so many, None: as many as
    fit; experts, active, balance: time a mixture of ``experts`` as if each token took ``active`` of them, dealt "even"
    or "worst" (all to the same), None: every expert for every token; reason: in words; preset: whose rule it is."""

    pattern: str
    analog: bool = True
    tile_type: str = ""
    groups_per_tile: int | None = None
    min_cells: int = 0
    min_rows: int = 0
    max_tiles: int | None = None
    experts: int | None = None
    active: int | None = None
    balance: str = "even"
    reason: str = ""
    preset: str = ""

    @property
    def assumption(self) -> str:
        """How a mixture is timed, in words; "" where every expert takes every token."""
        if self.experts is None or self.active is None:
            return ""
        return Routing(
            mixture="", experts=self.experts, active=self.active, balance="worst" if self.balance == "worst" else "even"
        ).assumption

    @property
    def title(self) -> str:
        """What reports call it."""
        return f"preset {self.preset!r}" if self.preset else f"rule {self.pattern!r}"


def read_rules(rules: Rules, graphs: Sequence[Graph], chip: ChipSpec) -> list[Rule]:
    """Every rule in order of precedence, presets written out. Raises RuleError on a form, a setting or a name that
    there is not, and on a preset where there is no graph to write it out for."""
    found: list[Rule] = []
    for entry in _entries(rules):
        if isinstance(entry, str):
            _check_preset(entry)
            if not graphs:
                raise RuleError(f"preset {entry!r} needs the network's graph: give example_inputs, or write patterns")
            pairs = preset_rules(entry, graphs)
            found += [Rule(pattern=pattern, preset=entry, **settings) for pattern, settings in pairs]
            continue
        pattern, settings = entry
        _check_settings(pattern, settings, chip)
        found.append(Rule(pattern=pattern, **settings))
    return found


def load_rules(path: str | Path) -> Rules:
    """The rules of a YAML file: a mapping from patterns to settings, or a list of such mappings and of presets.

    Raises RuleError where the file is not there or holds neither.
    """
    path = Path(path)
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise RuleError(
            f"{path} cannot be read: {error}; rules are a YAML file or one of {', '.join(PRESETS)}"
        ) from error
    if not text.strip():
        raise RuleError(f"{path} is empty: write rules, as in `head: {{analog: false}}`")
    try:
        tree = read_tree(text, str(path))
    except SpecError as error:
        raise RuleError(f"{error}; rules are a YAML mapping, as in `head: {{analog: false}}`") from error
    if tree.faults:
        raise RuleError("\n".join(f"{place.label}: {message}" for place, _, message in tree.faults))
    if not isinstance(tree.data, dict | list):
        raise RuleError(f"{path} holds {tree.data!r:.40}, no rules: write them as in `head: {{analog: false}}`")
    return tree.data


def _entries(rules: Rules) -> Iterable[str | tuple[str, dict[str, Any]]]:
    """Presets and pairs, in order."""
    for entry in [rules] if isinstance(rules, str | Mapping) else list(rules):
        if isinstance(entry, str):
            yield entry
        elif isinstance(entry, Mapping):
            yield from (_pair(item) for item in entry.items())
        else:
            yield _pair(entry)


def _pair(pair: Any) -> tuple[str, dict[str, Any]]:
    if not (isinstance(pair, tuple | list) and len(pair) == 2 and isinstance(pair[1], Mapping)):
        raise RuleError(
            f"{pair!r} is no rule: write (pattern, settings), as in ('head', {{'analog': False}}), or the name of a "
            f"preset ({', '.join(PRESETS)})"
        )
    return str(pair[0]), dict(pair[1])


def _check_preset(name: str) -> None:
    if name not in PRESETS:
        raise RuleError(f"there is no preset of rules {name!r}{suggest(name, list(PRESETS))}")


def _check_settings(pattern: str, settings: Mapping[str, Any], chip: ChipSpec) -> None:
    if not settings:
        raise RuleError(f"rule {pattern!r} sets nothing: give one of {', '.join(_SETTINGS)}")
    for key, value in settings.items():
        if key not in _SETTINGS:
            raise RuleError(f"rule {pattern!r}: there is no setting {key!r}{suggest(key, list(_SETTINGS))}")
        wanted = _SETTINGS[key]
        if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
            raise RuleError(f"rule {pattern!r}: {key} is {value!r}, a {type(value).__name__}: give a {wanted.__name__}")
        if isinstance(value, int) and wanted is int and value < 1:
            more = " experts" if key in ("experts", "active") else " (to keep all digital: analog: false)"
            raise RuleError(f"rule {pattern!r}: {key} is {value}: give 1 or more{more}")
    choices = [key for key in CHOICES if key in settings]
    if choices and settings.get("analog") is False:
        raise RuleError(f"rule {pattern!r}: analog is False, so {choices[0]} chooses nothing: leave out one of the two")
    _check_experts(pattern, settings)
    tile_type = settings.get("tile_type")
    if tile_type is not None and tile_type not in chip.tile_types:
        known = list(chip.tile_types)
        raise RuleError(f"rule {pattern!r}: {chip.name} has no tile type {tile_type!r}{suggest(tile_type, known)}")


def _check_experts(pattern: str, settings: Mapping[str, Any]) -> None:
    given = [key for key in ("experts", "active", "balance") if key in settings]
    if not given:
        return
    experts, active, balance = settings.get("experts"), settings.get("active"), settings.get("balance", "even")
    if experts is None or active is None:
        raise RuleError(
            f"rule {pattern!r}: {', '.join(given)} without {'experts' if experts is None else 'active'}: a mixture "
            "needs both, as in {'experts': 8, 'active': 2}"
        )
    if active > experts:
        raise RuleError(f"rule {pattern!r}: active is {active}, more than the {experts} experts there are: give fewer")
    if balance not in BALANCES:
        raise RuleError(f"rule {pattern!r}: there is no balance {balance!r}{suggest(balance, list(BALANCES))}")


def suggest(word: str, known: list[str]) -> str:
    """The end of an error: the nearest known word, else all of them."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(known) or 'none'}"
