"""Checkpoints of training: one zip file of JSON and safetensors, each with a checksum, replaced as a whole; no pickle.

manifest.json       format, version, sha256 of the other two
state.json          everything that is no tensor, nested as it was; tensors by their number
tensors.safetensors the tensors
"""

import hashlib
import json
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from aimc_compiler.errors import TrainingError
from aimc_compiler.files import whole_file

FORMAT, VERSION = "aimc-training", 3
_MEMBERS = ("state.json", "tensors.safetensors")
_DATE = (1980, 1, 1, 0, 0, 0)
_PLAIN = (str, int, float, bool, type(None))


def save_checkpoint(path: Path, state: Any) -> None:
    """Write ``state``: tensors, numbers and words in dicts, lists and tuples. Equal states give equal bytes.

    Raises TrainingError where it holds anything else, or cannot be written; an older file then stays as it was.
    """
    tensors: dict[str, Tensor] = {}
    nested = _packed(state, "the checkpoint", tensors)
    contents = dict(zip(_MEMBERS, (json.dumps(nested).encode(), save_tensors(tensors)), strict=True))
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    manifest = json.dumps({"format": FORMAT, "version": VERSION, "sha256": sums}).encode()
    write_whole(path, {"manifest.json": manifest, **contents})


def write_whole(path: Path, members: dict[str, bytes]) -> None:
    """A zip file of these members, in the place of an older one once it is on the disk as a whole."""
    try:
        with (
            whole_file(path, path.with_name(path.name + ".partial"), durable=True) as file,
            zipfile.ZipFile(file, "w") as archive,
        ):
            for name, content in members.items():
                archive.writestr(zipfile.ZipInfo(name, _DATE), content)
    except OSError as error:
        raise TrainingError(
            f"{path} cannot be written: {error.strerror}; free space, or give another folder"
        ) from error


def load_checkpoint(path: Path) -> Any:
    """What ``save_checkpoint`` wrote. Raises TrainingError where a part is missing, damaged or of another version."""
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = json.loads(archive.read("manifest.json"))
            contents = {name: archive.read(name) for name in _MEMBERS}
        if (manifest.get("format"), manifest.get("version")) != (FORMAT, VERSION):
            raise TrainingError(f"{path} is no checkpoint of this version ({FORMAT} {VERSION}): begin the run anew")
        for name, content in contents.items():
            if hashlib.sha256(content).hexdigest() != manifest["sha256"][name]:
                raise TrainingError(f"{path} is damaged: {name} does not have its checksum; begin the run anew")
        return _unpacked(json.loads(contents["state.json"]), load_tensors(contents["tensors.safetensors"]))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, SafetensorError) as error:
        raise TrainingError(f"{path} cannot be read as a checkpoint: {error}; begin the run anew") from error


def _packed(value: Any, where: str, tensors: dict[str, Tensor]) -> Any:
    """``value`` as JSON, tensors by their number."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().clone().contiguous()
        return {"tensor": name}
    if type(value) in _PLAIN:
        return value
    if isinstance(value, list | tuple):
        packed = [_packed(each, f"{where}[{number}]", tensors) for number, each in enumerate(value)]
        return packed if isinstance(value, list) else {"tuple": packed}
    if isinstance(value, dict):
        kind = "counter" if isinstance(value, Counter) else "dict"
        return {kind: [[_packed(k, where, tensors), _packed(v, f"{where}[{k!r}]", tensors)] for k, v in value.items()]}
    raise TrainingError(
        f"{where} is a {type(value).__module__}.{type(value).__name__}, which is not saved: an optimiser or scheduler "
        "must keep tensors, numbers and words in its state dict"
    )


def _unpacked(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpacked(each, tensors) for each in value]
    if not isinstance(value, dict):
        return value
    ((kind, held),) = value.items()
    if kind == "tensor":
        return tensors[held]
    entries = [_unpacked(each, tensors) for each in held]
    if kind == "tuple":
        return tuple(entries)
    found = dict(entries)
    return Counter(found) if kind == "counter" else found
