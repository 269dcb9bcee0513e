"""The text form of a Mapping: a ``mapping`` line, a line a piece, a line a unit; it parses back to the same value."""

from aimc_compiler.mapping.ir import Mapping, Piece, UnitAssignment
from aimc_compiler.records import parse_headed, print_records, record


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
    header, records = parse_headed(text, _KINDS, "mapping")
    return Mapping(
        workload=header.workload,
        chip=header.chip,
        mesh=header.mesh,
        tiles_available=header.tiles_available,
        pieces=tuple(item for item in records if isinstance(item, Piece)),
        units=tuple(item for item in records if isinstance(item, UnitAssignment)),
    )
