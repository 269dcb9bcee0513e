"""Where a node of the graph came from: its module path and the line of the user's code that called it.

torch.export keeps both in ``node.meta``: ``nn_module_stack`` (path and class of each enclosing module, outermost
first) and ``stack_trace``. They are read once, into an ``Origin``, which survives rewriting, saving and loading.
"""

import re
from pathlib import Path

import torch
from torch import fx

from aimc_compiler.graph.export import NETWORK_PREFIX
from aimc_compiler.records import record

_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>\S+)\n\s*(?P<code>[^\n]*)')
_CALL_SUFFIX = re.compile(r"@\d+")
_EXPORT = str(Path(__file__).with_name("export.py"))
_TORCH = str(Path(torch.__file__).parent)


@record
class Origin:
    """path: module path ("" is the network itself); module: class name; file, line, function, code: the call."""

    path: str = ""
    module: str = ""
    file: str = ""
    line: int = 0
    function: str = ""
    code: str = ""

    @property
    def source(self) -> str:
        """ "net.py:73", or "" where torch did not record the line."""
        return f"{self.file}:{self.line}" if self.file else ""

    def __str__(self) -> str:
        place = f"'{self.path}'" if self.path else "the top level"
        if not self.file:
            return place
        return f"{place} ({self.source} in {self.function}, `{self.code}`)"


def read_origin(node: fx.Node) -> Origin:
    """The origin of a node that torch.export made; of one we made, what was noted on it."""
    noted = node.meta.get("origin")
    if isinstance(noted, Origin):
        return noted
    path, module = _innermost_module(node)
    frame = _innermost_frame(str(node.meta.get("stack_trace") or ""))
    if frame is None:
        return Origin(path=path, module=module)
    return Origin(
        path=path,
        module=module,
        file=Path(frame["file"]).name,
        line=int(frame["line"]),
        function=frame["function"],
        code=frame["code"].strip(),
    )


def _innermost_module(node: fx.Node) -> tuple[str, str]:
    stack = node.meta.get("nn_module_stack") or {}
    for path, module in reversed(list(stack.values())):
        if path.startswith("_empty_nn_module_stack"):
            continue
        name = module if isinstance(module, str) else module.__name__
        return network_path(_CALL_SUFFIX.sub("", path)), name.rpartition(".")[2]
    return "", ""


def network_path(path: str) -> str:
    """A path in the user's network, from one in the ``FlatNetwork`` that was exported around it."""
    return "" if path == NETWORK_PREFIX else path.removeprefix(f"{NETWORK_PREFIX}.")


def _innermost_frame(stack_trace: str) -> re.Match[str] | None:
    frames = [frame for frame in _FRAME.finditer(stack_trace) if not _inside_torch(frame["file"])]
    return frames[-1] if frames else None


def _inside_torch(file: str) -> bool:
    return file.startswith((_TORCH, _EXPORT, "torch/"))
