"""The Workload: the network as shapes, without torch."""

from aimc_compiler.workload.experts import deal_windows
from aimc_compiler.workload.ir import Access, DigitalOp, Matrix, MatrixOp, Routing, TensorShape, Workload
from aimc_compiler.workload.network import to_networkx
from aimc_compiler.workload.text import parse_workload, print_workload
from aimc_compiler.workload.verify import verify_workload

__all__ = [
    "Access",
    "DigitalOp",
    "Matrix",
    "MatrixOp",
    "Routing",
    "TensorShape",
    "Workload",
    "deal_windows",
    "parse_workload",
    "print_workload",
    "to_networkx",
    "verify_workload",
]
