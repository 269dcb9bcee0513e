"""From YAML to a Sweep: strict, with the place of every fault, all faults at once."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from aimc_compiler.analog.fast import parse_precision
from aimc_compiler.calibration import RangeMethod
from aimc_compiler.chip import ChipSpec, load_chip, override
from aimc_compiler.chip.faults import LocatedFault, message
from aimc_compiler.chip.figures import suggest
from aimc_compiler.chip.yaml_tree import Place, Tree, read_tree
from aimc_compiler.compiler import load
from aimc_compiler.errors import AimcError, SweepError
from aimc_compiler.metrics import find_metric
from aimc_compiler.study.recalibration import Recalibration
from aimc_compiler.study.sweep.definition import RECALIBRATION, Setting, Sweep, combine
from aimc_compiler.study.times import require_times
from aimc_compiler.units import parse_quantity, parse_times

Read = Callable[[Any], Any]
#: More settings than anybody waits for are a slip of the pen.
MOST_SETTINGS = 10_000


class _WrongValueError(Exception):
    """What a value is, and what to write instead. below: the path of it under its key."""

    def __init__(self, text: str, *below: str | int) -> None:
        super().__init__(text)
        self.below = below


def read_sweep(path: Path) -> Sweep:
    """The sweep in a YAML file. Raises SweepError, one line a fault: ``file:line:column: key: what; what to change``.

    Keys are those of ``docs/sweeps.md``.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SweepError(
            f"{path} cannot be read: {error}; give the path of a YAML file that defines a sweep"
        ) from error
    if not text.strip():
        raise SweepError(f"{path}:1:1: the file is empty; a sweep begins with 'schema_version: 1'")
    try:
        tree = read_tree(text, str(path), what="sweep")
    except AimcError as error:
        raise SweepError(str(error)) from error
    if not isinstance(tree.data, dict):
        raise SweepError(f"{tree.values[()].label}: a sweep is a section of keys, beginning 'schema_version: 1'")
    return _Reader(tree).sweep()


