"""The invariants of a Workload. A breach is a fault of this project, not of its user."""

from collections import Counter
from functools import lru_cache
from itertools import pairwise
from math import prod

from aimc_compiler.chip.costs import COST_CLASSES, FREE
from aimc_compiler.errors import VerificationError
from aimc_compiler.workload.ir import Access, DigitalOp, Matrix, MatrixOp, TensorShape, Workload
from aimc_compiler.workload.loops import components

#: Windows of an access that are looked at: all of small ones, this many spread over large ones.
_SAMPLES = 512


def verify_workload(workload: Workload) -> None:
    """Raises VerificationError for the first invariant that does not hold."""
    for kind, names in (
        ("tensor", [tensor.name for tensor in workload.tensors]),
        ("matrix", [matrix.name for matrix in workload.matrices]),
        ("operation", [op.name for op in workload.ops]),
    ):
        _check_unique(workload, kind, names)
    tensors = {tensor.name: tensor for tensor in workload.tensors}
    matrices = {matrix.name: matrix for matrix in workload.matrices}
    for tensor in workload.tensors:
        _check_sizes(workload, "tensor", tensor.name, (tensor.windows, tensor.width, tensor.itemsize))
    for matrix in workload.matrices:
        sizes = (matrix.rows, matrix.columns, matrix.groups, matrix.kernel)
        _check_sizes(workload, "matrix", matrix.name, sizes)
        _require(matrix.rows % matrix.kernel == 0, workload, f"matrix {matrix.name!r}: rows are no multiple of kernel")
    _check_order(workload, tensors)
    for op in workload.ops:
        _check_accesses(workload, op, tensors)
        if isinstance(op, MatrixOp):
            _require(op.matrix in matrices, workload, f"{op.name!r} uses matrix {op.matrix!r}, which does not exist")
            _check_matrix_op(workload, op, matrices[op.matrix], tensors)
        else:
            _check_digital_op(workload, op)
    _check_loops(workload, tensors)
    used = {op.matrix for op in workload.matrix_ops}
    for matrix in workload.matrices:
        _require(matrix.name in used, workload, f"matrix {matrix.name!r} is used by no operation")


def _require(holds: bool, workload: Workload, message: str) -> None:
    if not holds:
        raise VerificationError(f"workload {workload.name!r}: {message}")


