"""Uses as arrays read and compare as the tuples they stand for."""

import numpy as np
import pytest

from aimc_compiler.errors import VerificationError
from aimc_compiler.program import Program, Resource, Task, parse_program, print_program, resource_loads, verify_program
from aimc_compiler.program.links import Links

USES = ((4, -1), (2, 0), (7, 1), (1, 0), (3, 3))


def links() -> Links:
    return Links(np.array([4, 2, 7, 1, 3], dtype=np.int32), [0, 3], [-1, 0])


def program(uses: object) -> Program:
    task = Task(name="send", kind="transfer", op="a", events=3, uses=uses, service_ticks=2, latency_ticks=2)  # type: ignore[arg-type]
    resources = tuple(Resource(name=f"link {number}", kind="link") for number in range(8))
    return Program(
        workload="net",
        chip="chip",
        tick_s=1e-9,
        macs=1,
        tiles=1,
        tiles_bound=1,
        energy_per_bit_j=0.0,
        resources=resources,
        tasks=(task,),
    )


def test_it_reads_as_a_tuple() -> None:
    assert tuple(links()) == USES
    assert [links()[place] for place in range(5)] == list(USES)
    assert links()[1:3] == USES[1:3]
    assert len(links()) == 5
    assert repr(links()) == repr(USES)


def test_it_compares_as_a_tuple() -> None:
    assert links() == USES
    assert links() == USES
    assert links() == links()
    assert hash(links()) == hash(USES)
    assert links() != USES[:4]
    assert links() != Links(np.array([4, 2, 7, 1, 3], dtype=np.int32), [0, 3], [-1, 1])


def test_programs_of_either_are_the_same() -> None:
    short, long = program(USES), program(links())
    assert short == long
    assert print_program(short) == print_program(long)
    assert parse_program(print_program(long)) == long
    assert resource_loads(short).tolist() == resource_loads(long).tolist() == [0, 6, 6, 6, 6, 0, 0, 6]
    verify_program(long)


@pytest.mark.parametrize(
    ("resources", "before"), [([4, 8, 1], [-1, 0]), ([4, -1, 1], [-1, 0]), ([4, 2, 1], [-1, 2]), ([4, 2, 1], [-2, 0])]
)
def test_faults_are_found(resources: list[int], before: list[int]) -> None:
    with pytest.raises(VerificationError, match="of task 'send' is of resource"):
        verify_program(program(Links(np.array(resources, dtype=np.int32), [0, 2], before)))
