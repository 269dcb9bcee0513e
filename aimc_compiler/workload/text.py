"""The text form of a Workload, and back."""

from aimc_compiler.records import parse_headed, print_records, record
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
    header, found = parse_headed(text, _KINDS, "workload")
    return Workload(
        name=header.name,
        inputs=header.inputs,
        outputs=header.outputs,
        tensors=tuple(value for value in found if isinstance(value, TensorShape)),
        matrices=tuple(value for value in found if isinstance(value, Matrix)),
        ops=tuple(value for value in found if isinstance(value, MatrixOp | DigitalOp)),
    )
