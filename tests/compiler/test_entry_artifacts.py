"""Artifacts of several entries, and those of the first format version."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from entry_networks import Parts, encoder_decoder, generator, integers, numbers
from safetensors.torch import load

import aimc_compiler as aimc
from aimc_compiler.errors import ArtifactError

VERSION_1 = Path(__file__).parent / "data" / "version_1.zip"


@pytest.fixture(scope="module")
def compiled() -> aimc.CompiledModel:
    network, entries = encoder_decoder()
    data = {"encode": [numbers(8, 4, 8)], "decode": [{"tokens": integers(8, 3, below=10), "states": numbers(8, 4, 12)}]}
    entries["decode"] = aimc.Entry(
        kwargs={"tokens": integers(1, 3, below=10), "states": numbers(1, 4, 12)}, method="decode"
    )
    return aimc.compile(network, "analog-fabric", entries=entries, calibration=data, seed=3)


def test_round_trip(compiled: aimc.CompiledModel, tmp_path: Path) -> None:
    path = compiled.save(tmp_path / "net.aimc")
    again = aimc.load(path)
    assert again.entries == compiled.entries
    assert again.network == "EncoderDecoder"
    assert (again.ranges, again.seed, again.utilization) == (compiled.ranges, 3, compiled.utilization)
    for name in compiled.entries:
        old, new = compiled.entry(name), again.entry(name)
        assert (new.workload, new.mapping, new.program) == (old.workload, old.mapping, old.program)
        assert new.timing == old.timing
    x, tokens = numbers(2, 4, 8), integers(2, 3, below=10)
    found = []
    for device in (again.deploy(), compiled.deploy()):
        found.append(device(tokens=tokens, states=device(x), entry="decode", time_s=10.0)["logits"])
    assert torch.equal(*found)
    assert again.save(tmp_path / "again.aimc").read_bytes() == path.read_bytes()


def test_weights_stand_once(compiled: aimc.CompiledModel, tmp_path: Path) -> None:
    with zipfile.ZipFile(compiled.save(tmp_path / "net.aimc")) as archive:
        assert sorted(archive.namelist()) == sorted(
            ["chip.yaml", "manifest.json", "mapping.txt", "ranges.json", "weights.safetensors"]
            + [
                f"entries/{entry}/{name}"
                for entry in ("encode", "decode")
                for name in ("graph.json", "program.txt", "units.txt", "workload.txt")
            ]
        )
        tensors = load(archive.read("weights.safetensors"))
    # The head is the table of tokens, which the decoder also looks up.
    assert sum(tensor.numel() for tensor in tensors.values() if tensor.dim() == 2) == 8 * 12 + 2 * 12 * 12 + 10 * 12
    again = aimc.load(tmp_path / "net.aimc")
    held = [again.entry(name).graph.matrix_modules()["mix"].weight.data_ptr() for name in again.entries]
    assert held[0] == held[1]


def test_weights_of_one_name_that_differ_are_both_kept(tmp_path: Path) -> None:
    network, x = Parts().eval(), numbers(2, 3, 6)
    call = {name: aimc.Entry(inputs=(x,), method=name) for name in ("last", "all")}
    again = aimc.load(aimc.compile(network, "ideal", entries=call).save(tmp_path / "net.aimc"))
    with torch.no_grad():
        for name in call:
            assert torch.allclose(again.deploy()(x, entry=name), getattr(network, name)(x), atol=1e-5)


def test_without_weights(tmp_path: Path) -> None:
    with torch.device("meta"):
        network, entries = generator()
    compiled = aimc.compile(network, "analog-fabric", entries=entries)
    path = compiled.save(tmp_path / "meta.aimc")
    with zipfile.ZipFile(path) as archive:
        assert not [name for name in archive.namelist() if name.endswith("program.txt")]
    again = aimc.load(path)
    for name in compiled.entries:
        assert again.entry(name).program == compiled.entry(name).program
    assert again.save(tmp_path / "again.aimc").read_bytes() == path.read_bytes()


def _changed(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The artifact with another manifest, beside it."""
    other = path.with_name("changed.aimc")
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(other, "w") as copy:
        for name in archive.namelist():
            content = archive.read(name)
            if name == "manifest.json":
                manifest = json.loads(content)
                change(manifest)
                content = json.dumps(manifest).encode()
            copy.writestr(name, content)
    return other


@pytest.mark.parametrize("names", [None, [], "encode", ["encode", "encode"], ["../encode", "decode"], [1], [""]])
def test_names_that_are_none_are_refused(compiled: aimc.CompiledModel, tmp_path: Path, names: object) -> None:
    path = _changed(compiled.save(tmp_path / "net.aimc"), lambda manifest: manifest.update(entries=names))
    with pytest.raises(ArtifactError, match=r"manifest.json names the entries .* is damaged: compile again"):
        aimc.load(path)


def test_names_of_entries_that_are_not_there_are_refused(compiled: aimc.CompiledModel, tmp_path: Path) -> None:
    path = _changed(compiled.save(tmp_path / "net.aimc"), lambda manifest: manifest.update(entries=["encode", "step"]))
    with pytest.raises(ArtifactError, match=r"no whole artifact: it lacks entries/step/graph.json, entries/step/work"):
        aimc.load(path)


def test_a_manifest_without_checksums_is_refused(compiled: aimc.CompiledModel, tmp_path: Path) -> None:
    path = _changed(compiled.save(tmp_path / "net.aimc"), lambda manifest: manifest.update(sha256=[]))
    with pytest.raises(ArtifactError, match=r"manifest.json has no checksums, so it is damaged"):
        aimc.load(path)


def test_version_1_still_loads_and_runs(tmp_path: Path) -> None:
    """Written before there were entries; the outputs and figures are those of the version that wrote it."""
    compiled = aimc.load(VERSION_1)
    assert compiled.entries == ("main",)
    assert compiled.network == "Sequential"
    x = torch.linspace(-1, 1, 4 * 36).reshape(4, 1, 6, 6)
    found = compiled.deploy(precision="exact")(x, time_s=10.0)
    assert found[:2].flatten().tolist() == pytest.approx(
        [0.00505212, 0.08369441, -0.01928386, -0.03267793, 0.02312019, 0.02579191], abs=1e-6
    )
    again = aimc.load(compiled.save(tmp_path / "net.aimc"))
    assert torch.equal(again.deploy(precision="exact")(x, time_s=10.0), found)
    assert (again.program, again.mapping, again.ranges) == (compiled.program, compiled.mapping, compiled.ranges)
