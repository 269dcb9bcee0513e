"""The artifact on disk: one zip file of fixed names, a JSON manifest with a checksum a file, safetensors; no pickle.

    manifest.json       format, versions, seed, sha256 of every other file
    chip.yaml           the chip spec, with units
    graph.json          the nodes of the Graph
    weights.safetensors its tensors
    workload.txt, mapping.txt, program.txt    the levels in their text forms
    ranges.json         input ranges, or null

Members are stored uncompressed with a fixed date, so that the same program gives the same bytes. A network on the meta
device has no weights to store: its manifest says ``"weights": false``, its graph holds their shapes, its members are
compressed, and ``program.txt``, which may be a hundred times the rest, is left out: loading lowers the mapping again.
"""

import hashlib
import json
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from aimc_compiler.chip import dump_yaml, read_spec
from aimc_compiler.compiler.compiled import CompiledModel
from aimc_compiler.errors import AimcError, ArtifactError
from aimc_compiler.executor import InputRanges
from aimc_compiler.graph import graph_from_parts, graph_to_parts
from aimc_compiler.mapping import parse_mapping, print_mapping, verify_mapping
from aimc_compiler.program import lower_mapping, parse_program, print_program, verify_program
from aimc_compiler.records import without_collection
from aimc_compiler.version import __version__
from aimc_compiler.workload import parse_workload, print_workload, verify_workload

FORMAT = "aimc-artifact"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
MEMBERS = (
    "chip.yaml",
    "graph.json",
    "weights.safetensors",
    "workload.txt",
    "mapping.txt",
    "program.txt",
    "ranges.json",
)
#: Of an artifact without weights.
_SMALL_MEMBERS = tuple(name for name in MEMBERS if name != "program.txt")
_DATE = (1980, 1, 1, 0, 0, 0)
_RANGES: TypeAdapter[InputRanges | None] = TypeAdapter(InputRanges | None)


def save(compiled: CompiledModel, path: Path) -> Path:
    """Write the artifact of ``compiled`` to ``path``; an existing file is replaced only once the new one is whole.

    Raises ArtifactError where it cannot be written.
    """
    require_place(path)
    nodes, tensors = graph_to_parts(compiled.graph)
    contents = {
        "chip.yaml": dump_yaml(compiled.chip).encode(),
        "graph.json": _json(nodes),
        "weights.safetensors": save_tensors({name: value.contiguous() for name, value in tensors.items()}),
        "workload.txt": print_workload(compiled.workload).encode(),
        "mapping.txt": print_mapping(compiled.mapping).encode(),
        "ranges.json": _RANGES.dump_json(compiled.ranges, indent=1),
    }
    weights = compiled.graph.has_values
    if weights:
        contents["program.txt"] = print_program(compiled.program).encode()
    manifest = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "network": compiled.workload.name,
        "chip": compiled.chip.name,
        "seed": compiled.seed,
        "weights": weights,
        "written_by": {"aimc_compiler": __version__, "torch": torch.__version__},
        "sha256": {name: hashlib.sha256(contents[name]).hexdigest() for name in _members(weights)},
    }
    partial = path.with_name(path.name + ".partial")
    try:
        with zipfile.ZipFile(partial, "w") as archive:
            archive.writestr(zipfile.ZipInfo(MANIFEST, _DATE), _json(manifest))
            for name in _members(weights):
                kind = zipfile.ZIP_STORED if weights else zipfile.ZIP_DEFLATED
                archive.writestr(zipfile.ZipInfo(name, _DATE), contents[name], compress_type=kind)
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise ArtifactError(f"{path} cannot be written: {error.strerror}; give another path") from error
    return path


def require_place(path: Path) -> None:
    """Raises ArtifactError where ``path`` is a folder or its own folder is missing: to ask before work begins."""
    if path.is_dir():
        raise ArtifactError(f"{path} is a folder: give the name of a file, as in {path / 'net.aimc'}")
    if not path.parent.is_dir():
        raise ArtifactError(
            f"{path} cannot be written: there is no folder {path.parent}; make it, or give another path"
        )


def load(path: str | Path) -> CompiledModel:
    """Read an artifact, check every checksum, parse and verify every level.

    Raises ArtifactError naming the member that is missing, damaged or from another format version.
    """
    path = Path(path)
    manifest, contents = _read(path)
    try:
        chip = read_spec(contents["chip.yaml"].decode(), name=f"{path}/chip.yaml")
        graph = graph_from_parts(json.loads(contents["graph.json"]), load_tensors(contents["weights.safetensors"]))
        workload = parse_workload(contents["workload.txt"].decode())
        mapping = parse_mapping(contents["mapping.txt"].decode())
        text = contents.get("program.txt")
        program = None if text is None else parse_program(text.decode())
        ranges = _RANGES.validate_json(contents["ranges.json"])
    except (AimcError, SafetensorError, ValidationError, ValueError, KeyError) as error:
        raise ArtifactError(f"{path} cannot be read by this version: {error}; compile the network again") from error
    verify_workload(workload)
    verify_mapping(mapping, workload, chip)
    with without_collection():
        if program is None:
            program = lower_mapping(workload, mapping, chip)
        verify_program(program)
    return CompiledModel(
        graph=graph,
        workload=workload,
        mapping=mapping,
        program=program,
        chip=chip,
        ranges=ranges,
        seed=manifest["seed"],
    )


def _read(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    if not path.exists():
        raise ArtifactError(f"{path} does not exist: `aimc compile MODEL --chip NAME -o {path}` makes it")
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            _require_members(path, (MANIFEST, *_SMALL_MEMBERS), names)
            manifest = json.loads(archive.read(MANIFEST))
            members = _members(not isinstance(manifest, dict) or manifest.get("weights", True) is not False)
            _require_members(path, members, names)
            contents = {name: archive.read(name) for name in members}
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}; give the path of an artifact") from error
    except (zipfile.BadZipFile, ValueError) as error:
        raise ArtifactError(f"{path} is damaged or no artifact ({error}); compile the network again") from error
    if not isinstance(manifest, dict):
        raise ArtifactError(f"{path}: {MANIFEST} is no JSON object, so this is no artifact; compile the network again")
    if manifest.get("format") != FORMAT or manifest.get("format_version") != FORMAT_VERSION:
        found = f"{manifest.get('format')} version {manifest.get('format_version')}"
        raise ArtifactError(f"{path} is {found}; this version reads {FORMAT} version {FORMAT_VERSION}: compile again")
    for name, content in contents.items():
        if manifest.get("sha256", {}).get(name) != hashlib.sha256(content).hexdigest():
            raise ArtifactError(f"{path}: {name} does not match its checksum, so the file is damaged: compile again")
    if type(manifest.get("seed")) is not int:
        raise ArtifactError(f"{path}: {MANIFEST} has no whole number as seed, so it is damaged: compile again")
    return manifest, contents


def _members(weights: bool) -> tuple[str, ...]:
    return MEMBERS if weights else _SMALL_MEMBERS


def _require_members(path: Path, members: tuple[str, ...], names: set[str]) -> None:
    missing = [name for name in members if name not in names]
    if missing:
        raise ArtifactError(f"{path} is no whole artifact: it lacks {', '.join(missing)}; compile again")


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()
