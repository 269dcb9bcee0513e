"""Splitting operations that are several priced ones at once: attention into products, a mask and a softmax; einsum
into products of two operands each; a bilinear form into a matrix and a product of activations."""

from itertools import combinations
from math import prod, sqrt
from string import ascii_letters
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensor

from aimc_compiler.graph.arguments import arguments
from aimc_compiler.graph.ir import op_name
from aimc_compiler.graph.origin import read_origin

_ATEN = torch.ops.aten


class Writer:
    """Writes calls of ATen functions before a node, from the same line of the user's."""

    def __init__(self, graph: fx.Graph, node: fx.Node) -> None:
        self.graph, self.node = graph, node

    def call(self, target: Any, *args: Any) -> fx.Node:
        with self.graph.inserting_before(self.node):
            made = self.graph.call_function(target, args)
        made.meta["origin"] = read_origin(self.node)
        made.meta["val"] = _result(made)
        return made

    def shape(self, node: fx.Node) -> Any:
        """The sizes of a node's tensor; those that vary are no ints."""
        return _shape(node)

    def length(self, node: fx.Node, axis: int) -> Any:
        """The size of a dimension: a number, or a node that reads it where it varies."""
        return _length(self, [node], (0, axis))

    def finish(self, result: fx.Node) -> None:
        """Let ``result`` take the place of the node."""
        result.meta = {**self.node.meta, "origin": read_origin(self.node)}
        self.node.replace_all_uses_with(result)
        self.graph.erase_node(self.node)


def _result(node: fx.Node) -> Any:
    """What torch.export would note for a node: its result as a tensor without values; None where it cannot be told."""
    if any(source.meta.get("val") is None for source in node.all_input_nodes) or not callable(node.target):
        return None

    def held(source: fx.Node) -> Any:
        return source.meta["val"]

    noted = (other.meta.get("val") for other in node.graph.nodes)
    mode = next((value.fake_mode for value in noted if isinstance(value, FakeTensor)), None)
    if mode is None:
        return None
    with mode, torch.no_grad():
        return node.target(*fx.map_arg(node.args, held))


def split_compounds(graph: fx.Graph) -> None:
    """Write attention and einsum out, where they are not written out already."""
    for node in list(graph.nodes):
        if node.op == "call_function" and (write := _SPLITTERS.get(op_name(node))):
            write(graph, node)


def _attention(graph: fx.Graph, node: fx.Node) -> None:
    """softmax(q k^T scale + mask) v (Vaswani et al., NeurIPS 2017, equation 1), as torch's documentation writes it."""
    values = arguments(node)
    write = Writer(graph, node)
    query, key, value = values["query"], values["key"], values["value"]
    if values["enable_gqa"]:
        repeats = _size(query, -3) // _size(key, -3)
        key, value = (write.call(_ATEN.repeat_interleave.self_int, held, repeats, -3) for held in (key, value))
    scale = values["scale"]
    factor = 1 / sqrt(_size(query, -1)) if scale is None else scale
    products = write.call(_ATEN.matmul.default, query, write.call(_ATEN.transpose.int, key, -2, -1))
    scores = write.call(_ATEN.mul.Tensor, products, factor)
    mask = values["attn_mask"]
    if values["is_causal"]:
        lengths = [_length(write, [held], (0, -2)) for held in (query, values["key"])]
        seen = write.call(_ATEN.ones.default, lengths)
        mask = write.call(_ATEN.to.dtype, write.call(_ATEN.tril.default, seen), torch.bool)
    if mask is not None:
        scores = _masked(write, scores, mask, boolean=values["is_causal"] or _dtype(mask) is torch.bool)
    shares = write.call(_ATEN.softmax.int, scores, -1)
    write.finish(write.call(_ATEN.matmul.default, shares, value))


def _masked(write: Writer, scores: fx.Node, mask: fx.Node, *, boolean: bool) -> fx.Node:
    """A boolean mask says which keys are seen; any other is added."""
    if not boolean:
        return write.call(_ATEN.add.Tensor, scores, mask)
    hidden = write.call(_ATEN.logical_not.default, mask)
    return write.call(_ATEN.masked_fill.Scalar, scores, hidden, float("-inf"))


