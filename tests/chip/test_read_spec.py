"""Reading a spec: every fault with its place, what is wrong and what to change; all faults at once."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from aimc_compiler.chip import ChipSpec, builtin_names, dump_yaml, json_schema, load_chip, override, read_spec
from aimc_compiler.errors import SpecError

TEXT = Path(__file__, "../../../chipspecs/analog-fabric.yaml").resolve().read_text(encoding="utf-8")


def faults(*changes: tuple[str, str], overrides: Sequence[str] = ()) -> list[str]:
    """The lines of the SpecError that the default spec gives after some replacements; none where it reads well."""
    text = TEXT
    for old, new in changes:
        assert text.count(old) >= 1, old
        text = text.replace(old, new, 1)
    try:
        read_spec(text, name="chip.yaml", overrides=overrides)
    except SpecError as error:
        return str(error).splitlines()
    return []


def place_of(fragment: str) -> str:
    """line:column of a fragment of the default spec."""
    before = TEXT[: TEXT.index(fragment)]
    return f"{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"


def test_the_text_itself_is_sound() -> None:
    assert faults() == []


@pytest.mark.parametrize(
    ("old", "new", "at", "message"),
    [
        ("  columns: 512", "  colums: 512", "columns: 512", "tile.colums: unknown key; did you mean 'columns'?"),
        (
            "clock: {tick: 1 ns}",
            "clock: {ticks: 1 ns}",
            "{tick: 1 ns}",
            "clock.tick: missing; add 'tick: 130 ns': time",
        ),
        ("time: 40 ns", "time: 40", "40 ns", "tile.mvm.time: 40 has no unit: write '40 ns'"),
        ("g_max: 25 uS", "g_max: 25 us", "25 uS", "tile.device.g_max: 'us' in '25 us' is no unit of conductance"),
        ("tick: 1 ns", "tick: 0 ns", "1 ns}", "clock.tick: is '0 ns'; must be greater than 0"),
        ("time: 40 ns", "time: -40 ns", "40 ns", "tile.mvm.time: is '-40 ns'; must be at least 0"),
        ("model: pcm,", "model: pmc,", "pcm, g_max", "is 'pmc', which is no device; did you mean 'pcm'?"),
        ("count: auto", "count: atuo", "auto\n", "tile.count: is 'atuo'; write a number or 'auto'"),
        ("count: auto", "count: 0", "auto\n", "tile.count: is 0; must be greater than 0, or 'auto'"),
        ("count: auto", "count: 2.5", "auto\n", "tile.count: is 2.5, which is no whole number; write one"),
        ("dac: {bits: 8", "dac: {bits: 1", "8, input_mode", "tile.dac.bits: is 1; must be at least 2, or 'off'"),
        ("rows: 512", "rows: '512'", "512\n", "tile.rows: is '512', which is no whole number; write one, without"),
        ("range_clip: true", "range_clip: on", "true\n", "is 'on', which is neither true nor false"),
        ("sigma_out: 0.04", "sigma_out: .inf", "0.04", "nonidealities.mvm.sigma_out: is inf, which is not finite"),
        ("sigma_out: 0.04", "sigma_out: -0.04", "0.04", "sigma_out: is -0.04; must be at least 0"),
        ("rate: 512/tick", "rate: 512", "512/tick", "local_digital.rate: 512 is no rate: write a positive number"),
        ("relu]", "rleu]", "relu]", "local_digital.ops[3]: is 'rleu'; use 'scale'"),
        ("    softmax:", "    sofmax:", "softmax:", "cost_classes.sofmax: is 'sofmax'; use 'elementwise'"),
        (
            "dac: {bits: 8, input_mode: pulse_width}",
            "dac: 8",
            "{bits: 8, input_mode",
            "is 8, no section; write the keys",
        ),
        ("[1 s, 1 h, 1 day, 1 year]", "[]", "[1 s", "evaluation.times: has 0 entries; write 1 or more"),
        ("[1 s, 1 h", "[0 s, 1 h", "1 s, 1 h", "evaluation.times[0]: is '0 s'; must be greater than 0"),
        ("name: analog-fabric", "name: analog.fabric", "analog-fabric\n", "use letters, digits, - and _ alone"),
        ("adc: 0.65", "adc: 0.66", "{adc: 0.65", "tile.mvm.split: the shares adc, array and dac sum to 1.01; change"),
        ("out_bound: 10", "out_bound: off", "10, columns_per", "out_bound: is off, so that bits has no step; give"),
        ("out_bound: 10", "out_bound: calibrate", "10, columns_per", "out_bound: is 'calibrate'"),
        ("columns_per_adc: 1}", "columns_per_adc: 513}", "1}\n  mvm", "is 513, more than the tile's 512 columns"),
        ("slices: 1}", "slices: 513, bits_per_slice: 1}", "1}\n  dac", "is 513, more than the tile's 512 columns"),
        ("slices: 1}", "slices: 4}", "1}\n  dac", "tile.device.slices: is 4, without bits_per_slice; add the bits"),
        ("relu], rate", "scale], rate", "[scale, bias", "local_digital.ops: scale stands twice; name each operation"),
        (
            "r_wire: 0.35 ohm",
            "r_wire: 0 ohm",
            "0.35 ohm",
            "r_wire: is 0 while ir_drop is 1; give it, or set ir_drop: 0",
        ),
        (
            "  tile.rows: {kind",
            "  tile.rowz: {kind",
            "{kind: published, source: jain2023}",
            "did you mean 'tile.rows'?",
        ),
        ("source: rasch2023}\n  tile.dac", "source: rasch}\n  tile.dac", "rasch2023}\n  tile.dac", "'rasch2023'?"),
        (
            "tile.count: {kind: assumed",
            "tile.count: {kind: derived",
            'assumed, note: "virtual',
            "without a source; add",
        ),
    ],
)
def test_each_fault_stands_at_its_place(old: str, new: str, at: str, message: str) -> None:
    lines = faults((old, new))
    assert any(message in line for line in lines), lines
    line = next(line for line in lines if message in line)
    assert line.startswith(f"chip.yaml:{place_of(at)}:")


def test_a_load_of_the_wire_needs_the_exact_model() -> None:
    load = ("r_wire: 0.35 ohm", "ir_drop_load: aligned\n    r_wire: 0.35 ohm")
    (line,) = faults(load)
    assert "ir_drop_load: is aligned, but ir_drop_model is closed_form, which stands for spread; set ir_drop" in line


def test_python_names_of_fields_are_no_keys() -> None:
    assert any("clock.tick_s: unknown key; did you mean 'tick'?" in line for line in faults(("tick: 1", "tick_s: 1")))


def test_a_faulty_entry_does_not_make_a_list_too_short() -> None:
    (line,) = faults(("[1 s, 1 h, 1 day, 1 year]", "[1 week]"))
    expected = "evaluation.times[0]: 'week' in '1 week' is no unit of time: use ns, us, ms, s, min, h, day or year"
    assert line.endswith(expected)
    assert faults(overrides=["network.shape=[8]"]) != []


def test_all_faults_at_once_sorted_by_place() -> None:
    lines = faults(
        ("hop_time: 10 ns", "hop_time: 10 ns\n  hop_time: 11 ns"),
        ("time: 40 ns", "time: 40"),
        ("adc: 0.65", "adc: 0.6"),
        ("  rows: 512", "  rowz: 512"),
    )
    numbers = [int(line.split(":")[1]) for line in lines]
    assert len(lines) == 5
    assert numbers == sorted(numbers)
    assert "the key stands twice, first in line" in lines[-1]


def test_tile_and_tiles() -> None:
    tile_section = TEXT[TEXT.index("tile:\n") : TEXT.index("nonidealities:")]
    several = (
        tile_section.replace("tile:\n", "tiles:\n  big:\n").replace("\n  ", "\n    ").replace("    big:", "  big:", 1)
    )
    provenance = TEXT[TEXT.index("provenance:") :]
    no_provenance = TEXT.replace(provenance, "")
    neither = no_provenance.replace(tile_section, "")
    with pytest.raises(SpecError, match=r"3:1: neither tile nor tiles is given; give tile .one type. or tiles"):
        read_spec(neither)
    with pytest.raises(SpecError, match="tiles: both tile and tiles are given; give tile"):
        read_spec(no_provenance + several)
    spec = read_spec(neither + several)
    assert list(spec.tile_types) == ["big"]
    with pytest.raises(
        SpecError, match=r"--set tile.rows=4: tile.rows: this chip has several tile types; set tiles.big"
    ):
        read_spec(neither + several, overrides=["tile.rows=4"])


def test_mesh_must_hold_the_tiles() -> None:
    lines = faults(("count: auto", "count: 65"), ("topology: mesh", "topology: mesh\n  shape: [8, 8]"))
    assert "network.shape: 8 x 8 has 64 sites for 65 tiles; enlarge it, or lower the tile count" in lines[0]
    assert any(
        "has 3 entries; write 2" in line for line in faults(("topology: mesh", "topology: mesh\n  shape: [8, 8, 8]"))
    )
    assert any("shape[1]: missing" in line for line in faults(("topology: mesh", "topology: mesh\n  shape: [8]")))


def test_without_normalisation_every_effect_is_off() -> None:
    lines = faults(("rows: 512", "rows: 512\n  normalisation: none"))
    paths = [line.split(": ")[1] for line in lines]
    assert "tile.dac.bits" in paths
    assert "nonidealities.drift_compensation" in paths
    assert "nonidealities.mvm.range_clip" in paths
    assert len(paths) == 11
    assert "set it to off, or normalisation to column" in lines[0]


def test_modes() -> None:
    assert override(load_chip("hermes"), {"tile.mvm.mode": "four_phase"}).tile.mvm.active.time_s == 521e-9  # type: ignore[union-attr]
    with pytest.raises(SpecError, match="is 'four', which is not among modes; did you mean 'four_phase'"):
        load_chip("hermes", ["tile.mvm.mode=four"])
    with pytest.raises(SpecError, match=r"tile\.mvm\.time: stands beside modes; put it inside each of the modes"):
        load_chip("hermes", ["tile.mvm.time=1 ns"])
    with pytest.raises(SpecError, match="mode missing; say which of the modes is in use: one_phase, four_phase"):
        load_chip("hermes", ["tile.mvm.mode=null"])
    with pytest.raises(SpecError, match="is 'x', but there are no modes; add modes, or remove mode"):
        load_chip("analog-fabric", ["tile.mvm.mode=x"])
    with pytest.raises(SpecError, match="initiation_interval, energy, split missing; give time"):
        load_chip("analog-fabric", ["tile.mvm={time: 1 ns}"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tile.rowz=128", "--set tile.rowz=128: tile.rowz: unknown key; did you mean 'rows'?"),
        ("tiel.rows=128", "--set tiel.rows=128: tiel: unknown key; did you mean 'tile'?"),
        ("tile.rows=0", "--set tile.rows=0: tile.rows: is 0; must be greater than 0"),
        ("tile.mvm.time=1", "--set tile.mvm.time=1: tile.mvm.time: 1 has no unit"),
        ("clock.tick.x=1", "clock.tick.x: clock.tick is '1 ns', no section; set it as a whole"),
        ("tile.rows", "--set tile.rows: is no KEY=VALUE; write, for example, --set tile.rows=128"),
        ("tile..rows=1", "has an empty name between its dots"),
        ("provenance.x=1", "cannot be set this way; write a file with its own provenance"),
        ("buffers={input: 1 KiB, input: 2 KiB}", "buffers.input: the key stands twice"),
        ("tile.rows=[1", "this is no YAML"),
    ],
)
def test_faults_of_overrides_name_the_override(text: str, message: str) -> None:
    assert any(message in line for line in faults(overrides=[text]))


def test_overrides_are_read_as_yaml_and_in_order() -> None:
    spec = load_chip("hermes", ["tile.rows=128", "tile.rows=64", "nonidealities.mvm.sigma_out=0", "tile.area=null"])
    assert spec.tile is not None
    assert (spec.tile.rows, spec.tile.area_m2, spec.nonidealities.mvm.sigma_out) == (64, None, 0.0)


def test_overrides_reach_sections_that_rest_on_defaults() -> None:
    text = TEXT.replace("  defects: {stuck_at_zero: 0, stuck_at_g_max: 0, stuck_random: 0}\n", "")
    spec = read_spec(text, overrides=["nonidealities.defects.stuck_at_zero=0.01"])
    assert spec.nonidealities.defects.stuck_at_zero == 0.01


def test_a_changed_figure_is_no_longer_what_its_source_says() -> None:
    before = load_chip("hermes")
    after = override(before, {"tile.rows": 128, "tile.columns": 256})
    assert before.provenance["tile.rows"].kind == "published"
    assert after.provenance["tile.rows"].kind == "assumed"
    assert after.provenance["tile.rows"].note == "set by the user"
    assert after.provenance["tile.columns"] == before.provenance["tile.columns"]


def test_overriding_with_the_same_value_changes_nothing() -> None:
    spec = load_chip("hermes")
    assert override(spec, {"tile.rows": 256, "nonidealities.mvm.sigma_in": 0, "tile.device.g_max": "20.7 uS"}) == spec


@pytest.mark.parametrize("name", builtin_names())
def test_dumped_specs_read_back_equal(name: str) -> None:
    spec = load_chip(name)
    assert read_spec(dump_yaml(spec)) == spec
    assert dump_yaml(read_spec(dump_yaml(spec))) == dump_yaml(spec)


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("\ufeff" + TEXT, encoding="utf-8")
    assert load_chip(path) == load_chip(str(path)) == load_chip("analog-fabric")
    path.write_bytes(b"name: \xff")
    with pytest.raises(SpecError, match=r"mine.yaml: the chip spec is no UTF-8 text .byte 6.; save it as UTF-8"):
        load_chip(path)
    with pytest.raises(SpecError, match="cannot be read: No such file or directory; give another path"):
        load_chip(tmp_path / "none.yaml")
    path.write_text("[1]")
    with pytest.raises(SpecError, match=r"mine.yaml:1:1: a chip spec is a section of keys"):
        load_chip(path)


def test_unknown_chip() -> None:
    with pytest.raises(SpecError, match="no built-in chip is called 'hermse'; did you mean 'hermes'"):
        load_chip("hermse")
    with pytest.raises(SpecError, match="'HERMES'; did you mean 'hermes'"):
        load_chip("HERMES")
    with pytest.raises(
        SpecError, match="There are analog-fabric, aihwkit, hermes, ibm-34-tile, ideal, isaac, neurram; for a file"
    ):
        load_chip("zzz")


def test_json_schema_has_the_keys_of_the_yaml() -> None:
    schema = json_schema()
    assert set(schema["required"]) >= {"schema_version", "name", "clock", "nonidealities"}
    tick = schema["$defs"]["Clock"]["properties"]["tick"]
    assert tick["type"] == "string"
    assert tick["x-si-unit"] == "s"
    assert schema["additionalProperties"] is False


def test_specs_are_checked_however_they_are_made() -> None:
    data = load_chip("ideal").model_dump(by_alias=True)
    data["tile"] = None
    with pytest.raises(ValueError, match="neither tile nor tiles is given"):
        ChipSpec.model_validate(data | {"provenance": {}})
