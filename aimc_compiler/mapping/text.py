"""The text form of a Mapping: a ``mapping`` line, a line a piece, a line a unit; it parses back to the same value."""

from aimc_compiler.errors import TextFormError
from aimc_compiler.mapping.ir import Mapping, Piece, UnitAssignment
from aimc_compiler.records import parse_records, print_records, record


@record
class Header:
    """The first line."""

    workload: str
    chip: str
    mesh: tuple[int, int]
    tiles_available: int | None = None


_KINDS: dict[str, type] = {"mapping": Header, "piece": Piece, "unit": UnitAssignment}


def print_mapping(mapping: Mapping) -> str:
    """Text that ``parse_mapping`` reads back."""
    header = Header(
        workload=mapping.workload, chip=mapping.chip, mesh=mapping.mesh, tiles_available=mapping.tiles_available
    )
    pieces = [("piece", piece) for piece in mapping.pieces]
    return print_records([("mapping", header), *pieces, *(("unit", unit) for unit in mapping.units)])


def parse_mapping(text: str) -> Mapping:
    """The Mapping of a text. Raises TextFormError with the line, or where the header is not the one first record."""
    records = list(parse_records(text, _KINDS))
    if not records or [kind for kind, _ in records].count("mapping") != 1 or records[0][0] != "mapping":
        raise TextFormError("the text of a mapping begins with its one 'mapping' line")
    header: Header = records[0][1]
    return Mapping(
        workload=header.workload,
        chip=header.chip,
        mesh=header.mesh,
        tiles_available=header.tiles_available,
        pieces=tuple(item for kind, item in records if kind == "piece"),
        units=tuple(item for kind, item in records if kind == "unit"),
    )
