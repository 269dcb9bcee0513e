"""The text form of frozen records."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aimc_compiler.errors import TextFormError
from aimc_compiler.records import parse_records, print_records, record


@record
class Inner:
    size: int
    label: str = ""


@record
class Outer:
    name: str
    inner: Inner
    parts: tuple[Inner, ...] = ()
    weights: tuple[float, ...] = ()
    on: bool = False
    none: int | None = None


KINDS: dict[str, type] = {"outer": Outer, "inner": Inner}
inners = st.builds(Inner, size=st.integers(-(10**12), 10**12), label=st.text())
outers = st.builds(
    Outer,
    name=st.text(),
    inner=inners,
    parts=st.lists(inners, max_size=3).map(tuple),
    weights=st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=3).map(tuple),
    on=st.booleans(),
    none=st.none() | st.integers(0, 9),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(outers, max_size=4))
def test_round_trip(records: list[Outer]) -> None:
    text = print_records(("outer", each) for each in records)
    assert text.count("\n") == len(records)
    assert [found for _, found in parse_records(text, KINDS)] == records


def test_fields_at_their_default_are_left_out() -> None:
    assert print_records([("outer", Outer(name="a", inner=Inner(size=1)))]) == 'outer name="a" inner={"size":1}\n'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("bogus x=1", "line 3: no record is called 'bogus'; there are outer, inner"),
        ("inner size=1 extra=2", "line 3: inner: .*extra"),
        ('inner size="1"', "line 3: inner: .*size"),
        ("inner", "line 3: inner: .*size"),
        ("inner size=", "line 3: inner"),
        ("inner size=1 junk", "line 3: inner: expected key=value at 'junk'"),
        ('outer name="a" inner={"size":1,"more":2}', "line 3: outer: .*(?s:.)*more"),
    ],
)
def test_faults_name_their_line(line: str, message: str) -> None:
    with pytest.raises(TextFormError, match=message):
        list(parse_records(f"# a comment\n\n{line}\n", KINDS))
