"""YAML with the place of every key and value, read by the core schema of YAML 1.2 (https://yaml.org/spec/1.2.2, 10.3).

PyYAML follows YAML 1.1, where ``1e-9`` is text, ``off`` is false and of two equal keys the last wins in silence. Here
``1e-9`` is a number, ``off`` is text and equal keys are a fault. Aliases and tags are not read.
"""

import re
from collections.abc import Callable
from typing import Any

import yaml

from aimc_compiler.errors import SpecError
from aimc_compiler.records import record

_TAG = "tag:yaml.org,2002:"
_CORE: tuple[tuple[str, str, str], ...] = (
    ("null", r"^(?:~|null|Null|NULL|)$", "~nN"),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", "-+0123456789"),
    (
        "float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        "-+0123456789.",
    ),
)


class _CoreLoader(yaml.SafeLoader):
    yaml_implicit_resolvers = {}  # noqa: RUF012  (the core schema instead of YAML 1.1's)


class _CoreDumper(yaml.SafeDumper):
    yaml_implicit_resolvers = {}  # noqa: RUF012

    def ignore_aliases(self, data: Any) -> bool:
        """Equal objects are written out each time: the reader has no aliases."""
        return True


for _kind, _pattern, _first in _CORE:
    _characters = [*_first, ""] if _kind == "null" else [*_first]
    for _class in (_CoreLoader, _CoreDumper):
        _class.add_implicit_resolver(_TAG + _kind, re.compile(_pattern), _characters)


@record
class Place:
    """Where something stands. label: "chip.yaml:3:5" or "--set tile.rows=128"; order: sorts places as a reader goes."""

    label: str
    order: tuple[int, int, int]


class Tree:
    """Data of a YAML text and the places of its keys and values, by path. faults: (place, path, message)."""

    def __init__(self, data: Any) -> None:
        self.data = data
        self.keys: dict[tuple[str | int, ...], Place] = {}
        self.values: dict[tuple[str | int, ...], Place] = {}
        self.faults: list[tuple[Place, tuple[str | int, ...], str]] = []

    def place_of(self, path: tuple[str | int, ...]) -> Place:
        """Of the value at a path, or of the nearest section above it that is given."""
        while path not in self.values and path:
            path = path[:-1]
        return self.values[path]


def read_tree(text: str, name: str, *, what: str = "chip spec") -> Tree:
    """Raises SpecError on a text that is no YAML; lesser faults stand in the tree. name: of the file, for places; what:
    the text should be."""
    tree = Tree(None)
    try:
        root = yaml.compose(text, Loader=_CoreLoader)
        if root is None:
            raise SpecError(f"{name}:1:1: the file is empty; a {what} begins with 'schema_version: 1'")
        tree.data = _Builder(tree, name).build(root, ())
    except yaml.MarkedYAMLError as error:
        raise SpecError(_syntax_message(error, name)) from error
    except yaml.YAMLError as error:
        raise SpecError(_character_message(error, text, name)) from error
    except RecursionError as error:
        raise SpecError(f"{name}:1:1: sections are nested too deeply to be a {what}") from error
    return tree


def write_tree(data: Any) -> str:
    """YAML text that ``read_tree`` reads back to the same data; keys keep their order."""
    return yaml.dump(data, Dumper=_CoreDumper, sort_keys=False, allow_unicode=True, width=110)


class _Builder:
    """Turns nodes into data and records their places."""

    def __init__(self, tree: Tree, name: str) -> None:
        self._tree = tree
        self._name = name
        self._seen: set[int] = set()

    def build(self, node: yaml.Node, path: tuple[str | int, ...]) -> Any:
        place = self._place(node)
        self._tree.values[path] = place
        if id(node) in self._seen:
            self._tree.faults.append((place, path, "is an alias (*name), which is not read; write the section out"))
            return None
        self._seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        return self._scalar(node, path, place)

    def _mapping(self, node: yaml.MappingNode, path: tuple[str | int, ...]) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            place = self._place(key_node)
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != _TAG + "str":
                shown = key_node.value if isinstance(key_node, yaml.ScalarNode) else "a list or section"
                self._tree.faults.append((place, path, f"the key {shown} is no text; put it in quotes"))
                continue
            key = key_node.value
            if key in data:
                first = self._tree.keys[*path, key].label.rpartition(":")[0].rpartition(":")[2]
                message = f"the key stands twice, first in line {first}; remove one of the two"
                self._tree.faults.append((place, (*path, key), message))
                continue
            self._tree.keys[*path, key] = place
            data[key] = self.build(value_node, (*path, key))
        return data

    def _scalar(self, node: yaml.Node, path: tuple[str | int, ...], place: Place) -> Any:
        kind = str(node.tag).removeprefix(_TAG)
        try:
            return _SCALARS[kind](str(node.value))
        except KeyError:
            self._tree.faults.append((place, path, f"the tag {node.tag} is not read; remove it"))
        except ValueError:
            self._tree.faults.append((place, path, f"{node.value[:20]} is no {kind} that can be held; change it"))
        return None

    def _place(self, node: yaml.Node) -> Place:
        line, column = node.start_mark.line + 1, node.start_mark.column + 1
        return Place(label=f"{self._name}:{line}:{column}", order=(0, line, column))


def _integer(text: str) -> int:
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


def _number(text: str) -> float:
    return float(
        text.replace(".inf", "inf").replace(".Inf", "inf").replace(".INF", "inf").lower().replace(".nan", "nan")
    )


_SCALARS: dict[str, Callable[[str], Any]] = {
    "str": str,
    "null": lambda _: None,
    "bool": lambda text: text.lower() == "true",
    "int": _integer,
    "float": _number,
}


def _syntax_message(error: yaml.MarkedYAMLError, name: str) -> str:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    what = ", ".join(part for part in (error.context, error.problem) if part)
    return f"{name}:{line}:{column}: this is no YAML: {what}; look at the indentation, colons and quotes around it"


def _character_message(error: yaml.YAMLError, text: str, name: str) -> str:
    before = text[: getattr(error, "position", 0)]
    line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
    reason = getattr(error, "reason", str(error))
    return f"{name}:{line}:{column}: this is no YAML: {reason}; remove the character"
