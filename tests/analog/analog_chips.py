"""Tiles, nonidealities and pieces for the tests of the analog part, built in code."""

from typing import Any

from aimc_compiler.chip.spec import Nonidealities, Tile
from aimc_compiler.mapping.ir import Piece

OFF: dict[str, Any] = {
    "range_clip": False,
    "sigma_in": 0,
    "sigma_out": 0,
    "sigma_w": 0,
    "read_noise": "pcm",
    "ir_drop": 0,
    "r_wire": "0.35 ohm",
    "g_ir": "5 uS",
}
STANDARD: dict[str, Any] = {**OFF, "range_clip": True, "sigma_out": 0.04, "sigma_w": 0.0175, "ir_drop": 1.0}
NO_DEVICE = {"programming_noise": 0, "drift": 0, "accumulated_read_noise": 0}


def tile(
    rows: int = 512,
    columns: int = 512,
    dac: int | str = "off",
    adc: int | str = "off",
    bound: float | str = "off",
    **other: Any,
) -> Tile:
    """A tile; converters off unless given. other: further keys of the tile, ``device`` merged over PCM."""
    device = {"model": "pcm", "g_max": "25 uS", **other.pop("device", {})}
    mvm = {"time": "40 ns", "initiation_interval": "40 ns", "energy": "5.24 nJ"}
    return Tile.model_validate(
        {
            "rows": rows,
            "columns": columns,
            "count": "auto",
            "device": device,
            "dac": {"bits": dac, "input_mode": other.pop("input_mode", "pulse_width")},
            "adc": {"bits": adc, "out_bound": bound},
            "mvm": {**mvm, "split": {"adc": 0.65, "array": 0.2, "dac": 0.15}},
            **other,
        }
    )


def standard_tile(**other: Any) -> Tile:
    return tile(dac=8, adc=8, bound=10.0, **other)


def effects(
    mvm: dict[str, Any] | None = None, device: dict[str, Any] | None = None, compensation: str = "off", **other: Any
) -> Nonidealities:
    """Nonidealities: all off but for what is given; device: None for no device effect."""
    return Nonidealities.model_validate(
        {
            "mvm": {**OFF, **(mvm or {})},
            "device": NO_DEVICE if device is None else {**NO_DEVICE, **device},
            "drift_compensation": compensation,
            **other,
        }
    )


STANDARD_EFFECTS = effects(STANDARD, {"programming_noise": 1, "drift": 1, "accumulated_read_noise": 1}, "tile")


def pieces(
    groups: int,
    row_cuts: tuple[int, ...],
    column_cuts: tuple[int, ...],
    tile_row: int = 0,
    matrix: str = "layer",
) -> tuple[Piece, ...]:
    """The pieces of a matrix cut into row blocks and column blocks of these sizes; tile_row: of all of them."""
    made = []
    for group in range(groups):
        first_row = 0
        for row_block, rows in enumerate(row_cuts):
            first_column = 0
            for column_block, columns in enumerate(column_cuts):
                made.append(
                    Piece(
                        matrix=matrix,
                        group=group,
                        row_block=row_block,
                        column_block=column_block,
                        first_row=first_row,
                        rows=rows,
                        first_column=first_column,
                        columns=columns,
                        tile=len(made),
                        tile_row=tile_row,
                    )
                )
                first_column += columns
            first_row += rows
    return tuple(made)
