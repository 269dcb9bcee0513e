"""The artifact on disk: one zip file of fixed names, a JSON manifest with a checksum a file, safetensors; no pickle.

    manifest.json       format, versions, seed, names of the entries, sha256 of every other file
    chip.yaml           the chip spec, with units
    weights.safetensors the tensors of all entries, once each
    mapping.txt         the pieces of all matrices at their sites
    ranges.json         input ranges, or null
    entries/NAME/       of each entry: graph.json (the nodes of the Graph), workload.txt, units.txt (digital operations
                        on units, as a Mapping without pieces) and program.txt, the levels in their text forms

Members are stored uncompressed with a fixed date, so that the same program gives the same bytes. A network on the meta
device has no weights to store: its manifest says ``"weights": false``, its graphs hold their shapes, its members are
compressed, and ``program.txt``, which may be a hundred times the rest, is left out: loading lowers the mapping again.

Version 1, which is still read, had one entry, whose files stood beside the others; units stood in ``mapping.txt``.
"""

import hashlib
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from aimc_compiler.chip import ChipSpec, dump_yaml, read_spec
from aimc_compiler.compiler.compiled import CompiledModel
from aimc_compiler.compiler.entries import ONLY, is_name
from aimc_compiler.errors import AimcError, ArtifactError
from aimc_compiler.executor import CompiledEntry, InputRanges
from aimc_compiler.files import whole_file
from aimc_compiler.graph import graphs_from_parts, graphs_to_parts
from aimc_compiler.mapping import parse_mapping, print_mapping, verify_entries
from aimc_compiler.program import lower_mapping, parse_program, print_program, verify_program
from aimc_compiler.records import without_collection
from aimc_compiler.version import __version__
from aimc_compiler.workload import parse_workload, print_workload, verify_workload

FORMAT = "aimc-artifact"
FORMAT_VERSION = 2
_READ = (1, FORMAT_VERSION)
MANIFEST = "manifest.json"
#: Of all entries together.
_COMMON = ("chip.yaml", "weights.safetensors", "mapping.txt", "ranges.json")
_OF_ENTRY = ("graph.json", "workload.txt", "units.txt", "program.txt")
_DATE = (1980, 1, 1, 0, 0, 0)
_RANGES: TypeAdapter[InputRanges | None] = TypeAdapter(InputRanges | None)


def save(compiled: CompiledModel, path: Path) -> Path:
    """Write the artifact of ``compiled`` to ``path``; an existing file is replaced only once the new one is whole.

    Raises ArtifactError where it cannot be written.
    """
    require_place(path)
    contents = _contents(compiled)
    weights = compiled.has_values
    manifest = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "network": compiled.network,
        "entries": list(compiled.entries),
        "chip": compiled.chip.name,
        "seed": compiled.seed,
        "weights": weights,
        "written_by": {"aimc_compiler": __version__, "torch": torch.__version__},
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
    }
    try:
        with (
            whole_file(path, path.with_name(path.name + ".partial"), durable=False) as file,
            zipfile.ZipFile(file, "w") as archive,
        ):
            archive.writestr(zipfile.ZipInfo(MANIFEST, _DATE), _json(manifest))
            for name, content in contents.items():
                kind = zipfile.ZIP_STORED if weights else zipfile.ZIP_DEFLATED
                archive.writestr(zipfile.ZipInfo(name, _DATE), content, compress_type=kind)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be written: {error.strerror}; give another path") from error
    return path


def _contents(compiled: CompiledModel) -> dict[str, bytes]:
    """Every member but the manifest, in the order in which they are written."""
    entries = [compiled.entry(name) for name in compiled.entries]
    parts, tensors = graphs_to_parts({entry.name: entry.graph for entry in entries})
    contents = {
        "chip.yaml": dump_yaml(compiled.chip).encode(),
        "weights.safetensors": save_tensors({name: value.contiguous() for name, value in tensors.items()}),
        "mapping.txt": print_mapping(replace(compiled.mapping, workload=compiled.network, units=())).encode(),
        "ranges.json": _RANGES.dump_json(compiled.ranges, indent=1),
    }
    for entry in entries:
        held = {
            "graph.json": _json(parts[entry.name]),
            "workload.txt": print_workload(entry.workload).encode(),
            "units.txt": print_mapping(replace(entry.mapping, pieces=())).encode(),
        }
        if compiled.has_values:
            held["program.txt"] = print_program(entry.program).encode()
        contents |= {_member(entry.name, name): content for name, content in held.items()}
    return contents


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
        ranges = _RANGES.validate_json(contents["ranges.json"])
        entries = _entries(manifest, contents, chip)
    except (AimcError, SafetensorError, ValidationError, ValueError, KeyError) as error:
        raise ArtifactError(f"{path} cannot be read by this version: {error}; compile the network again") from error
    workloads = [entry.workload for entry in entries]
    for workload in workloads:
        verify_workload(workload)
    with without_collection():
        verify_entries([entry.mapping for entry in entries], workloads, chip)
        for entry in entries:
            verify_program(entry.program)
    return CompiledModel(entries=entries, chip=chip, ranges=ranges, seed=manifest["seed"])


