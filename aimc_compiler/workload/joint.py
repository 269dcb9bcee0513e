"""The matrices of several entries of one network: what mapping places, whichever entry multiplies by it."""

from collections.abc import Sequence

from aimc_compiler.errors import VerificationError
from aimc_compiler.records import record
from aimc_compiler.workload.ir import Matrix, MatrixOp, Workload


@record
class MatrixUses:
    """name: of the network; matrices: of all entries, once each, in order; analog_ops: their uses on tiles, entry
    after entry."""

    name: str
    matrices: tuple[Matrix, ...]
    analog_ops: tuple[MatrixOp, ...]

    def matrix(self, name: str) -> Matrix:
        return next(matrix for matrix in self.matrices if matrix.name == name)


def join_matrices(workloads: Sequence[Workload]) -> MatrixUses:
    """The matrices of these workloads together.

    Raises VerificationError where two of them call different matrices alike.
    """
    matrices: dict[str, Matrix] = {}
    for workload in workloads:
        for matrix in workload.matrices:
            if matrices.setdefault(matrix.name, matrix) != matrix:
                raise VerificationError(
                    f"workload {workload.name!r} has another matrix {matrix.name!r} than one before"
                )
    return MatrixUses(
        name=network_name(workloads),
        matrices=tuple(matrices.values()),
        analog_ops=tuple(op for workload in workloads for op in workload.analog_ops),
    )


def network_name(workloads: Sequence[Workload]) -> str:
    """What the network is called: several workloads of one have their entry behind it, as in "Llama:step"."""
    name = workloads[0].name
    return name if len(workloads) == 1 else name.rpartition(":")[0] or name
