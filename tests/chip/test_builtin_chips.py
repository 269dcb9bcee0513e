"""The built-in chips: published peaks, provenance of every figure, links and units that keep up with a full tile."""

import shutil
from pathlib import Path

import pytest

from aimc_compiler.chip import (
    COST_CLASSES,
    FREE,
    ChipSpec,
    builtin,
    builtin_names,
    figures,
    load_chip,
    missing_provenance,
)
from aimc_compiler.chip.spec import Tile
from aimc_compiler.errors import InternalError, SpecError

NAMES = ("analog-fabric", "aihwkit", "hermes", "ibm-34-tile", "ideal", "isaac", "neurram")


def tile_of(spec: ChipSpec) -> Tile:
    assert spec.tile is not None
    return spec.tile


def peak_tops(spec: ChipSpec) -> float:
    tile = tile_of(spec)
    assert isinstance(tile.count, int)
    return 2 * tile.weight_rows * tile.weight_columns * tile.count / tile.mvm.active.initiation_interval_s / 1e12


def tops_per_w(spec: ChipSpec) -> float:
    tile = tile_of(spec)
    return 2 * tile.weight_rows * tile.weight_columns / tile.mvm.active.energy_j / 1e12


def test_names() -> None:
    assert builtin_names() == NAMES
    assert load_chip() == load_chip("analog-fabric")
    assert [load_chip(name).name for name in NAMES] == list(NAMES)


def test_specs_are_found_inside_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtin, "__file__", str(tmp_path / "aimc_compiler" / "chip" / "builtin.py"))
    with pytest.raises(InternalError, match="the built-in chip specs are missing"):
        builtin_names()
    source = Path(__file__).resolve().parents[2] / "chipspecs"
    shutil.copytree(source, tmp_path / "aimc_compiler" / "chipspecs")
    assert builtin_names() == NAMES
    assert load_chip("hermes").name == "hermes"


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_says_where_it_comes_from(name: str) -> None:
    spec = load_chip(name)
    assert missing_provenance(spec) == ()
    for figure in figures(spec):
        assert figure.provenance is not None
        assert figure.provenance.kind == "assumed" or figure.provenance.source in spec.sources, figure.path
    used = {entry.source for entry in spec.provenance.values()}
    assert set(spec.sources) <= used


def test_a_figure_without_provenance_is_listed() -> None:
    spec = load_chip("hermes")
    entries = {key: entry for key, entry in spec.provenance.items() if key != "tile.rows"}
    assert missing_provenance(spec.model_copy(update={"provenance": entries})) == ("tile.rows",)
    bare = spec.model_copy(update={"provenance": {}})
    assert missing_provenance(bare) == tuple(figure.path for figure in figures(spec))


@pytest.mark.parametrize(
    ("name", "overrides", "tops", "efficiency"),
    [
        # Le Gallo et al., Nat. Electron. 6, 680 (2023)
        ("hermes", (), 63.1, 9.76),
        ("hermes", ("tile.mvm.mode=four_phase",), 16.1, 2.48),
        # Shafiee et al., ISCA (2016)
        ("isaac", (), 41.3, 0.63),
    ],
)
def test_published_peaks(name: str, overrides: tuple[str, ...], tops: float, efficiency: float) -> None:
    spec = load_chip(name, overrides)
    assert peak_tops(spec) == pytest.approx(tops, abs=0.05)
    assert tops_per_w(spec) == pytest.approx(efficiency, rel=0.003)


@pytest.mark.parametrize(
    ("name", "efficiency"),
    [
        ("analog-fabric", 100.0),  # Jain et al., IEEE TVLSI 31 (2023)
        ("ibm-34-tile", 20.0),  # Ambrogio et al., Nature 620, 768 (2023), of a tile
        ("neurram", 8.26),  # Wan et al., Nature 608, 504 (2022), 6-bit inputs, 8-bit outputs
    ],
)
def test_published_efficiencies(name: str, efficiency: float) -> None:
    assert tops_per_w(load_chip(name)) == pytest.approx(efficiency, rel=0.002)


def test_published_densities() -> None:
    fabric, isaac = tile_of(load_chip("analog-fabric")), tile_of(load_chip("isaac"))
    assert fabric.area_m2 is not None
    assert isaac.area_m2 is not None
    # Jain et al. (2023): 10.9 TOPS/mm2; Shafiee et al. (2016): 85.4 mm2 in all
    assert 2 * 512 * 512 / 40e-9 / 1e12 / (fabric.area_m2 * 1e6) == pytest.approx(10.9, rel=0.005)
    assert isaac.area_m2 * 1e6 * 16128 == pytest.approx(85.4, rel=0.005)


