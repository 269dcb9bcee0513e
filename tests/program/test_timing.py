"""Figures of compiled programs: peak throughput, counts, energies, bounds."""

from math import fsum
from typing import Any

import pytest
from chips_by_hand import chain, chip_by_hand, residual_network, resnet18, tile_by_hand

from aimc_compiler.chip.spec import ChipSpec
from aimc_compiler.mapping import Mapping, map_workload, row_group_activations
from aimc_compiler.program import Program, lower_mapping, simulate, verify_program
from aimc_compiler.workload.ir import Workload


def compiled(workload: Workload, chip: ChipSpec) -> tuple[Mapping, Program]:
    mapping = map_workload(workload, chip)
    assert isinstance(mapping, Mapping), str(mapping)
    program = lower_mapping(workload, mapping, chip)
    verify_program(program)
    return mapping, program


@pytest.mark.parametrize(("nanoseconds", "tops"), [(133, 63.1), (521, 16.1)])
def test_hermes_peak(nanoseconds: int, tops: float) -> None:
    """64 tiles of 256 x 256, all busy: 63.1 TOPS at 133 ns, 16.1 at 521 ns (Le Gallo et al., Nat. Electron. 6, 680
    (2023)); 1 MAC = 2 operations.
    """
    mvm = {"time": f"{nanoseconds} ns", "initiation_interval": f"{nanoseconds} ns"}
    timing = simulate(compiled(chain(64, 256), chip_by_hand(tile_by_hand(count=64, mvm=mvm)))[1])
    assert timing.interval_ticks == nanoseconds
    assert round(timing.tops, 1) == tops
    assert timing.tops == pytest.approx(2 * 64 * 65536 / (nanoseconds * 1e-9) / 1e12, rel=1e-12)
    assert all(timing.utilization[f"tile {tile}"] == 1.0 for tile in range(64))


@pytest.mark.slow
def test_isaac_peak() -> None:
    """168 x 12 x 8 crossbars of 128 x 128, 8 a 16-bit weight, 1.6 us: 41.3 TOPS (Shafiee et al., ISCA 2016)."""
    tile = tile_by_hand(
        128,
        128,
        168 * 12 * 8,
        device={"model": "cells", "slices": 8, "bits_per_slice": 2},
        mvm={"time": "1.6 us", "initiation_interval": "1.6 us"},
    )
    mapping, program = compiled(chain(126, 512), chip_by_hand(tile, network={"activation_bits": 16}))
    assert mapping.tiles_used == 16128
    assert round(simulate(program).tops, 1) == 41.3


@pytest.mark.parametrize("size", [64, 24, 6])
def test_figures_are_consistent(size: int) -> None:
    workload, chip = residual_network(), chip_by_hand(tile_by_hand(size, size))
    mapping, program = compiled(workload, chip)
    timing = simulate(program)
    assert timing.energy_j == fsum(timing.energy_by_component.values())
    assert timing.energy_j == pytest.approx(fsum(timing.energy_by_op.values()), rel=1e-12)
    assert all(bound.value >= bound.bound > 0 and bound.gap >= 0 for bound in timing.bounds.values())
    assert set(timing.bounds) == {"latency_s", "interval_s", "energy_j", "tiles"}
    assert timing.latency_s == pytest.approx(timing.latency_ticks * 1e-9, rel=1e-15)
    assert timing.throughput_per_s == 1 / timing.interval_s
    assert max(timing.utilization.values()) <= 1
    windows = {op.matrix: op.windows for op in workload.analog_ops}
    assert timing.counts.mvms == sum(windows[piece.matrix] for piece in mapping.pieces)
    assert timing.counts.row_group_activations == row_group_activations(workload, size)
    assert timing.counts.dac_conversions == sum(windows[piece.matrix] * piece.rows for piece in mapping.pieces)
    assert timing.counts.adc_conversions == sum(windows[piece.matrix] * piece.columns for piece in mapping.pieces)
    assert timing.macs == sum(op.windows * workload.matrix(op.matrix).cells for op in workload.analog_ops)
    for piece in mapping.pieces:
        assert timing.busy_ticks[f"tile {piece.tile}"] == windows[piece.matrix] * 133
    mvm_energy = fsum(timing.energy_by_component[name] for name in ("dac", "array", "adc"))
    assert mvm_energy == pytest.approx(timing.counts.mvms * 13.4e-9, rel=1e-12)
    network = timing.counts.bit_hops * 0.01e-12
    assert timing.energy_by_component["network"] == pytest.approx(network, rel=1e-12)
    assert timing.bounds["energy_j"].bound == pytest.approx(mvm_energy + timing.counts.bits_moved * 0.01e-12, rel=1e-12)


