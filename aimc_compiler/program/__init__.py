"""The Program: what every resource of the chip does for one sample, and how long and how much energy it takes."""

from aimc_compiler.program.bounds import Bound, bound_energy, resource_loads
from aimc_compiler.program.engine import Schedule, schedule_program
from aimc_compiler.program.ir import COMPONENTS, Need, Program, Resource, Task
from aimc_compiler.program.lower import lower_mapping
from aimc_compiler.program.lower_matrix import mvm_names, output_conversions
from aimc_compiler.program.text import disassemble, parse_program, print_program
from aimc_compiler.program.timing import Counts, Timing, count, energy_by_component, simulate, summarise
from aimc_compiler.program.verify import verify_program

__all__ = [
    "COMPONENTS",
    "Bound",
    "Counts",
    "Need",
    "Program",
    "Resource",
    "Schedule",
    "Task",
    "Timing",
    "bound_energy",
    "count",
    "disassemble",
    "energy_by_component",
    "lower_mapping",
    "mvm_names",
    "output_conversions",
    "parse_program",
    "print_program",
    "resource_loads",
    "schedule_program",
    "simulate",
    "summarise",
    "verify_program",
]