def test_weights_of_a_tile() -> None:
    shapes = {name: (tile_of(load_chip(name)).weight_rows, tile_of(load_chip(name)).weight_columns) for name in NAMES}
    assert shapes == {
        "analog-fabric": (512, 512),
        "aihwkit": (512, 512),
        "hermes": (256, 256),
        "ibm-34-tile": (512, 512),
        "ideal": (512, 512),
        "isaac": (128, 16),
        "neurram": (128, 256),
    }


def test_neurram_time_follows_from_planes_and_steps() -> None:
    """Wan et al. (2022): 0.27 us an input bit plane, 0.3 us a conversion step."""
    tile = tile_of(load_chip("neurram"))
    assert isinstance(tile.dac.bits, int)
    assert isinstance(tile.adc.bits, int)
    assert tile.mvm.active.time_s == pytest.approx((tile.dac.bits - 1) * 0.27e-6 + tile.adc.bits * 0.3e-6)


@pytest.mark.parametrize("name", NAMES)
def test_links_and_local_units_keep_up_with_a_full_tile(name: str) -> None:
    """Per multiplication: its input vector, its outputs and each partial sum on a link; 8 row blocks on a unit."""
    spec = load_chip(name)
    tile, network, local = tile_of(spec), spec.network, spec.local_digital
    interval_ticks = tile.mvm.active.initiation_interval_s / spec.clock.tick_s
    vectors_bits = (
        tile.weight_rows * network.activation_bits,
        tile.weight_columns * network.activation_bits,
        tile.weight_columns * network.partial_sum_bits,
    )
    assert max(vectors_bits) / network.link_bits_per_tick < interval_ticks
    if local.ops:
        # Each of 8 blocks is scaled, 7 are added, then bias and ReLU.
        assert (8 + 7 + 2) * tile.weight_columns / local.rate < interval_ticks


@pytest.mark.parametrize("name", NAMES)
def test_every_cost_class_is_priced(name: str) -> None:
    assert set(load_chip(name).digital_units.cost_classes) == set(COST_CLASSES)
    assert FREE not in COST_CLASSES


@pytest.mark.parametrize("name", NAMES)
def test_meshes_hold_the_tiles(name: str) -> None:
    spec = load_chip(name)
    if spec.network.shape is None:
        assert tile_of(spec).count == "auto"
    else:
        assert tile_of(spec).count <= spec.network.shape[0] * spec.network.shape[1]  # type: ignore[operator]


def test_ideal_has_the_geometry_and_timing_of_the_default() -> None:
    ideal, fabric = load_chip("ideal"), load_chip("analog-fabric")
    for section in ("clock", "local_digital", "digital_units", "network", "buffers"):
        assert getattr(ideal, section) == getattr(fabric, section)
    for key in ("rows", "columns", "count", "device", "mvm", "area_m2", "programming"):
        assert getattr(tile_of(ideal), key) == getattr(tile_of(fabric), key)


def test_ideal_takes_no_effect() -> None:
    with pytest.raises(SpecError, match=r"sigma_out: is 0.04, but tile.normalisation is none, which leaves it without"):
        load_chip("ideal", ["nonidealities.mvm.sigma_out=0.04"])


def test_the_default_is_the_standard_model() -> None:
    """Rasch et al., Nat. Commun. 14, 5282 (2023), Supplementary Table 1."""
    spec = load_chip("analog-fabric")
    tile, mvm = tile_of(spec), spec.nonidealities.mvm
    assert (tile.dac.bits, tile.adc.bits, tile.adc.out_bound) == (8, 8, 10)
    assert (mvm.sigma_in, mvm.sigma_out, mvm.sigma_w, mvm.read_noise) == (0, 0.04, 0.0175, "pcm")
    assert 1 / (mvm.r_wire_ohm * mvm.g_ir_s) == pytest.approx(571428.57)
    assert (mvm.ir_drop, mvm.range_clip, spec.nonidealities.drift_compensation) == (1, True, "tile")
    assert (tile.device.model, tile.device.g_max_s) == ("pcm", 25e-6)
    assert spec.evaluation.times_s == (1.0, 3600.0, 86400.0, 31_536_000.0)