def _check_unique(workload: Workload, kind: str, names: list[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    _require(not twice, workload, f"{kind} names are not unique: {twice}")


def _check_sizes(workload: Workload, kind: str, name: str, sizes: tuple[int, ...]) -> None:
    _require(min(sizes) > 0, workload, f"{kind} {name!r} has a size that is not positive: {sizes}")


def _check_order(workload: Workload, tensors: dict[str, TensorShape]) -> None:
    """Every tensor exists, is made once, and before it is read, unless it is read a step later."""
    made: set[str] = set()
    makers = {op.output for op in workload.ops}
    for name in workload.inputs:
        _require(name in tensors, workload, f"input {name!r} is no tensor")
        made.add(name)
    for op in workload.ops:
        count = (len(op.accesses), len(op.inputs))
        _require(count[0] == count[1], workload, f"{op.name!r} has {count[0]} accesses for {count[1]} inputs")
        for name, access in zip(op.inputs, op.accesses, strict=True):
            fed_back = access.kind == "previous" and name in makers
            message = f"{op.name!r} reads {name!r} before it is produced, with access {access.kind!r}, not 'previous'"
            _require(name in made or fed_back, workload, message)
        _require(op.output in tensors, workload, f"{op.name!r} writes {op.output!r}, which is no tensor")
        _require(op.output not in made, workload, f"{op.name!r} writes {op.output!r}, which exists already")
        made.add(op.output)
    for name in workload.outputs:
        _require(name in made, workload, f"output {name!r} is never produced")
    for name in tensors:
        _require(name in made, workload, f"tensor {name!r} is never produced")


def _check_loops(workload: Workload, tensors: dict[str, TensorShape]) -> None:
    """Inside a loop no window needs a later one: with the steps that read the one before, loops run step by step."""
    makers = {op.output: index for index, op in enumerate(workload.ops)}
    needs = [[makers[name] for name in op.inputs if name in makers] for op in workload.ops]
    if all(maker < index for index, made_by in enumerate(needs) for maker in made_by):
        return
    for loop in components(needs):
        for op in (workload.ops[index] for index in loop):
            for name, access in zip(op.inputs, op.accesses, strict=True):
                if makers.get(name) in loop:
                    fault = _loop_fault(access, tensors[name].windows, tensors[op.output].windows)
                    _require(not fault, workload, f"{op.name!r} on {name!r}: {fault}, in a loop that goes on with it")


def _loop_fault(access: Access, inputs: int, outputs: int) -> str:
    for window in range(outputs):
        if access.last_needed(window, inputs) > window:
            return f"window {window} needs input window {access.last_needed(window, inputs)}"
    return ""


def _check_accesses(workload: Workload, op: MatrixOp | DigitalOp, tensors: dict[str, TensorShape]) -> None:
    for name, access in zip(op.inputs, op.accesses, strict=True):
        fault = _access_fault(access, tensors[name].windows, tensors[op.output].windows)
        _require(not fault, workload, f"{op.name!r} on {name!r}: {fault}")


@lru_cache(maxsize=256)  # the layers of a deep network agree
def _access_fault(access: Access, inputs: int, outputs: int) -> str:
    if access.kind in ("same", "previous") and inputs != outputs:
        return f"access is window by window, but there are {inputs} input and {outputs} output windows"
    if access.kind == "dealt" and (access.input_size, access.output_size) != ((inputs,), (outputs,)):
        return f"{access.input_size} windows are dealt to {access.output_size}, but there are {inputs} and {outputs}"
    if access.kind in ("sliding", "stretched"):
        fault = _grid_fault(access, inputs, outputs)
        if fault:
            return fault
    least = -1 if access.kind == "previous" else 0
    step = max(1, outputs // _SAMPLES)
    # The order of windows is raster order: inside a row of places later windows never need less.
    for window in range(0, outputs, step):
        if not least <= access.last_needed(window, inputs) < inputs:
            return f"window {window} needs input window {access.last_needed(window, inputs)} of {inputs}"
    return "" if _monotone(access, inputs, outputs) else "a later window needs less of the input than an earlier one"


def _monotone(access: Access, inputs: int, outputs: int) -> bool:
    """Along each axis of the grid, from a few of its places."""
    sizes = access.output_size or (outputs,)
    for axis, size in enumerate(sizes):
        inner = prod(sizes[axis + 1 :])
        lines = outputs // size
        for line in range(0, lines, max(1, lines // 64)):
            start = line // inner * inner * size + line % inner
            needed = [access.last_needed(start + inner * place, inputs) for place in range(size)]
            if any(later < earlier for earlier, later in pairwise(needed)):
                return False
    return True


def _grid_fault(access: Access, inputs: int, outputs: int) -> str:
    kind, grids = access.kind, (access.input_size, access.output_size, access.stride)
    positive = (*grids, access.kernel, access.dilation) if kind == "sliding" else grids
    if len({len(field) for field in (*positive, access.padding)}) != 1 or not access.output_size:
        return f"the fields of a {kind} access differ in their number of dimensions"
    if min(size for field in positive for size in field) < 1:
        return f"a {kind} access has a size that is not positive"
    places_in, places_out = prod(access.input_size), prod(access.output_size)
    if inputs % places_in or outputs % places_out or inputs // places_in != outputs // places_out:
        return f"{inputs} and {outputs} windows do not match grids of {places_in} and {places_out} places"
    return ""


def _check_matrix_op(workload: Workload, op: MatrixOp, matrix: Matrix, tensors: dict[str, TensorShape]) -> None:
    given, result = tensors[op.input], tensors[op.output]
    channels, outputs = matrix.groups * matrix.rows // matrix.kernel, matrix.groups * matrix.columns
    _require(given.width == channels, workload, f"{op.name!r} reads {given.width} channels, its matrix has {channels}")
    _require(result.width == outputs, workload, f"{op.name!r} writes {result.width} outputs, its matrix has {outputs}")
    windows = (op.windows, result.windows)
    idle = op.routing is not None and op.windows == 0
    _require(
        windows[0] == windows[1] or idle, workload, f"{op.name!r} has {windows[0]} windows, its output {windows[1]}"
    )
    if op.initial:
        first = tensors[op.initial]
        _require(op.access.kind == "previous", workload, f"{op.name!r} has an initial state, but no access 'previous'")
        message = f"{op.name!r} begins with {first.windows} windows of {first.width}, not with one of {channels}"
        _require((first.windows, first.width) == (1, channels), workload, message)
    shared = op.groups_per_tile is None or op.groups_per_tile >= 1
    _require(shared, workload, f"{op.name!r} lets {op.groups_per_tile} groups share a tile")
    _check_routing(workload, op)
    kernel = prod(op.access.kernel)
    _require(kernel == matrix.kernel, workload, f"{op.name!r} slides a kernel of {kernel}, its matrix {matrix.kernel}")


def _check_routing(workload: Workload, op: MatrixOp) -> None:
    """An expert's windows are its share of those that its values are computed for."""
    routing = op.routing
    if routing is None:
        _require(op.computed == 0, workload, f"{op.name!r} computes {op.computed} windows, but belongs to no expert")
        return
    sane = 1 <= routing.active <= routing.experts
    sane &= routing.expert is None or 0 <= routing.expert < routing.experts
    _require(sane, workload, f"{op.name!r} is expert {routing.expert} of {routing.assumption}")
    share = routing.windows_of(op.computed)
    message = f"{op.name!r} has {op.windows} windows, its share of {op.computed} is {share} ({routing.assumption})"
    _require(op.windows == share, workload, message)


def _check_digital_op(workload: Workload, op: DigitalOp) -> None:
    known = op.cost_class in COST_CLASSES or op.cost_class == FREE
    _require(known, workload, f"{op.name!r} has the unknown cost class {op.cost_class!r}")
    _require(op.work >= 0, workload, f"{op.name!r} has negative work")
    _require(op.work == 0 or op.cost_class != FREE, workload, f"{op.name!r} is free, but has work {op.work}")
