"""YAML by the core schema of version 1.2, with the place of every key and value."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aimc_compiler.chip.yaml_tree import read_tree, write_tree
from aimc_compiler.errors import SpecError

SCALARS = {
    "1e-9": 1e-9,
    "1.0e3": 1000.0,
    "+.5": 0.5,
    "-12": -12,
    "0o17": 15,
    "0x1F": 31,
    "010": 10,
    "off": "off",
    "on": "on",
    "yes": "yes",
    "no": "no",
    "true": True,
    "False": False,
    "null": None,
    "~": None,
    "1_000": "1_000",
    "12:30": "12:30",
    "2001-01-01": "2001-01-01",
    "'1e-9'": "1e-9",
    "<<": "<<",
    "-.inf": -math.inf,
}


@pytest.mark.parametrize(("text", "value"), SCALARS.items())
def test_core_schema(text: str, value: object) -> None:
    read = read_tree(f"key: {text}\n", "t").data["key"]
    assert read == value
    assert type(read) is type(value)


def test_not_a_number_is_read() -> None:
    assert math.isnan(read_tree("key: .nan", "t").data["key"])


def test_places_of_keys_and_values() -> None:
    tree = read_tree("a: 1\nb:\n  c: [10, {d: 2}]\n", "t.yaml")
    assert tree.data == {"a": 1, "b": {"c": [10, {"d": 2}]}}
    assert tree.keys["b", "c"].label == "t.yaml:3:3"
    assert tree.values["b", "c", 0].label == "t.yaml:3:7"
    assert tree.values["b", "c", 1, "d"].label == "t.yaml:3:15"
    assert tree.place_of(("b", "missing", "deeper")) == tree.values["b",]


def test_equal_keys_are_a_fault_at_the_second() -> None:
    tree = read_tree("a: 1\nb: 2\na: 3\n", "t")
    place, path, text = tree.faults[0]
    assert (place.label, path) == ("t:3:1", ("a",))
    assert text == "the key stands twice, first in line 1; remove one of the two"
    assert tree.data == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1: 2", "the key 1 is no text; put it in quotes"),
        ("? [a]\n: 2", "the key a list or section is no text; put it in quotes"),
        ("a: &x {b: 1}\nc: *x", "is an alias (*name), which is not read; write the section out"),
        ("a: !!python/name:os.system x", "is not read; remove it"),
        ("a: !!int x", "x is no int that can be held; change it"),
        (f"a: {'9' * 5000}", "is no int that can be held; change it"),
    ],
)
def test_lesser_faults(text: str, message: str) -> None:
    assert [message in found for _, _, found in read_tree(text, "t").faults] == [True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: b: c", "t:1:5: this is no YAML: mapping values are not allowed here; look at the indentation"),
        ("a: {b: 1\nc: 2", "t:2:2: this is no YAML: while parsing a flow mapping"),
        ("a: 1\nb: \x00", "t:2:4: this is no YAML: special characters are not allowed; remove the character"),
        ("", "t:1:1: the file is empty"),
        ("# only a comment", "t:1:1: the file is empty"),
        ("a: 1\n---\nb: 2", "t:2:1: this is no YAML: expected a single document"),
        ("[" * 20_000, "sections are nested too deeply"),
    ],
)
def test_no_yaml(text: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        read_tree(text, "t")
    assert message in str(caught.value)


_TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=8) | st.sampled_from(
    [*SCALARS, "a: b", "- a", "#x", "a #b", "{", "*a", "&a", "!a", "%", "@", "'", '"', "|", "? a"]
)
_LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _TEXT
_DATA = st.recursive(_LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3))


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(_TEXT, _DATA, min_size=1, max_size=4))
def test_written_data_reads_back(data: dict[str, object]) -> None:
    tree = read_tree(write_tree(data), "t")
    assert tree.faults == []
    assert tree.data == data