class _Reader:
    """Takes the keys of a tree one by one, and gathers what is wrong with them."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._faults: list[LocatedFault] = list(tree.faults)

    def sweep(self) -> Sweep:
        self._check_keys()
        found = {key: self._take(key, read) for key, read in _OPTIONAL.items() if key in self._tree.data}
        needed = {key: self._take(key, _text) for key in ("network", "data")}
        base = self._base(needed["network"])
        points = self._points()
        self._check_together(needed["network"])
        if self._faults or base is None:
            raise SweepError(message(self._faults))
        settings = self._settings(base, points, found.get(RECALIBRATION, "always"))
        if self._faults:
            raise SweepError(message(self._faults))
        times = require_times(found.pop("times", None) or base.evaluation.times_s)
        axes = tuple(name for name, _ in points[0])
        n_chips = {"n_chips": found.pop("chips")} if "chips" in found else {}
        return Sweep(chip=base, axes=axes, settings=settings, times_s=times, **needed, **n_chips, **found)

    def _check_keys(self) -> None:
        known = ("schema_version", "network", "data", "chip", "set", "grid", "zip", *_OPTIONAL)
        for key in self._tree.data:
            if key not in known:
                self._fault((key,), f"unknown key; {suggest(key, known, 'known keys')}", at_key=True)
        if self._tree.data.get("schema_version") != 1:
            self._fault(("schema_version",), "must be 1, the version of this form; write 'schema_version: 1'")

    def _check_together(self, network: str | None) -> None:
        if network is not None and network.endswith(".aimc"):
            for key in ("chip", "rules"):
                if key in self._tree.data:
                    self._fault(
                        (key,), f"{network} is compiled and has its own; leave it out, or name the network itself"
                    )
        if "calibration" not in self._tree.data:
            for key in ("ranges", "output_ranges"):
                if key in self._tree.data:
                    self._fault((key,), "sets nothing without data; add 'calibration: DATA'")

    def _take(self, key: str, read: Read) -> Any:
        """The value of a key, or None and a fault."""
        if key not in self._tree.data:
            self._fault((), f"'{key}' is missing; add '{key}: {_EXAMPLES[key]}'")
            return None
        try:
            return read(self._tree.data[key])
        except _WrongValueError as wrong:
            self._fault((key, *wrong.below), str(wrong))
        except AimcError as error:
            self._fault((key,), str(error))
        return None

    def _base(self, network: str | None) -> ChipSpec | None:
        """The chip before any axis, with what ``set`` changes."""
        try:
            if network is not None and network.endswith(".aimc"):
                base = load(network).chip
            else:
                base = load_chip(self._take("chip", _text) if "chip" in self._tree.data else "analog-fabric")
        except AimcError as error:
            self._fault(("chip",) if "chip" in self._tree.data else ("network",), str(error))
            return None
        fixed = self._tree.data.get("set", {})
        if not isinstance(fixed, dict):
            self._fault(("set",), "is no section; write figures of the chip below it, as in 'tile.count: 16'")
            return None
        places = {path: self._tree.values["set", path] for path in fixed}
        return self._changed(base, fixed, places)

    def _points(self) -> list[tuple[tuple[str, Any], ...]]:
        """Every point of the axes, as they are written."""
        grid, together = self._axes("grid"), self._axes("zip")
        for name in together:
            if name in grid:
                self._fault(("zip", name), "stands under grid as well; leave one of the two", at_key=True)
        lengths = {len(values) for values in together.values()}
        if len(lengths) > 1:
            shown = ", ".join(f"{name} has {len(values)}" for name, values in together.items())
            self._fault(("zip",), f"lists that advance together have one length, but {shown}; write as many in each")
            return [()]
        count = math.prod(map(len, grid.values())) * max(lengths, default=1)
        if count > MOST_SETTINGS:
            self._fault(("grid",), f"comes to {count:,} settings; at most {MOST_SETTINGS:,}, so shorten a list")
            return [()]
        return combine(grid, together)

    def _axes(self, section: str) -> dict[str, list[Any]]:
        found = self._tree.data.get(section, {})
        if not isinstance(found, dict):
            self._fault((section,), "is no section; write lists below it, as in 'tile.adc.bits: [6, 7, 8]'")
            return {}
        axes: dict[str, list[Any]] = {}
        for name, values in found.items():
            if not isinstance(values, list) or not values:
                self._fault((section, name), "is no list of values; write at least one, as in '[6, 7, 8]'")
                continue
            if section == "grid":  # values of zip may come again beside others
                self._check_once(section, name, values)
            axes[name] = values
        return axes

    def _check_once(self, section: str, name: str, values: list[Any]) -> None:
        for index, value in enumerate(values):
            first = next(place for place, other in enumerate(values) if type(other) is type(value) and other == value)
            if first != index:
                self._fault((section, name, index), f"{value!r} stands twice in the list; remove one")

    def _settings(
        self, base: ChipSpec, points: list[tuple[tuple[str, Any], ...]], recalibration: str
    ) -> tuple[Setting, ...]:
        settings = []
        for index, point in enumerate(points):
            policy, figures, places = recalibration, {}, {}
            for name, value in point:
                place = self._place_of_value(name, value)
                if name == RECALIBRATION:
                    policy = self._policy(value, place)
                else:
                    figures[name], places[name] = value, place
            chip = self._changed(base, figures, places)
            if chip is not None:
                settings.append(Setting(index=index, values=point, chip=chip, recalibration=policy))
        return tuple(settings)

    def _place_of_value(self, name: str, value: Any) -> Place:
        section = "grid" if name in (self._tree.data.get("grid") or {}) else "zip"
        values = self._tree.data[section][name]
        index = next(place for place, other in enumerate(values) if type(other) is type(value) and other == value)
        return self._tree.values[section, name, index]

    def _policy(self, value: Any, place: Place) -> str:
        try:
            return str(Recalibration.parse(_text(value)))
        except (_WrongValueError, AimcError) as error:
            self._add((place, (RECALIBRATION,), str(error)))
            return "always"

    def _changed(self, chip: ChipSpec, figures: Mapping[str, Any], places: Mapping[str, Place]) -> ChipSpec | None:
        try:
            return override(chip, figures, "set by a sweep", places) if figures else chip
        except AimcError as error:
            for line in str(error).splitlines():
                place = next((each for each in places.values() if line.startswith(f"{each.label}:")), None)
                order = place.order if place else next(iter(places.values())).order
                self._add((Place(label="", order=order), (), line))
            return None

    def _fault(self, path: tuple[str | int, ...], text: str, *, at_key: bool = False) -> None:
        place = (self._tree.keys.get(path) if at_key else None) or self._tree.place_of(path)
        self._add((place, path, text))

    def _add(self, fault: LocatedFault) -> None:
        if fault not in self._faults:  # a value that does not hold comes up in many settings
            self._faults.append(fault)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise _WrongValueError(f"is {value!r}, no text; write a name or a reference")
    return value


def _checked(parse: Callable[[str], Any]) -> Read:
    """Text that ``parse`` takes."""

    def read(value: Any) -> str:
        parse(_text(value))
        return str(value)

    return read


def _count(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise _WrongValueError(f"is {value!r}; write a whole number, 1 or more")
    return value


def _seed(value: Any) -> int:
    if type(value) is not int:
        raise _WrongValueError(f"is {value!r}; write a whole number")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _WrongValueError(f"is {value!r}; write a number")
    return float(value)


def _policy(value: Any) -> str:
    return str(Recalibration.parse(_text(value)))


def _times(value: Any) -> tuple[float, ...]:
    if isinstance(value, str):
        return require_times(parse_times(value))
    if not isinstance(value, list) or not value:
        raise _WrongValueError(f"is {value!r}; write a list of times after programming, as in [1 s, 1 h, 1 day]")
    times: list[float] = []
    for index, each in enumerate(value):
        try:
            times += require_times([parse_quantity(each, "s")])
        except AimcError as error:
            raise _WrongValueError(str(error), index) from error
        if times[-1] in times[:-1]:
            raise _WrongValueError(f"{each} stands twice in the list; remove one", index)
    return tuple(times)


def _rules(value: Any) -> Any:
    if not isinstance(value, str | list | dict) or not value:
        raise _WrongValueError(
            f"is {value!r}; write the name of a preset, or patterns with settings as in {{head: {{analog: false}}}}"
        )
    return value


def _metric(value: Any) -> str:
    text = _text(value)
    if ":" not in text:
        find_metric(text)
    return text


_OPTIONAL: dict[str, Read] = {
    "calibration": _text,
    "ranges": _checked(RangeMethod.parse),
    "output_ranges": _checked(RangeMethod.parse),
    "rules": _rules,
    "batch": _count,
    "limit": _count,
    "metric": _metric,
    "chance": _number,
    "columns": _text,
    "norms": _text,
    "times": _times,
    "chips": _count,
    RECALIBRATION: _policy,
    "seed": _seed,
    "precision": _checked(parse_precision),
    "entry": _text,
}
_EXAMPLES = {"network": "zoo:fashion_resnet", "data": "zoo:fashion_test"}
