"""The text form of a Workload, and back."""

from aimc_compiler.errors import TextFormError
from aimc_compiler.records import parse_records, print_records, record
from aimc_compiler.workload.ir import DigitalOp, Matrix, MatrixOp, TensorShape, Workload


@record
class _Header:
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


_KINDS = {"workload": _Header, "tensor": TensorShape, "matrix": Matrix, "matrix_op": MatrixOp, "digital_op": DigitalOp}


def print_workload(workload: Workload) -> str:
    """One line a record: the header, tensors, matrices, then operations in execution order."""
    header = _Header(name=workload.name, inputs=workload.inputs, outputs=workload.outputs)
    return print_records(
        [
            ("workload", header),
            *(("tensor", tensor) for tensor in workload.tensors),
            *(("matrix", matrix) for matrix in workload.matrices),
            *(("matrix_op" if isinstance(op, MatrixOp) else "digital_op", op) for op in workload.ops),
        ]
    )


def parse_workload(text: str) -> Workload:
    """The Workload that ``print_workload`` wrote. Raises TextFormError with the line."""
    records = list(parse_records(text, _KINDS))
    headers = [value for value in (found for _, found in records) if isinstance(value, _Header)]
    if len(headers) != 1 or not isinstance(records[0][1], _Header):
        raise TextFormError(f"a workload begins with its one 'workload' line; there are {len(headers)}")
    found = [value for _, value in records]
    return Workload(
        name=headers[0].name,
        inputs=headers[0].inputs,
        outputs=headers[0].outputs,
        tensors=tuple(value for value in found if isinstance(value, TensorShape)),
        matrices=tuple(value for value in found if isinstance(value, Matrix)),
        ops=tuple(value for value in found if isinstance(value, MatrixOp | DigitalOp)),
    )