def _bilinear(graph: fx.Graph, node: fx.Node) -> None:
    """x1^T W_o x2 for each output o: the first input meets all W_o as one matrix, the second what comes of it."""
    values = arguments(node)
    write, weight = Writer(graph, node), values["weight"]
    outputs, first, second = (_size(weight, axis) for axis in range(3))
    rows = write.call(_ATEN.reshape.default, write.call(_ATEN.transpose.int, weight, 1, 2), [outputs * second, first])
    met = write.call(_ATEN.linear.default, values["input1"], rows)
    apart = write.call(_ATEN.unflatten.int, met, -1, [outputs, second])
    product = write.call(_ATEN.matmul.default, apart, write.call(_ATEN.unsqueeze.default, values["input2"], -1))
    result = write.call(_ATEN.squeeze.dim, product, -1)
    write.finish(result if values["bias"] is None else write.call(_ATEN.add.Tensor, result, values["bias"]))


def _einsum(graph: fx.Graph, node: fx.Node) -> None:
    """Pair by pair; a path that torch was given is only a hint at their order."""
    values = arguments(node)
    operands = list(values["tensors"])
    letters = values["equation"].replace(" ", "")
    if len(operands) < 2:
        return
    inputs, arrow, output = letters.partition("->")
    parts = inputs.split(",")
    if "." in letters:
        parts, shared = _without_dots(operands, parts)
        output = output.replace("...", shared) if arrow else shared + _implied(*(p.replace(shared, "") for p in parts))
    elif not arrow:
        output = _implied(*parts)
    write, pairs = Writer(graph, node), []
    while len(operands) > 2:
        left, right = _next_pair(operands, parts)
        apart = "".join(part for place, part in enumerate(parts) if place not in (left, right)) + output
        kept = "".join(letter for letter in dict.fromkeys(parts[left] + parts[right]) if letter in apart)
        equation = f"{parts[left]},{parts[right]}->{kept}"
        pairs.append(write.call(_ATEN.einsum.default, equation, [operands[left], operands[right]]))
        for place in sorted((left, right), reverse=True):
            del operands[place], parts[place]
        operands.append(pairs[-1])
        parts.append(kept)
    _contract(write, operands, (parts[0], parts[1]), output)
    for pair in pairs:
        _einsum(graph, pair)


def _next_pair(operands: list[fx.Node], parts: list[str]) -> tuple[int, int]:
    """The pair to multiply first: an activation and a weight that share a letter, else any two that do."""
    pairs = list(combinations(range(len(parts)), 2))

    def rank(pair: tuple[int, int]) -> tuple[bool, bool]:
        weights = [operands[place].op == "get_attr" for place in pair]
        return not set(parts[pair[0]]) & set(parts[pair[1]]), weights[0] == weights[1]

    return min(pairs, key=rank)


def _without_dots(operands: list[fx.Node], parts: list[str]) -> tuple[list[str], str]:
    """Letters for the dimensions that "..." stands for, counted from the last as broadcasting does."""
    counts = [len(_shape(held)) - len(part.replace("...", "")) for held, part in zip(operands, parts, strict=True)]
    unused = [letter for letter in ascii_letters if letter not in "".join(parts)]
    shared = "".join(unused[: max(count for count, part in zip(counts, parts, strict=True) if "." in part)])
    return [
        part.replace("...", shared[len(shared) - count :]) for part, count in zip(parts, counts, strict=True)
    ], shared


def _tensordot(graph: fx.Graph, node: fx.Node) -> None:
    values = arguments(node)
    operands = [values["self"], values["other"]]
    ranks = [len(_shape(operand)) for operand in operands]
    left, right = list(ascii_letters[: ranks[0]]), list(ascii_letters[26 : 26 + ranks[1]])
    for mine, other in zip(values["dims_self"], values["dims_other"], strict=True):
        right[other] = left[mine]
    output = "".join([letter for letter in left if letter not in right] + [x for x in right if x not in left])
    _contract(Writer(graph, node), operands, ("".join(left), "".join(right)), output)


