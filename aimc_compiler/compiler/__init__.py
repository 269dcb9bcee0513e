"""The compiler: from a trained network and a chip to a program for it, and its artifact on disk."""

from aimc_compiler.compiler.artifact import load
from aimc_compiler.compiler.compiled import CompiledModel
from aimc_compiler.compiler.pipeline import compile_model as compile  # noqa: A004 - the public name is fixed

__all__ = ["CompiledModel", "compile", "load"]
