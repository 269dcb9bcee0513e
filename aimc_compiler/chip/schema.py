"""What the schema says about a path: its field, its type, the keys below it."""

import types
from collections.abc import Sequence
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from aimc_compiler.chip.quantity import SpecModel, Unit
from aimc_compiler.chip.spec import ChipSpec

ANY_KEY = "<name>"


def key_of(name: str, field: FieldInfo) -> str:
    """The key in YAML of a field."""
    return field.alias or name


def keys_at(path: Sequence[str | int]) -> tuple[str, ...]:
    """Keys that a section may have; none where it has names of the user's own, or is no section."""
    model = model_at(path)
    return tuple(key_of(name, field) for name, field in model.model_fields.items()) if model else ()


def model_at(path: Sequence[str | int]) -> type[SpecModel] | None:
    """The model of the section at a path."""
    kind: Any = ChipSpec
    for key in path:
        kind = _below(kind, key)
    return kind if isinstance(kind, type) and issubclass(kind, SpecModel) else None


def field_at(path: Sequence[str | int]) -> FieldInfo | None:
    """The field at a path; None below a user's own name, and where there is none."""
    model = model_at(path[:-1])
    return _field(model, path[-1]) if model and path else None


def unit_of(field: FieldInfo) -> Unit | None:
    """The unit that a quantity is written with; None for a plain number, text or section."""
    return next((found for found in _metadata(field) if isinstance(found, Unit)), None)


def bare(annotation: Any) -> Any:
    """The type without Annotated and without None."""
    while hasattr(annotation, "__metadata__"):
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
        return bare(kinds[0]) if len(kinds) == 1 else annotation
    return annotation


def _metadata(field: FieldInfo) -> list[Any]:
    found = list(field.metadata)
    pending = [field.annotation]
    while pending:
        kind = pending.pop()
        found += getattr(kind, "__metadata__", ())
        pending += [inner for inner in get_args(kind) if inner is not None]
    return found


def _below(kind: Any, key: str | int) -> Any:
    kind = bare(kind)
    if get_origin(kind) is dict:
        return bare(get_args(kind)[1])
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        field = _field(kind, key)
        return bare(field.annotation) if field else None
    return None


def _field(model: type[BaseModel], key: str | int) -> FieldInfo | None:
    return next((field for name, field in model.model_fields.items() if key_of(name, field) == key), None)