def _contract(write: Writer, operands: list[fx.Node], letters: tuple[str, str], output: str) -> None:
    """A product of two operands: dimensions of both in front, those summed in between, each one's own outside."""
    left, right = letters
    if any(len(set(part)) != len(part) for part in (left, right, output)) or not _fit(operands, letters):
        return
    both = [letter for letter in left if letter in right and letter in output]
    summed = [letter for letter in left if letter in right and letter not in output]
    own = [[letter for letter in mine if letter not in other] for mine, other in ((left, right), (right, left))]
    if any(letter not in output for letter in (*own[0], *own[1])) or _varying(operands, (left, right), both) > 1:
        return
    sizes = {letter: (operand, axis) for operand, mine in ((0, left), (1, right)) for axis, letter in enumerate(mine)}
    first = _grouped(write, operands[0], left, (both, own[0], summed))
    second = _grouped(write, operands[1], right, (both, summed, own[1]))
    product = write.call(_ATEN.matmul.default, first, second)
    order = [*both, *own[0], *own[1]]
    apart = write.call(_ATEN.reshape.default, product, [_length(write, operands, sizes[letter]) for letter in order])
    turned = [order.index(letter) for letter in output]
    write.finish(write.call(_ATEN.permute.default, apart, turned) if turned != sorted(turned) else apart)


def _fit(operands: list[fx.Node], letters: tuple[str, str]) -> bool:
    """Whether each letter has one size: a size of one is not spread."""
    first, second = (dict(zip(part, _shape(x), strict=True)) for part, x in zip(letters, operands, strict=True))
    return all(str(first[letter]) == str(second[letter]) for letter in first if letter in second)


def _implied(*parts: str) -> str:
    """Without an arrow: the letters that stand once, in order."""
    letters = "".join(parts)
    return "".join(sorted(letter for letter in set(letters) if letters.count(letter) == 1))


def _grouped(write: Writer, operand: fx.Node, letters: str, groups: tuple[list[str], ...]) -> fx.Node:
    """(*both, second group, third group): dimensions of the operand in order, the last two groups each as one."""
    order = [letters.index(letter) for group in groups for letter in group]
    turned = write.call(_ATEN.permute.default, operand, order) if order != sorted(order) else operand
    kept = len(groups[0])
    sizes = [_length(write, [operand], (0, axis)) for axis in order]
    middle, last = sizes[kept : kept + len(groups[1])], sizes[kept + len(groups[1]) :]
    if len(middle) == len(last) == 1:
        return turned
    return write.call(_ATEN.reshape.default, turned, [*sizes[:kept], _joined(middle), _joined(last)])


def _joined(sizes: list[Any]) -> int:
    """One size for several; -1, what is left, where one of them varies."""
    return prod(sizes) if all(isinstance(size, int) for size in sizes) else -1


def _varying(operands: list[fx.Node], letters: tuple[str, str], both: list[str]) -> int:
    """How many sizes of an operand vary with the batch, those apart that are in front of both."""
    return max(
        sum(not isinstance(size, int) for letter, size in zip(mine, _shape(operand), strict=True) if letter not in both)
        for operand, mine in zip(operands, letters, strict=True)
    )


def _length(write: Writer, operands: list[fx.Node], place: tuple[int, int]) -> Any:
    """The size of a dimension: a number, or a node that reads it where it varies."""
    operand, axis = operands[place[0]], place[1]
    size = _shape(operand)[axis]
    return size if isinstance(size, int) else write.call(_ATEN.sym_size.int, operand, axis)


def _shape(node: fx.Node) -> Any:
    value = node.meta.get("val")
    assert isinstance(value, Tensor), node
    return value.shape


def _size(node: fx.Node, axis: int) -> int:
    return int(_shape(node)[axis])


def _dtype(node: fx.Node) -> torch.dtype:
    value = node.meta.get("val")
    assert isinstance(value, Tensor), node
    return value.dtype


_SPLITTERS = {
    "scaled_dot_product_attention": _attention,
    "einsum": _einsum,
    "tensordot": _tensordot,
    "bilinear": _bilinear,
}
