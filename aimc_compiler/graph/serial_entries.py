"""Saving the Graphs of several entries: each as ``serial`` does, with the tensors that they share held once."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from aimc_compiler.graph.entries import same_values
from aimc_compiler.graph.ir import Graph
from aimc_compiler.graph.serial import graph_from_parts, graph_to_parts


def graphs_to_parts(graphs: Mapping[str, Graph]) -> tuple[dict[str, dict[str, Any]], dict[str, Tensor]]:
    """(what JSON holds, by entry; tensors of all by name). Raises ArtifactError for what cannot be saved."""
    store = _Store()
    found: dict[str, dict[str, Any]] = {}
    for entry, graph in graphs.items():
        parts, tensors = graph_to_parts(graph)
        named = {name: store.keep(entry, name, value) for name, value in tensors.items()}
        renamed = {name: kept for name, kept in named.items() if name != kept}
        found[entry] = {**parts, "renamed": renamed} if renamed else parts
    return found, store.tensors


def graphs_from_parts(parts: Mapping[str, Mapping[str, Any]], tensors: Mapping[str, Tensor]) -> dict[str, Graph]:
    """The Graphs again, by entry. Raises ArtifactError as ``graph_from_parts``, KeyError for tensors that are not
    there."""
    graphs = {}
    for entry, held in parts.items():
        renamed = {name: tensors[kept] for name, kept in held.get("renamed", {}).items()}
        graphs[entry] = graph_from_parts(held, {**tensors, **renamed})
    return graphs


class _Store:
    """Tensors by name, one a memory: a file of tensors refuses two names for one."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._names: dict[tuple[int, torch.dtype, tuple[int, ...], tuple[int, ...]], str] = {}
        self._storages: set[int] = set()
        self._originals: list[Tensor] = []  # alive, so that no other tensor takes their place in memory

    def keep(self, entry: str, name: str, value: Tensor) -> str:
        """Hold a tensor; returns the name that it has here."""
        place = (value.data_ptr(), value.dtype, tuple(value.shape), value.stride())
        if value.numel() and place in self._names:
            return self._names[place]
        known = self.tensors.get(name)
        if known is not None and same_values(known, value):
            return name
        kept = name if known is None else f"{name}@{entry}"
        storage = value.untyped_storage().data_ptr()
        self.tensors[kept] = value.clone() if storage in self._storages else value
        self._names[place] = kept
        self._storages.add(storage)
        self._originals.append(value)
        return kept
