"""Artifacts: round trip, same bytes, damage."""

import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

import aimc_compiler as aimc
from aimc_compiler.errors import ArtifactError


@pytest.fixture(scope="module")
def compiled() -> aimc.CompiledModel:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)).eval()
    x = torch.rand(16, 1, 8, 8)
    return aimc.compile(model, "analog-fabric", (x[:1],), calibration=[x], seed=5)


def test_round_trip(compiled: aimc.CompiledModel, tmp_path: Path) -> None:
    path = compiled.save(tmp_path / "net.aimc")
    again = aimc.load(path)
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(again.deploy()(x, time_s=10.0), compiled.deploy()(x, time_s=10.0))
    assert torch.equal(again.float_outputs(x), compiled.float_outputs(x))
    assert again.timing == compiled.timing
    assert again.utilization == compiled.utilization
    assert again.mapping == compiled.mapping
    assert again.program == compiled.program
    assert again.workload == compiled.workload
    assert again.chip == compiled.chip
    assert again.seed == 5


def test_same_program_same_bytes(compiled: aimc.CompiledModel, tmp_path: Path) -> None:
    first = compiled.save(tmp_path / "a.aimc").read_bytes()
    again = aimc.load(tmp_path / "a.aimc").save(tmp_path / "b.aimc").read_bytes()
    assert first == again


def test_no_pickle_inside(compiled: aimc.CompiledModel, tmp_path: Path) -> None:
    with zipfile.ZipFile(compiled.save(tmp_path / "net.aimc")) as archive:
        assert sorted(archive.namelist()) == [
            "chip.yaml",
            "entries/main/graph.json",
            "entries/main/program.txt",
            "entries/main/units.txt",
            "entries/main/workload.txt",
            "manifest.json",
            "mapping.txt",
            "ranges.json",
            "weights.safetensors",
        ]


def _rewrite(path: Path, change: dict[str, bytes | None]) -> None:
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (contents | change).items():
            if content is not None:
                archive.writestr(name, content)


def test_damage_is_named(compiled: aimc.CompiledModel, tmp_path: Path) -> None:
    path = compiled.save(tmp_path / "net.aimc")
    _rewrite(path, {"mapping.txt": b"nothing\n"})
    with pytest.raises(ArtifactError, match=r"mapping.txt does not match its checksum"):
        aimc.load(path)
    _rewrite(path, {"mapping.txt": None})
    with pytest.raises(ArtifactError, match=r"lacks mapping.txt"):
        aimc.load(path)
    path.write_bytes(b"no zip")
    with pytest.raises(ArtifactError, match="damaged or no artifact"):
        aimc.load(path)
    with pytest.raises(ArtifactError, match="does not exist: `aimc compile"):
        aimc.load(tmp_path / "absent.aimc")


def test_other_format_versions_are_refused(compiled: aimc.CompiledModel, tmp_path: Path) -> None:
    path = compiled.save(tmp_path / "net.aimc")
    with zipfile.ZipFile(path) as archive:
        manifest = archive.read("manifest.json")
    _rewrite(path, {"manifest.json": manifest.replace(b'"format_version": 2', b'"format_version": 99')})
    with pytest.raises(ArtifactError, match="version 99; this version reads"):
        aimc.load(path)
    for wrong in (b"[]", b"3", manifest.replace(b'"seed": 5', b'"seed": "x"'), manifest.replace(b'"seed": 5,', b"")):
        _rewrite(path, {"manifest.json": wrong})
        with pytest.raises(ArtifactError, match=r"manifest\.json"):
            aimc.load(path)


def test_a_place_that_cannot_be_written_or_read(compiled: aimc.CompiledModel, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"there is no folder .*absent; make it"):
        compiled.save(tmp_path / "absent" / "net.aimc")
    with pytest.raises(ArtifactError, match=r"is a folder: give the name of a file, as in .*net.aimc"):
        compiled.save(tmp_path)
    with pytest.raises(ArtifactError, match=r"cannot be read: Is a directory"):
        aimc.load(tmp_path)
    (tmp_path / "net.aimc.partial").mkdir()
    with pytest.raises(ArtifactError, match=r"net.aimc cannot be written: Is a directory"):
        compiled.save(tmp_path / "net.aimc")


def test_a_failed_save_leaves_the_old_file_and_nothing_else(
    compiled: aimc.CompiledModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = compiled.save(tmp_path / "net.aimc")
    before = path.read_bytes()

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(ArtifactError, match="No space left on device"):
        compiled.save(path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["net.aimc"]
