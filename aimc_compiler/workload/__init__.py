"""The Workload: the network as shapes, without torch."""

from aimc_compiler.workload.ir import Access, DigitalOp, Matrix, MatrixOp, TensorShape, Workload

__all__ = ["Access", "DigitalOp", "Matrix", "MatrixOp", "TensorShape", "Workload"]