def test_component_energy_reaches_the_total() -> None:
    """Doubling one component's price changes the total by just that component."""
    workload = residual_network()
    before = simulate(compiled(workload, chip_by_hand(tile_by_hand(64, 64)))[1])
    dearer = chip_by_hand(tile_by_hand(64, 64), network={"energy_per_bit": "0.02 pJ"})
    after = simulate(compiled(workload, dearer)[1])
    change = after.energy_j - before.energy_j
    assert change == pytest.approx(before.energy_by_component["network"], rel=1e-9)
    assert after.latency_ticks == before.latency_ticks


def test_energy_of_partly_used_tiles() -> None:
    """energy_scaling "used": converters with rows and columns, the array with cells."""
    whole = simulate(compiled(chain(1, 64), chip_by_hand())[1]).energy_by_component
    tile = tile_by_hand(mvm={"energy_scaling": "used"})
    used = simulate(compiled(chain(1, 64), chip_by_hand(tile))[1]).energy_by_component
    assert used["dac"] == pytest.approx(whole["dac"] / 4)
    assert used["adc"] == pytest.approx(whole["adc"] / 4)
    assert used["array"] == pytest.approx(whole["array"] / 16)
    assert whole["adc"] == pytest.approx(0.65 * 13.4e-9)


def test_rounding_up_to_ticks_is_reported() -> None:
    """A chain of two: MVMs of 132.5 ns take 133 ticks; ports 64 x 8 / 512 = 1 tick; 2 x 64 / 512 of a tick take 1."""
    tile = tile_by_hand(mvm={"time": "132.5 ns", "initiation_interval": "132.5 ns"})
    timing = simulate(compiled(chain(2, 64), chip_by_hand(tile))[1])
    assert timing.rounding_s == pytest.approx(2 * (0.5 + 0.75) * 1e-9)
    exact = simulate(compiled(chain(2, 64), chip_by_hand(local_digital={"rate": "128/tick"}))[1])
    assert exact.rounding_s == 0
    assert exact.interval_ticks == 133


def test_latency_of_a_chain_by_hand() -> None:
    """Two matrices of 64 on neighbouring tiles of a 1 x 2 mesh, the host at the first: host port 1, MVM 133, local 1,
    one hop 10 + 1, MVM 133, local 1, one hop 11, host port 1.
    """
    timing = simulate(compiled(chain(2, 64), chip_by_hand())[1])
    assert timing.latency_ticks == 1 + 133 + 1 + 11 + 133 + 1 + 11 + 1
    assert timing.counts.bits_moved == 2 * 64 * 8


def test_faster_tiles_are_never_slower() -> None:
    """Until the network or the units limit, halving the MVM time halves the interval."""
    intervals = []
    for nanoseconds in (400, 200, 100):
        mvm = {"time": f"{nanoseconds} ns", "initiation_interval": f"{nanoseconds} ns"}
        chip = chip_by_hand(tile_by_hand(64, 64, mvm=mvm))
        intervals.append(simulate(compiled(residual_network(), chip)[1]).interval_ticks)
    assert intervals == [64 * 400, 64 * 200, 64 * 100]


@pytest.mark.parametrize("changes", [{"network": {"hop_time": "0 ns"}}, {"network": {"link_bits_per_tick": 8}}])
def test_extreme_networks(changes: dict[str, Any]) -> None:
    timing = simulate(compiled(residual_network(), chip_by_hand(tile_by_hand(24, 24), **changes))[1])
    assert timing.bounds["latency_s"].gap >= 0
    assert timing.bounds["interval_s"].gap >= 0


def test_resnet18_at_128() -> None:
    """The whole network: 132 500 row-group activations on 727 tiles, limited by 112 x 112 MVMs of the first layer."""
    mapping, program = compiled(resnet18(), chip_by_hand(tile_by_hand(128, 128)))
    timing = simulate(program)
    assert mapping.tiles_used == 727
    assert timing.counts.row_group_activations == 132_500
    assert timing.interval_ticks == timing.bounds["interval_s"].bound * 1e9 == pytest.approx(12544 * 133)
    assert timing.bounds["latency_s"].gap < 0.01
