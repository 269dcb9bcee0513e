"""The Workload's text form, its verifier and its networkx form, on one made by hand."""

from dataclasses import replace
from typing import Any

import networkx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aimc_compiler.errors import TextFormError, VerificationError
from aimc_compiler.workload import (
    Access,
    DigitalOp,
    Matrix,
    MatrixOp,
    TensorShape,
    Workload,
    parse_workload,
    print_workload,
    to_networkx,
    verify_workload,
)
from aimc_compiler.workload.loops import components

SLIDING = Access(
    kind="sliding",
    input_size=(4, 4),
    output_size=(2, 2),
    kernel=(3, 3),
    stride=(2, 2),
    padding=(1, 1),
    dilation=(1, 1),
)
CONV = MatrixOp(
    name="conv",
    matrix="conv",
    kind="conv2d",
    windows=4,
    input="x",
    output="conv",
    access=SLIDING,
    analog=True,
    reason="rule 'c*' says analog",
    source="net.py:3",
)
RELU = DigitalOp(
    name="relu",
    op="relu",
    cost_class="elementwise",
    inputs=("conv",),
    accesses=(Access(kind="same"),),
    output="relu",
    work=20,
)
SMALL = Workload(
    name="small",
    inputs=("x",),
    outputs=("relu",),
    tensors=(
        TensorShape(name="x", windows=16, width=3),
        TensorShape(name="conv", windows=4, width=5),
        TensorShape(name="relu", windows=4, width=5, itemsize=8),
    ),
    matrices=(Matrix(name="conv", parameter="conv.weight", rows=27, columns=5, kernel=9),),
    ops=(CONV, RELU),
)
TEXT = """\
workload name="small" inputs=["x"] outputs=["relu"]
tensor name="x" windows=16 width=3
tensor name="conv" windows=4 width=5
tensor name="relu" windows=4 width=5 itemsize=8
matrix name="conv" parameter="conv.weight" rows=27 columns=5 kernel=9
matrix_op name="conv" matrix="conv" kind="conv2d" windows=4 input="x" output="conv" access={"kind":"sliding",\
"input_size":[4,4],"output_size":[2,2],"kernel":[3,3],"stride":[2,2],"padding":[1,1],"dilation":[1,1]} \
analog=true reason="rule 'c*' says analog" source="net.py:3"
digital_op name="relu" op="relu" cost_class="elementwise" inputs=["conv"] accesses=[{"kind":"same"}] output="relu" \
work=20
"""


def test_text_form() -> None:
    assert print_workload(SMALL) == TEXT
    assert parse_workload(TEXT) == SMALL
    verify_workload(SMALL)


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("width=3", 'width="3"', "line 2: tensor:"),
        ("width=3", "breadth=3", "line 2: tensor:"),
        ("matrix name", "crossbar name", "line 5: no record is called 'crossbar'"),
        ('workload name="small"', '# name="small"', "a workload begins with its one 'workload' line; there are 0"),
    ],
)
def test_text_that_does_not_parse(old: str, new: str, text: str) -> None:
    with pytest.raises(TextFormError, match=text):
        parse_workload(TEXT.replace(old, new, 1))


def test_text_keeps_how_many_groups_share_a_tile() -> None:
    apart = replace(SMALL, ops=(replace(CONV, groups_per_tile=1), RELU))
    assert "groups_per_tile=1" in print_workload(apart)
    assert parse_workload(print_workload(apart)) == apart


def changed(record: Any, **changes: Any) -> Any:
    return replace(record, **changes)


@pytest.mark.parametrize(
    ("workload", "text"),
    [
        (changed(SMALL, tensors=(*SMALL.tensors, SMALL.tensors[0])), "tensor names are not unique"),
        (changed(SMALL, ops=(RELU, CONV)), "'relu' reads 'conv' before it is produced"),
        (changed(SMALL, outputs=("y",)), "output 'y' is never produced"),
        (changed(SMALL, inputs=("x", "y")), "input 'y' is no tensor"),
        (changed(SMALL, ops=(CONV,), outputs=("conv",)), "tensor 'relu' is never produced"),
        (changed(SMALL, ops=(CONV, RELU, changed(RELU, name="again"))), "'again' writes 'relu', which exists already"),
        (changed(SMALL, ops=(CONV, changed(RELU, accesses=()))), "'relu' has 0 accesses for 1 inputs"),
        (changed(SMALL, ops=(CONV, changed(RELU, cost_class="magic"))), "unknown cost class 'magic'"),
        (changed(SMALL, ops=(CONV, changed(RELU, cost_class="free"))), "is free, but has work 20"),
        (changed(SMALL, ops=(changed(CONV, matrix="c"), RELU)), "uses matrix 'c', which does not exist"),
        (changed(SMALL, ops=(changed(CONV, groups_per_tile=0), RELU)), "'conv' lets 0 groups share a tile"),
        (changed(SMALL, ops=(changed(CONV, windows=3), RELU)), "has 3 windows, its output 4"),
        (changed(SMALL, ops=(changed(CONV, access=Access(kind="all")), RELU)), "slides a kernel of 1, its matrix 9"),
        (changed(SMALL, ops=(changed(CONV, access=changed(SLIDING, stride=(2,))), RELU)), "number of dimensions"),
        (changed(SMALL, ops=(changed(CONV, access=changed(SLIDING, input_size=(4, 5))), RELU)), "do not match grids"),
        (changed(SMALL, ops=(changed(CONV, access=changed(SLIDING, kernel=(9, 0))), RELU)), "not positive"),
        (changed(SMALL, ops=(changed(CONV, access=Access(kind="same")), RELU)), "16 input and 4 output windows"),
        (changed(SMALL, matrices=(changed(SMALL.matrices[0], rows=18),)), "reads 3 channels, its matrix has 2"),
        (changed(SMALL, matrices=(changed(SMALL.matrices[0], columns=4),)), "writes 5 outputs, its matrix has 4"),
        (changed(SMALL, matrices=(changed(SMALL.matrices[0], rows=28),)), "rows are no multiple of kernel"),
        (changed(SMALL, matrices=(changed(SMALL.matrices[0], groups=0),)), "a size that is not positive"),
        (
            changed(SMALL, matrices=(*SMALL.matrices, changed(SMALL.matrices[0], name="more"))),
            "matrix 'more' is used by no operation",
        ),
    ],
)
def test_each_invariant_is_checked(workload: Workload, text: str) -> None:
    with pytest.raises(VerificationError, match=text):
        verify_workload(workload)