def _entries(manifest: dict[str, Any], contents: dict[str, bytes], chip: ChipSpec) -> list[CompiledEntry]:
    """Every entry with its levels, as they were written."""
    names = _names(manifest)
    parts = {name: json.loads(contents[_member(name, "graph.json")]) for name in names}
    graphs = graphs_from_parts(parts, load_tensors(contents["weights.safetensors"]))
    placed = parse_mapping(contents["mapping.txt"].decode())
    entries = []
    for name, graph in graphs.items():
        workload = parse_workload(contents[_member(name, "workload.txt")].decode())
        own = parse_mapping(contents[_member(name, "units.txt")].decode())
        mapping = replace(placed, workload=own.workload, units=own.units)
        text = contents.get(_member(name, "program.txt"))
        with without_collection():
            program = lower_mapping(workload, mapping, chip) if text is None else parse_program(text.decode())
        entries.append(
            CompiledEntry(name=name, graph=graph, workload=workload, mapping=mapping, program=program, chip=chip)
        )
    return entries


def _read(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    if not path.exists():
        raise ArtifactError(f"{path} does not exist: `aimc compile MODEL --chip NAME -o {path}` makes it")
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            _require_members(path, (MANIFEST,), names)
            manifest = json.loads(archive.read(MANIFEST))
            _check_manifest(path, manifest)
            members = _members(manifest)
            _require_members(path, tuple(member for member, _ in members), names)
            contents = {member: archive.read(member) for member, _ in members}
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}; give the path of an artifact") from error
    except (zipfile.BadZipFile, ValueError) as error:
        raise ArtifactError(f"{path} is damaged or no artifact ({error}); compile the network again") from error
    for name, content in contents.items():
        if manifest.get("sha256", {}).get(name) != hashlib.sha256(content).hexdigest():
            raise ArtifactError(f"{path}: {name} does not match its checksum, so the file is damaged: compile again")
    return manifest, {name: contents[member] for member, name in members}


def _check_manifest(path: Path, manifest: Any) -> None:
    if not isinstance(manifest, dict):
        raise ArtifactError(f"{path}: {MANIFEST} is no JSON object, so this is no artifact; compile the network again")
    if manifest.get("format") != FORMAT or manifest.get("format_version") not in _READ:
        found = f"{manifest.get('format')} version {manifest.get('format_version')}"
        versions = " and ".join(map(str, _READ))
        raise ArtifactError(f"{path} is {found}; this version reads {FORMAT} version {versions}: compile again")
    if type(manifest.get("seed")) is not int:
        raise ArtifactError(f"{path}: {MANIFEST} has no whole number as seed, so it is damaged: compile again")
    if not isinstance(manifest.get("sha256"), dict):
        raise ArtifactError(f"{path}: {MANIFEST} has no checksums, so it is damaged: compile again")
    if manifest["format_version"] == 1:
        return
    names = manifest.get("entries")
    whole = isinstance(names, list) and names and all(map(is_name, names)) and len(set(names)) == len(names)
    if not whole:
        raise ArtifactError(
            f"{path}: {MANIFEST} names the entries {names!r}, which are no names of their own each, so it is damaged: "
            "compile again"
        )


def _names(manifest: dict[str, Any]) -> list[str]:
    return [ONLY] if manifest["format_version"] == 1 else list(manifest["entries"])


def _members(manifest: dict[str, Any]) -> list[tuple[str, str]]:
    """The members of the file, each with what it is called in this version."""
    own = _OF_ENTRY if manifest.get("weights", True) is not False else _OF_ENTRY[:-1]
    common = [(name, name) for name in _COMMON]
    if manifest["format_version"] == 1:
        return common + [("mapping.txt" if name == "units.txt" else name, _member(ONLY, name)) for name in own]
    names = [_member(entry, name) for entry in _names(manifest) for name in own]
    return common + [(name, name) for name in names]


def _member(entry: str, name: str) -> str:
    return f"entries/{entry}/{name}"


def _require_members(path: Path, members: tuple[str, ...], names: set[str]) -> None:
    missing = [name for name in members if name not in names]
    if missing:
        raise ArtifactError(f"{path} is no whole artifact: it lacks {', '.join(missing)}; compile again")


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()
