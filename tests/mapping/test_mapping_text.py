"""The text form and the verifier of mappings."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from chips_by_hand import chip_by_hand, residual_network, tile_by_hand

from aimc_compiler.errors import TextFormError, VerificationError
from aimc_compiler.mapping import Mapping, Piece, map_workload, parse_mapping, print_mapping, verify_mapping

CHIP = chip_by_hand(tile_by_hand(64, 64, 20))


@pytest.fixture
def mapping() -> Mapping:
    result = map_workload(residual_network(), CHIP)
    assert isinstance(result, Mapping)
    return result


def test_round_trip(mapping: Mapping) -> None:
    text = print_mapping(mapping)
    assert parse_mapping(text) == mapping
    assert print_mapping(parse_mapping(text)) == text
    assert text.splitlines()[0] == 'mapping workload="residual" chip="by-hand" mesh=[4,5] tiles_available=20'
    assert text.splitlines()[1] == (
        'piece matrix="stem" group=0 row_block=0 column_block=0 first_row=0 rows=27 first_column=0 columns=8 tile=0'
    )


def test_text_faults_are_located(mapping: Mapping) -> None:
    text = print_mapping(mapping)
    with pytest.raises(TextFormError, match=r"line 2: piece: (.|\n)*valid integer"):
        parse_mapping(text.replace(" tile=0\n", ' tile="zero"\n'))
    with pytest.raises(TextFormError, match="begins with its one 'mapping' line"):
        parse_mapping("\n".join(text.splitlines()[1:]))


def _with_piece(number: int, **changes: object) -> Callable[[Mapping], Mapping]:
    def change(mapping: Mapping) -> Mapping:
        pieces: list[Piece] = list(mapping.pieces)
        pieces[number] = replace(pieces[number], **changes)  # type: ignore[arg-type]
        return replace(mapping, pieces=tuple(pieces))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_with_piece(0, tile=1), "overlap on tile 1"),
        (_with_piece(0, tile=1, tile_row=30), "pieces s0.first/g0/r0/c0/n0 and stem/g0/r0/c0/n0 overlap on tile 1"),
        (_with_piece(0, tile=20), "stands on tile 20, which is no tile of type 'tile' on a mesh of 4 x 5"),
        (_with_piece(0, tile_row=40), r"\(27 x 8 at row 40, column 0\) is not inside tile 0 of 64 x 64 weights"),
        (_with_piece(0, rows=26), "'stem', group 0, replica 0: the weight at row 26, column 0 is held 0 times"),
        (_with_piece(0, first_row=-1), "reaches outside"),
        (_with_piece(0, group=1), "the weight at row 0, column 0 is held 0 times"),
        (_with_piece(0, replica=1), "held 0 times, not once"),
        (_with_piece(0, tile_type="other"), "tile type 'other', which chip 'by-hand' lacks"),
        (_with_piece(0, matrix="no"), "matrix 'no' has pieces on tiles but no analog use"),
        (lambda m: replace(m, pieces=(*m.pieces, replace(m.pieces[0], tile=19))), "row 0, column 0 is held 2 times"),
        (lambda m: replace(m, units=m.units[1:]), "operation 'stem.relu' has no digital unit"),
        (lambda m: replace(m, units=(*m.units, m.units[0])), "assigned to two units"),
        (lambda m: replace(m, units=(replace(m.units[0], unit=8), *m.units[1:])), "on digital unit 8 of 8"),
        (lambda m: replace(m, units=(replace(m.units[0], op="no"), *m.units[1:])), "'no' has a unit but is not in"),
    ],
)
def test_broken_mappings_are_caught(mapping: Mapping, change: Callable[[Mapping], Mapping], message: str) -> None:
    verify_mapping(mapping, residual_network(), CHIP)
    with pytest.raises(VerificationError, match=message):
        verify_mapping(change(mapping), residual_network(), CHIP)