STATE = TensorShape(name="h", windows=4, width=5)
BACK = MatrixOp(
    name="back",
    matrix="back",
    kind="linear",
    windows=4,
    input="h",
    output="back",
    access=Access(kind="previous"),
    analog=True,
    reason="test",
)
CELL = DigitalOp(
    name="cell",
    op="cell",
    cost_class="elementwise",
    inputs=("conv", "back"),
    accesses=(Access(kind="same"), Access(kind="same")),
    output="h",
    work=20,
)
LOOP = changed(
    SMALL,
    outputs=("h",),
    tensors=(*SMALL.tensors[:2], STATE, changed(STATE, name="back"), changed(STATE, name="h0", windows=1)),
    inputs=("x", "h0"),
    matrices=(*SMALL.matrices, Matrix(name="back", parameter="back.weight", rows=5, columns=5)),
    ops=(CONV, changed(BACK, initial="h0"), CELL),
)


@pytest.mark.parametrize(
    ("ops", "text"),
    [
        (
            (CONV, changed(BACK, access=Access(kind="same")), CELL),
            "'back' reads 'h' before it is produced, with access",
        ),
        ((CONV, changed(BACK, input="y"), CELL), "'back' reads 'y' before it is produced"),
        (
            (CONV, BACK, changed(CELL, accesses=(CELL.accesses[0], Access(kind="all")))),
            "'cell' on 'back': window 0 needs input window 3, in a loop",
        ),
        ((CONV, BACK, changed(CELL, inputs=("conv", "back", "h"))), "'cell' has 2 accesses for 3 inputs"),
        ((CONV, changed(BACK, initial="conv"), CELL), "'back' begins with 4 windows of 5, not with one of 5"),
        (
            (CONV, changed(BACK, initial="h0", input="conv", access=Access(kind="same")), CELL),
            "'back' has an initial state, but no access 'previous'",
        ),
        ((CONV, changed(BACK, input="h0"), CELL), "window by window, but there are 1 input and 4 output windows"),
    ],
)
def test_each_invariant_of_loops_is_checked(ops: tuple[Any, ...], text: str) -> None:
    verify_workload(LOOP)
    with pytest.raises(VerificationError, match=text):
        verify_workload(changed(LOOP, ops=ops))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.lists(st.integers(0, 11), max_size=3), min_size=12, max_size=12))
def test_components_are_those_of_networkx(needs: list[list[int]]) -> None:
    """And each stands behind those that it needs."""
    found = components(needs)
    graph = networkx.DiGraph([(node, need) for node, made_by in enumerate(needs) for need in made_by])
    graph.add_nodes_from(range(12))
    assert {tuple(loop) for loop in found} == {tuple(sorted(c)) for c in networkx.strongly_connected_components(graph)}
    place = {node: index for index, loop in enumerate(found) for node in loop}
    assert all(place[need] <= place[node] for node, made_by in enumerate(needs) for need in made_by)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(st.integers(1, 9), st.integers(1, 4), st.integers(1, 3), st.integers(0, 2), st.integers(1, 2)),
        min_size=1,
        max_size=2,
    )
)
def test_last_needed_is_the_last_place_a_kernel_touches(axes: list[tuple[int, int, int, int, int]]) -> None:
    """Against enumerating the places of the kernel; places in the padding count as the nearest one."""
    axes = [axis for axis in axes if axis[0] + 2 * axis[3] >= axis[4] * (axis[1] - 1) + 1]
    if not axes:
        return
    size, kernel, stride, padding, dilation = (tuple(axis[i] for axis in axes) for i in range(5))
    outputs = tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes)
    access = Access(
        kind="sliding",
        input_size=size,
        output_size=outputs,
        kernel=kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
    )
    places = 1
    for n in size:
        places *= n
    for window in range(_product(outputs)):
        index, last, rest = [], 0, window
        for count in reversed(outputs):
            rest, place = divmod(rest, count)
            index.insert(0, place)
        for place, n, k, s, p, d in zip(index, size, kernel, stride, padding, dilation, strict=True):
            touched = [min(max(place * s - p + d * step, 0), n - 1) for step in range(k)]
            last = last * n + max(touched)
        assert access.last_needed(window, places) == last


def _product(sizes: tuple[int, ...]) -> int:
    result = 1
    for size in sizes:
        result *= size
    return result


def test_networkx_form() -> None:
    graph = to_networkx(SMALL)
    assert list(networkx.topological_sort(graph)) == ["input x", "conv", "relu"]
    assert graph.edges["input x", "conv"] == {"tensor": "x", "bytes": 192}
    assert graph.edges["conv", "relu"]["bytes"] == 80
    assert graph.nodes["relu"]["op"] is RELU
    assert graph.nodes["input x"]["op"] is None
