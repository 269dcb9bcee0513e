"""The text form of the frozen levels: one record a line, fields as ``key=json``, and back.

A level (Workload, Mapping, Program) is a header record and a sequence of smaller records. Every record is a frozen
dataclass of numbers, strings, tuples and further such dataclasses; a line is its kind followed by its fields that
differ from their defaults::

    matrix name="head" rows=64 columns=10 groups=1
"""

import dataclasses
import gc
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar, dataclass_transform

from pydantic import ConfigDict, TypeAdapter, ValidationError

from aimc_compiler.errors import TextFormError

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def record(cls: type[T]) -> type[T]:
    """A frozen, slotted, keyword-only dataclass whose text form refuses unknown fields and wrong types."""
    cls.__pydantic_config__ = ConfigDict(extra="forbid", strict=True)  # type: ignore[attr-defined]
    return dataclasses.dataclass(frozen=True, slots=True, kw_only=True)(cls)


@contextmanager
def without_collection() -> Iterator[None]:
    """Without the collector of cycles: records hold none, and millions of new ones make it look again and again."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def print_records(records: Iterable[tuple[str, Any]]) -> str:
    """Lines for (kind, record) pairs, in order."""
    return "".join(f"{kind}{_fields_text(record)}\n" for kind, record in records)


def parse_records(text: str, kinds: Mapping[str, type]) -> Iterator[tuple[str, Any]]:
    """(kind, record) pairs from text; kinds: dataclass of each kind. Blank lines and ``#`` comments are passed over.

    Raises TextFormError with the line number on an unknown kind, an unknown field or a value of the wrong type.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        kind, _, rest = line.strip().partition(" ")
        if kind not in kinds:
            raise TextFormError(f"line {number}: no record is called {kind!r}; there are {', '.join(kinds)}")
        try:
            fields = json.dumps(dict(_split_fields(rest)))
            yield kind, _adapter(kinds[kind]).validate_json(fields)
        except ValidationError as error:
            raise TextFormError(f"line {number}: {kind}: {_faults(error)}") from error
        except ValueError as error:
            raise TextFormError(f"line {number}: {kind}: {error}") from error


def parse_headed(text: str, kinds: Mapping[str, type], header: str) -> tuple[Any, list[Any]]:
    """(the header, the other records) of a level's text. header: the kind that comes first, and once.

    Raises TextFormError as ``parse_records`` does, or where the text does not begin with its one header.
    """
    records = list(parse_records(text, kinds))
    count = [kind for kind, _ in records].count(header)
    if count != 1 or records[0][0] != header:
        raise TextFormError(f"a {header} begins with its one '{header}' line; there are {count}")
    return records[0][1], [value for _, value in records[1:]]


def _fields_text(record: Any) -> str:
    parts = []
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if field.default is not dataclasses.MISSING and value == field.default:
            continue
        parts.append(f" {field.name}={json.dumps(_plain(value), separators=(',', ':'), ensure_ascii=False)}")
    return "".join(parts)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _plain(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if field.default is dataclasses.MISSING or getattr(value, field.name) != field.default
        }
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value


def _split_fields(text: str) -> Iterator[tuple[str, Any]]:
    decoder = json.JSONDecoder()
    position = 0
    while position < len(text):
        equals = text.find("=", position)
        if equals < 0:
            raise ValueError(f"expected key=value at {text[position:]!r}")
        key = text[position:equals].strip()
        value, position = decoder.raw_decode(text, equals + 1)
        yield key, value
        while position < len(text) and text[position] == " ":
            position += 1


def _faults(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())


@cache
def _adapter(record_type: type) -> TypeAdapter[Any]:
    return TypeAdapter(record_type)
