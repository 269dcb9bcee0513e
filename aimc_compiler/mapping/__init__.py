"""The Mapping: which cells of which tile hold which part of which matrix, and which unit does what else. No torch."""

from aimc_compiler.mapping.bounds import TilesBound, bound_tiles
from aimc_compiler.mapping.cut import cut_columns, cut_rows, near_equal, row_group_activations
from aimc_compiler.mapping.fit import Demand, DoesNotFit
from aimc_compiler.mapping.ir import Mapping, Piece, UnitAssignment, snake_site
from aimc_compiler.mapping.map import OBJECTIVES, map_entries, map_workload
from aimc_compiler.mapping.pack import Run, find_runs, groups_on_tiles, tiles_needed
from aimc_compiler.mapping.place import HOST_SITE, near_square, unit_sites
from aimc_compiler.mapping.route import Segment, multicast_segments, multicast_tree, route_xy
from aimc_compiler.mapping.text import parse_mapping, print_mapping
from aimc_compiler.mapping.utilization import LayerUse, TileUse, Utilization, measure_utilization
from aimc_compiler.mapping.verify import verify_entries, verify_mapping

__all__ = [
    "HOST_SITE",
    "OBJECTIVES",
    "Demand",
    "DoesNotFit",
    "LayerUse",
    "Mapping",
    "Piece",
    "Run",
    "Segment",
    "TileUse",
    "TilesBound",
    "UnitAssignment",
    "Utilization",
    "bound_tiles",
    "cut_columns",
    "cut_rows",
    "find_runs",
    "groups_on_tiles",
    "map_entries",
    "map_workload",
    "measure_utilization",
    "multicast_segments",
    "multicast_tree",
    "near_equal",
    "near_square",
    "parse_mapping",
    "print_mapping",
    "route_xy",
    "row_group_activations",
    "snake_site",
    "tiles_needed",
    "unit_sites",
    "verify_entries",
    "verify_mapping",
]
