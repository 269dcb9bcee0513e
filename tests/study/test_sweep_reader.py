"""The definition of a sweep: what it becomes, and every fault with its place."""

from pathlib import Path

import pytest

from aimc_compiler.errors import SweepError
from aimc_compiler.study.sweep import Cell, Sweep, read_sweep
from aimc_compiler.study.sweep.definition import combine

HEAD = "schema_version: 1\nnetwork: net.py:network\ndata: net.py:batches\n"


def read(folder: Path, text: str) -> Sweep:
    path = folder / "s.yaml"
    path.write_text(text)
    return read_sweep(path)


def faults(folder: Path, text: str) -> list[str]:
    with pytest.raises(SweepError) as error:
        read(folder, text)
    return [line.removeprefix(f"{folder}/") for line in str(error.value).splitlines()]


def test_a_grid_and_lists_that_advance_together(tmp_path: Path) -> None:
    sweep = read(
        tmp_path,
        HEAD
        + "chip: analog-fabric\nset: {tile.count: 12}\ngrid:\n  tile.adc.bits: [6, off]\n  recalibration: [never, 1h]\n"
        "zip:\n  tile.dac.bits: [4, 8]\n  tile.mvm.energy: [1 nJ, 2 nJ]\ntimes: [0 s, 1 day]\nchips: 3\nchance: 0\n",
    )
    assert sweep.axes == ("tile.adc.bits", "recalibration", "tile.dac.bits", "tile.mvm.energy")
    points = [tuple(value for _, value in setting.values) for setting in sweep.settings]
    assert points == [
        (bits, policy, *pair)
        for bits in (6, "off")
        for policy in ("never", "1h")
        for pair in ((4, "1 nJ"), (8, "2 nJ"))
    ]
    last = sweep.settings[-1]
    assert (last.chip.tile.adc.bits, last.chip.tile.dac.bits, last.chip.tile.mvm.energy_j) == ("off", 8, 2e-9)
    assert (last.chip.tile.count, last.recalibration, sweep.settings[0].recalibration) == (12, "1 h", "never")
    assert last.chip.provenance["tile.adc.bits"].kind == "assumed"
    assert (sweep.times_s, sweep.chance, sweep.recalibration) == ((0.0, 86400.0), 0.0, "always")
    cells = list(sweep.cells())
    assert len(cells) == 8 * 3
    assert cells[4] == Cell(setting=1, chip_index=1)
    assert cells[4].name == "s0001-c0001"


def test_nothing_that_varies(tmp_path: Path) -> None:
    sweep = read(tmp_path, HEAD)
    assert [setting.title for setting in sweep.settings] == ["the chip as it is"]
    assert (sweep.chip.name, sweep.n_chips, sweep.metric, sweep.axes) == ("analog-fabric", 5, "accuracy", ())
    assert sweep.times_s == sweep.chip.evaluation.times_s
    assert combine({}, {}) == [()]


def test_all_faults_at_once_with_their_places(tmp_path: Path) -> None:
    text = (
        "network: net.py:network\nmetrik: accuracy\nseed: 1.5\nranges: percntile:3\nchips: 0\nchance: yes\n"
        "grid:\n  tile.adc.bits: [6, 7, 7]\n  tile.rows: 5\nzip:\n  tile.dac.bits: [1, 2]\n  tile.columns: [1, 2, 3]\n"
        "times: [1 s, 5, 1 h]\n"
    )
    found = faults(tmp_path, text)
    assert found[:2] == [
        "s.yaml:1:1: schema_version: must be 1, the version of this form; write 'schema_version: 1'",
        "s.yaml:1:1: 'data' is missing; add 'data: zoo:fashion_test'",
    ]
    assert found[2:] == [
        "s.yaml:2:1: metrik: unknown key; did you mean 'metric'?",
        "s.yaml:3:7: seed: is 1.5; write a whole number",
        "s.yaml:4:9: ranges: 'percntile:3' is no way to set ranges: write percentile:P (0 < P <= 100), "
        "k-sigma:K (K > 0), mse or max",
        "s.yaml:4:9: ranges: sets nothing without data; add 'calibration: DATA'",
        "s.yaml:5:8: chips: is 0; write a whole number, 1 or more",
        "s.yaml:6:9: chance: is 'yes'; write a number",
        "s.yaml:8:25: grid[tile.adc.bits][2]: 7 stands twice in the list; remove one",
        "s.yaml:9:14: grid[tile.rows]: is no list of values; write at least one, as in '[6, 7, 8]'",
        "s.yaml:11:3: zip: lists that advance together have one length, but tile.dac.bits has 2, tile.columns has 3; "
        "write as many in each",
        "s.yaml:13:14: times[1]: 5 has no unit: write '5 ns' or another multiple of s",
    ]


