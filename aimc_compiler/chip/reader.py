"""From YAML to a ChipSpec and back: strict, with the place of every fault, all faults at once."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from aimc_compiler.chip.faults import located, message
from aimc_compiler.chip.figures import FIGURE_SECTIONS, plain
from aimc_compiler.chip.spec import ChipSpec
from aimc_compiler.chip.yaml_tree import Place, Tree, read_tree, write_tree
from aimc_compiler.errors import SpecError

_NOT_SET = ("schema_version", "provenance")


def read_spec(source: Path | str, *, name: str | None = None, overrides: Sequence[str] = ()) -> ChipSpec:
    """The spec in a file (a Path) or in a text (a str).

    name: what a text is called in messages; overrides: "tile.rows=128", each read by the rules of YAML and set before
    the whole is checked. Raises SpecError with one line a fault: ``file:line:column: path: what; what to change``.

        >>> from aimc_compiler.chip import load_chip, dump_yaml
        >>> read_spec(dump_yaml(load_chip("hermes")), overrides=["tile.mvm.mode=four_phase"]).tile.mvm.mode
        'four_phase'
    """
    label = name or (str(source) if isinstance(source, Path) else "<text>")
    tree = read_tree(_text_of(source) if isinstance(source, Path) else source, label)
    for index, text in enumerate(overrides):
        _apply_text(tree, text, index)
    return _validate(tree)


def override(
    spec: ChipSpec,
    values: Mapping[str, Any],
    note: str = "set by the user",
    places: Mapping[str, Place] | None = None,
) -> ChipSpec:
    """Another spec with some figures changed, checked as a whole. values: dotted path to what YAML would hold there.

    The provenance of a changed figure becomes "assumed", with ``note``. places: where each value stands, for messages.
    Raises SpecError.

        >>> from aimc_compiler.chip import load_chip
        >>> override(load_chip("hermes"), {"tile.count": 16, "tile.mvm.mode": "four_phase"}).tile.count
        16
    """
    tree = Tree(plain(spec))
    tree.values[()] = Place(label=f"chip {spec.name}", order=(0, 0, 0))
    for index, (path, value) in enumerate(values.items()):
        place = (places or {}).get(path) or Place(label=f"override {path}={value}", order=(1, index, 0))
        _set(tree, path, value, place, note)
    return _validate(tree)


def dump_yaml(spec: ChipSpec) -> str:
    """YAML with units and every default written out; ``read_spec`` gives an equal spec."""
    return write_tree(plain(spec))


def json_schema() -> dict[str, Any]:
    """JSON Schema of the YAML, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **ChipSpec.model_json_schema(by_alias=True)}


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SpecError(f"{path}: the chip spec cannot be read: {error.strerror}; give another path") from error
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: the chip spec is no UTF-8 text (byte {error.start}); save it as UTF-8") from error


def _validate(tree: Tree) -> ChipSpec:
    faults = list(tree.faults)
    if not isinstance(tree.data, dict):
        raise SpecError(f"{tree.values[()].label}: a chip spec is a section of keys, beginning 'schema_version: 1'")
    try:
        # Strict validation of JSON: quoted numbers and 1.0 for a count are faults, lists are tuples.
        spec = ChipSpec.model_validate_json(json.dumps(tree.data), strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        faults += located(error, tree)
    if faults:
        raise SpecError(message(faults))
    return spec


def _apply_text(tree: Tree, text: str, index: int) -> None:
    place = Place(label=f"--set {text}", order=(1, index, 0))
    path, equals, value_text = text.partition("=")
    if not equals or not path.strip():
        tree.faults.append((place, (), "is no KEY=VALUE; write, for example, --set tile.rows=128"))
        return
    value = read_tree(value_text if value_text.strip() else "null", place.label)
    tree.faults += [(place, (*path.split("."), *below), what) for _, below, what in value.faults]
    _set(tree, path.strip(), value.data, place, f"set by the user (--set {text})")


def _set(tree: Tree, dotted_path: str, value: Any, place: Place, note: str) -> None:
    """Put a value into the data, making sections that rest on their defaults; faults at ``place``."""
    path = tuple(dotted_path.split("."))
    if not isinstance(tree.data, dict):
        return
    fault = _refusal(tree.data, path)
    if fault is not None:
        tree.faults.append((place, path, fault))
        return
    section = tree.data
    for depth, key in enumerate(path[:-1]):
        if not isinstance(section.get(key), dict):
            section[key] = {}
            tree.keys[path[: depth + 1]] = tree.values[path[: depth + 1]] = place
        section = section[key]
    if path[-1] in section and _same(section[path[-1]], value):
        return
    section[path[-1]] = value
    _move_places(tree, path, value, place)
    _mark_provenance(tree, path, value, place, note)


def _refusal(data: Mapping[str, Any], path: tuple[str, ...]) -> str | None:
    if "" in path:
        return "has an empty name between its dots; write, for example, tile.rows"
    if path[0] in _NOT_SET:
        return f"cannot be set this way; write a file with its own {path[0]}"
    if path[0] == "tile" and "tile" not in data and isinstance(data.get("tiles"), dict):
        return f"this chip has several tile types; set {', '.join(f'tiles.{name}' for name in data['tiles'])} instead"
    section: Any = data
    for depth, key in enumerate(path[:-1]):
        section = section.get(key)
        if section is not None and not isinstance(section, dict):
            return f"{'.'.join(path[: depth + 1])} is {section!r}, no section; set it as a whole"
        if section is None:
            return None
    return None


def _same(old: Any, new: Any) -> bool:
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (old, new))
    return (numbers or type(old) is type(new)) and bool(old == new)


def _move_places(tree: Tree, path: tuple[str, ...], value: Any, place: Place) -> None:
    for places in (tree.keys, tree.values):
        for known in [known for known in places if known[: len(path)] == path]:
            places[known] = place
    tree.keys[path] = tree.values[path] = place
    if isinstance(value, dict):
        for key, inner in value.items():
            _move_places(tree, (*path, key), inner, place)


def _mark_provenance(tree: Tree, path: tuple[str, ...], value: Any, place: Place, note: str) -> None:
    """A figure that was changed is no longer what its source says."""
    if path[0] not in FIGURE_SECTIONS:
        return
    entries = tree.data.setdefault("provenance", {})
    if not isinstance(entries, dict):
        return
    changed = ".".join(path)
    for key in [key for key in entries if key == changed or key.startswith(f"{changed}.")]:
        del entries[key]
    if value is not None:
        entries[changed] = {"kind": "assumed", "note": note}
        tree.keys["provenance", changed] = tree.values["provenance", changed] = place
