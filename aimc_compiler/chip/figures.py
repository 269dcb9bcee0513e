"""The figures of a spec by dotted path: what they read as in YAML, and where they come from."""

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from aimc_compiler.records import record

if TYPE_CHECKING:
    from aimc_compiler.chip.spec import ChipSpec, Provenance

#: Sections whose leaves are figures of the chip. The others name and describe it.
FIGURE_SECTIONS = (
    "clock",
    "tile",
    "tiles",
    "nonidealities",
    "local_digital",
    "digital_units",
    "network",
    "buffers",
    "evaluation",
)
_SHOWN = 12


@record
class Figure:
    """path: dotted, as in ``tile.mvm.time``; value: as YAML has it; entry: path of the provenance that covers it."""

    path: str
    value: Any
    provenance: "Provenance | None" = None
    entry: str | None = None

    @property
    def text(self) -> str:
        """The value for people."""
        if isinstance(self.value, list):
            return "[" + ", ".join(map(str, self.value)) + "]"
        if isinstance(self.value, bool):
            return str(self.value).lower()
        return str(self.value).removesuffix(".0") if isinstance(self.value, float) else str(self.value)


def plain(spec: BaseModel) -> dict[str, Any]:
    """The spec as YAML has it: quantities are text with their unit; keys that are not given are left out."""
    return spec.model_dump(by_alias=True, mode="json", exclude_none=True)


def figures(spec: "ChipSpec") -> tuple[Figure, ...]:
    """Every figure of the chip, in the order of the schema, with the provenance entry that is nearest above it."""
    found = []
    for path, value in _leaves(plain(spec)):
        entry = _nearest_entry(path, spec.provenance)
        found.append(Figure(path=path, value=value, provenance=spec.provenance[entry] if entry else None, entry=entry))
    return tuple(found)


def missing_provenance(spec: "ChipSpec") -> tuple[str, ...]:
    """Paths of the figures that no entry of ``provenance`` covers, neither their own nor a section's above them."""
    return tuple(figure.path for figure in figures(spec) if figure.provenance is None)


def section_paths(spec: BaseModel) -> tuple[str, ...]:
    """Dotted paths of all figures and of the sections that hold them."""
    paths: dict[str, None] = {}
    for path, _ in _leaves(plain(spec)):
        parts = path.split(".")
        paths.update(dict.fromkeys(".".join(parts[:length]) for length in range(1, len(parts) + 1)))
    return tuple(paths)


def value_at(data: Mapping[str, Any], path: Sequence[str]) -> Any:
    """The value at a path of ``plain(spec)``; None where nothing is given."""
    value: Any = data
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def dotted(path: Sequence[str | int]) -> str:
    """``tile.mvm.time``; keys that hold dots themselves stand in brackets: ``provenance[tile.rows].kind``."""
    text = ""
    for key in path:
        part = f"[{key}]" if isinstance(key, int) or "." in key else f".{key}"
        text += part
    return text.removeprefix(".")


def suggest(word: str, known: Sequence[str], noun: str = "known") -> str:
    """ "did you mean 'rows'?", or what there is."""
    close = get_close_matches(word, known, n=1, cutoff=0.6) or [name for name in known if word and word in name][:1]
    if close:
        return f"did you mean '{close[0]}'?"
    if not known:
        return f"{noun}: none"
    return f"{noun}: {', '.join(known[:_SHOWN])}{', ...' if len(known) > _SHOWN else ''}"


def _leaves(data: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for section in FIGURE_SECTIONS:
        if section in data:
            yield from _below(section, data[section])


def _below(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        yield path, value
        return
    for key, inner in value.items():
        yield from _below(f"{path}.{key}", inner)


def _nearest_entry(path: str, entries: Mapping[str, object]) -> str | None:
    while path:
        if path in entries:
            return path
        path = path.rpartition(".")[0]
    return None