def test_values_that_the_chip_does_not_take_stand_at_their_place_once(tmp_path: Path) -> None:
    text = HEAD + "grid:\n  tile.adc.bits: [6, x]\n  recalibration: [always, sometimes]\n  tile.rowz: [3]\n"
    found = faults(tmp_path, text)
    assert [line.partition(";")[0] for line in found[:1]] == ["s.yaml:5:22: tile.adc.bits: is 'x'"]
    assert found[1].startswith(
        "s.yaml:6:27: recalibration: 'sometimes' is no recalibration policy: write always, never"
    )
    assert found[2:] == ["s.yaml:7:15: tile.rowz: unknown key; did you mean 'rows'?"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "s.yaml:1:1: the file is empty; a sweep begins with 'schema_version: 1'"),
        ("# nothing\n", "s.yaml:1:1: the file is empty; a sweep begins with 'schema_version: 1'"),
        ("[1]", "s.yaml:1:1: a sweep is a section of keys, beginning 'schema_version: 1'"),
        (HEAD + "seed: {", "s.yaml:4:8: this is no YAML: while parsing a flow node, expected the node content"),
        (HEAD + "seed: 1\nseed: 2\n", "s.yaml:5:1: seed: the key stands twice, first in line 4; remove one of the two"),
        (HEAD + "grid: 5\n", "s.yaml:4:7: grid: is no section; write lists below it, as in 'tile.adc.bits: [6, 7, 8]'"),
        (
            HEAD + "set: 5\n",
            "s.yaml:4:6: set: is no section; write figures of the chip below it, as in 'tile.count: 16'",
        ),
        (HEAD + "set: {tile.count: x}\n", "s.yaml:4:19: tile.count: is 'x'"),
        (HEAD + "chip: hermez\n", "s.yaml:4:7: chip: no built-in chip is called 'hermez'; did you mean 'hermes'?"),
        (HEAD + "metric: acuracy\n", "s.yaml:4:9: metric: no metric is called 'acuracy': there is accuracy"),
        (HEAD + "precision: quick\n", "s.yaml:4:12: precision: "),
        (HEAD + "rules: 5\n", "s.yaml:4:8: rules: is 5; write the name of a preset, or patterns with settings"),
        (HEAD + "times: []\n", "s.yaml:4:8: times: is []; write a list of times after programming"),
        (HEAD + "times: [1 s, 1 s]\n", "s.yaml:4:14: times[1]: 1 s stands twice in the list; remove one"),
        (HEAD + "recalibration: 5\n", "s.yaml:4:16: recalibration: is 5, no text; write a name or a reference"),
        (
            HEAD + "grid: {tile.rows: [1]}\nzip: {tile.rows: [2]}\n",
            "s.yaml:5:7: zip[tile.rows]: stands under grid as well; leave one of the two",
        ),
        (
            HEAD.replace("net.py:network", "absent.aimc") + "rules: all-analog\n",
            "s.yaml:2:10: network: absent.aimc does not exist",
        ),
        (
            HEAD + f"grid:\n  tile.rows: {list(range(1, 200))}\n  tile.columns: {list(range(1, 200))}\n",
            "s.yaml:5:3: grid: comes to 39,601 settings; at most 10,000, so shorten a list",
        ),
    ],
)
def test_one_fault(tmp_path: Path, text: str, expected: str) -> None:
    assert faults(tmp_path, text)[0].startswith(expected)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SweepError, match=r"absent\.yaml cannot be read: .*give the path of a YAML file"):
        read_sweep(tmp_path / "absent.yaml")
