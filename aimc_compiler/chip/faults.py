"""Faults of a spec in words: what pydantic found, at the place where it stands, with what to change."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from aimc_compiler.chip.figures import dotted, suggest
from aimc_compiler.chip.quantity import CrossCheckError, Path
from aimc_compiler.chip.schema import field_at, keys_at, unit_of
from aimc_compiler.chip.yaml_tree import Place, Tree

LocatedFault = tuple[Place, Path, str]

_NO_KIND = {
    "int": "is no whole number; write one, without quotes",
    "float": "is no number; write one, without quotes",
    "bool": "is neither true nor false; write one of the two, without quotes",
    "string": "is no text; put it in quotes",
    "tuple": "is no list; write [..., ...]",
    "finite": "is not finite; write a number",
}
_LIMITS = {
    "greater_than": ("gt", "must be greater than"),
    "greater_than_equal": ("ge", "must be at least"),
    "less_than": ("lt", "must be less than"),
    "less_than_equal": ("le", "must be at most"),
}


def message(faults: Sequence[LocatedFault]) -> str:
    """A line a fault, sorted as they stand in the text."""
    ordered = sorted(faults, key=lambda fault: fault[0].order)
    return "\n".join(": ".join(filter(None, (place.label, dotted(path), text))) for place, path, text in ordered)


def located(error: ValidationError, tree: Tree) -> list[LocatedFault]:
    """The faults that pydantic found, each at its key, its value, or the section where it is missing."""
    by_path: dict[tuple[Path, bool], list[Mapping[str, Any]]] = {}
    faults: list[LocatedFault] = []
    for found in error.errors(include_url=False):
        cause = found.get("ctx", {}).get("error")
        if isinstance(cause, CrossCheckError):
            faults += _cross_faults(found["loc"], cause, tree)
            continue
        path, key_fault = _path_in(tree.data, found)
        by_path.setdefault((path, key_fault), []).append(found)
    unread = [path for _, path, _ in tree.faults]
    for (path, key_fault), group in by_path.items():
        if path in unread or _follows(path, group, tree.data):
            continue
        place = (tree.keys.get(path) if key_fault else None) or tree.place_of(path)
        faults.append((place, path, _describe(path, group, tree.data)))
    return faults


def _follows(path: Path, group: Sequence[Mapping[str, Any]], data: Any) -> bool:
    """A list that is long enough, but for entries with faults of their own."""
    found = group[0]
    value = _value(data, path)
    return found["type"] == "too_short" and isinstance(value, list) and len(value) >= found["ctx"]["min_length"]


def _cross_faults(location: Path, cause: CrossCheckError, tree: Tree) -> Iterator[LocatedFault]:
    for below, text in cause.faults:
        path = (*location, *below)
        yield tree.place_of(path), path, text


def _path_in(data: Any, found: Mapping[str, Any]) -> tuple[Path, bool]:
    """The path of a fault without the tags that pydantic adds for the members of a union; whether it is the key's."""
    location: Path = found["loc"]
    if found["type"] == "missing":
        return location, False
    if location and location[-1] == "[key]":
        return location[:-1], True
    depth = 0
    for key in location:
        inside = isinstance(data, dict) and key in data
        if not inside and not (isinstance(data, list) and isinstance(key, int) and key < len(data)):
            break
        data = data[key]
        depth += 1
    return location[:depth], found["type"] == "extra_forbidden"


def _describe(path: Path, group: Sequence[Mapping[str, Any]], data: Any) -> str:
    value = _value(data, path)
    words = next((found["ctx"]["expected"] for found in group if found["type"] == "literal_error"), None)
    others = [found for found in group if found["type"] != "literal_error"]
    if words is not None and others:
        if isinstance(value, str | bool) or value is None:
            return f"is {_shown(value)}; write a number or {words}"
        return f"{_one(path, others[0], value)}, or {words}"
    return _one(path, group[0], value)


def _one(path: Path, found: Mapping[str, Any], value: Any) -> str:
    kind, context = found["type"], found.get("ctx", {})
    if kind == "extra_forbidden":
        return f"unknown key; {suggest(str(path[-1]), keys_at(path[:-1]), 'known keys')}"
    if kind == "missing":
        return _missing(path)
    if kind == "literal_error":
        shown = path[-1] if found["loc"][-1] == "[key]" else value
        return _no_choice(shown, context["expected"])
    if kind in _LIMITS:
        bound, words = _LIMITS[kind]
        return f"is {_shown(value)}; {words} {context[bound]:g}"
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        known = ", ".join(keys_at(path)) or "names of your own"
        return f"is {_shown(value)}, no section; write the keys below it ({known})"
    if kind == "value_error":
        return str(context["error"])
    no_kind = _NO_KIND.get(kind.partition("_")[0])
    return f"is {_shown(value)}, which {no_kind}" if no_kind and "pattern" not in kind else _as_found(found, value)


def _missing(path: Path) -> str:
    if isinstance(path[-1], int):
        return f"missing; the list needs {path[-1] + 1} entries or more"
    field = field_at(path)
    if field is None:
        return "missing; add it"
    unit = unit_of(field)
    example = f"'{path[-1]}: {unit.example}'" if unit else f"'{path[-1]}'"
    return f"missing; add {example}: {field.description}"


def _no_choice(value: object, expected: str) -> str:
    known = re.findall(r"'([^']*)'", expected)
    hint = suggest(str(value), known)
    return f"is {_shown(value)}; use {expected}" + (f"; {hint}" if hint.startswith("did") else "")


def _as_found(found: Mapping[str, Any], value: Any) -> str:
    if found["type"] == "string_pattern_mismatch":
        return f"is {_shown(value)}; use letters, digits, - and _ alone"
    if found["type"] in ("too_long", "too_short"):
        allowed = found["ctx"].get("max_length", found["ctx"].get("min_length"))
        return f"has {len(value)} entries; write {allowed}{' or more' if found['type'] == 'too_short' else ''}"
    return f"is {_shown(value)}: {found['msg']}; change it"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a section"
    return "nothing" if value is None else repr(value)


def _value(data: Any, path: Path) -> Any:
    for key in path:
        if isinstance(data, dict):
            data = data.get(key)
        else:
            data = data[key] if isinstance(data, list) and isinstance(key, int) and key < len(data) else None
    return data
