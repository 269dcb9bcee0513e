"""Random networks, each from a seed, as source text: what fails can be read, pasted and run by itself.

``random_network(seed)`` draws inputs, then steps of ``random_shapes.MAKERS``, each from values at hand; every value
that no step reads is an output. ``random_network(seed, steps=n)`` is the same network cut after n steps, to find the
step that a failure needs. Layers with a state of their own are not drawn: they come with their module.
"""

import linecache
import random
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from networks import prepared
from random_shapes import MAKERS
from random_steps import Draw, Shape
from torch import Tensor, nn
from torch.utils import _pytree as pytree

_MOST_ELEMENTS = 1200
_LARGEST = 100.0
_TRIES = 60
_BATCH = 2
_INPUTS = {
    1: lambda rng: (rng.randint(1, 20),),
    2: lambda rng: (rng.randint(2, 9), rng.randint(2, 11)),
    3: lambda rng: (rng.randint(1, 6), rng.randint(3, 13), rng.randint(3, 13)),
    4: lambda rng: (rng.randint(1, 3), rng.randint(2, 6), rng.randint(2, 6), rng.randint(2, 6)),
}
#: How forward takes its inputs: its signature, where each is read, and how a call gives them.
_FORMS = ("positional", "keywords", "dictionary", "mixed")


@dataclass(frozen=True)
class Input:
    """shape: without the batch; tokens: the number of words where it holds integers, 0 where it does not."""

    name: str
    shape: Shape
    tokens: int = 0

    def draw(self, batch: int, generator: torch.Generator) -> Tensor:
        if self.tokens:
            return torch.randint(self.tokens, (batch, *self.shape), generator=generator)
        return torch.randn(batch, *self.shape, generator=generator, dtype=torch.float64)


@dataclass(frozen=True)
class RandomNetwork:
    """source: a module with a class Network; form: how it takes its inputs."""

    seed: int
    form: str
    inputs: tuple[Input, ...]
    source: str

    @cached_property
    def model(self) -> nn.Module:
        """In float64 and evaluation mode, weights drawn from the seed."""
        file = f"random_network_{self.seed}.py"
        linecache.cache[file] = (len(self.source), None, self.source.splitlines(keepends=True), file)
        names: dict[str, Any] = {"__name__": file.removesuffix(".py")}
        exec(compile(self.source, file, "exec"), names)
        torch.manual_seed(self.seed)
        return prepared(names["Network"](), self.seed).double()

    def call(self, batch: int, seed: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """(args, kwargs) of a call with fresh inputs."""
        generator = torch.Generator().manual_seed(seed)
        values = {item.name: item.draw(batch, generator) for item in self.inputs}
        first = self.inputs[0].name
        if self.form == "keywords":
            return (), values
        if self.form == "dictionary":
            return (values,), {}
        if self.form == "mixed":
            return (values.pop(first),), {"rest": {"values": list(values.values())}}
        return tuple(values.values()), {}

    def outputs(self, batch: int, seed: int) -> list[Tensor]:
        """The flat outputs of such a call."""
        args, kwargs = self.call(batch, seed)
        with torch.no_grad():
            return [leaf for leaf in pytree.tree_leaves(self.model(*args, **kwargs)) if isinstance(leaf, Tensor)]

    def __str__(self) -> str:
        inputs = ", ".join(f"{item.name}{[_BATCH, *item.shape]}" for item in self.inputs)
        return f"random_network({self.seed}), called {self.form} with {inputs}:\n{self.source}"


def random_network(seed: int, steps: int | None = None) -> RandomNetwork:
    """The network of a seed, cut after ``steps`` steps where it has more."""
    return _Builder(seed).build(steps)


class _Builder:
    """Runs each step as it is drawn, to know its shape and to drop what torch refuses."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.draw = Draw(self.rng)
        self.root = nn.Module()
        self.values: dict[str, Tensor] = {}
        self.more: dict[str, Tensor] = {}
        self.lines: list[str] = []
        torch.manual_seed(seed)

    def build(self, steps: int | None) -> RandomNetwork:
        length = self.rng.randint(3, 10)
        form = self.rng.choice(_FORMS)
        with torch.no_grad():
            inputs = self._inputs()
            for _ in range(length if steps is None else min(steps, length)):
                self._step()
        source = _source(form, inputs, self.draw.members, self.lines, self._result(steps is None))
        return RandomNetwork(self.seed, form, inputs, source)

    def _inputs(self) -> tuple[Input, ...]:
        inputs = []
        for index in range(self.rng.choice((1, 1, 1, 2, 3))):
            shape = _INPUTS[self.rng.choice((1, 2, 2, 3, 3, 3, 4))](self.rng)
            words = self.rng.choice((5, 11)) if len(shape) == 2 and self.rng.random() < 0.2 else 0
            inputs.append(Input(f"x{index}", shape[:1] if words else shape, words))
            value = inputs[-1].draw(_BATCH + 1, torch.Generator().manual_seed(self.seed))
            self._hold(f"x{index}", value[:_BATCH], value)
            if words:
                del self.draw.values[f"x{index}"]
                self._keep(f"{self.draw.layer(f'Embedding({words}, {shape[1]})')}(x{index})")
        return tuple(inputs)

    def _step(self) -> None:
        for _ in range(_TRIES):
            name = self.rng.choice((*self.draw.values, *[list(self.draw.values)[-1]] * 3))
            shape = self.draw.values[name]
            maker = self.rng.choice([maker for ranks, maker in MAKERS if len(shape) in ranks])
            before = dict(self.draw.members)
            try:
                kept = self._keep(maker(self.draw, name, shape))
            except (RuntimeError, ValueError, IndexError, AssertionError, NotImplementedError, TypeError):
                kept = False  # sizes do not fit, or there is nothing to join: torch refuses, or the maker has no choice
            if kept:
                return
            self.draw.members = before

    def _keep(self, text: str) -> bool:
        """Run an expression on two and on three samples; keep it if each has a small, finite value of its own."""
        for name, member in self.draw.members.items():
            if not hasattr(self.root, name):
                setattr(self.root, name, eval(member, {"nn": nn, "torch": torch}))
        self.root.double().eval()
        names = {"torch": torch, "F": F, "self": self.root}
        value = eval(text, {**names, **{name: held.clone() for name, held in self.values.items()}})
        if not _usable(value):
            return False
        more = eval(text, {**names, **{name: held.clone() for name, held in self.more.items()}})
        if more.shape != (_BATCH + 1, *value.shape[1:]) or not torch.allclose(more[:_BATCH], value):
            return False
        name = f"y{len(self.lines)}"
        self.lines.append(f"{name} = {text}")
        self._hold(name, value, more)
        return True

    def _hold(self, name: str, value: Tensor, more: Tensor) -> None:
        """value: of two samples; more: of a third one too."""
        self.values[name], self.more[name] = value, more
        self.draw.values[name] = tuple(value.shape[1:])

    def _result(self, nested: bool) -> str:
        """What forward returns: every value that nothing reads, nested in one way or another."""
        made = [line.partition(" = ")[0] for line in self.lines] or list(self.values)
        text = "\n".join(line.partition(" = ")[2] for line in self.lines).replace("(", " ").replace(")", " ")
        words = set(
            "".join(character if character.isalnum() or character == "_" else " " for character in text).split()
        )
        unread = [name for name in made if name not in words]
        if len(unread) == 1 and (not nested or self.rng.random() < 0.7):
            return unread[0]
        if self.rng.random() < 0.5:
            return "{" + ", ".join(f"'{name}': {name}" for name in unread) + "}"
        return f"({unread[0]}, [{', '.join(unread[1:])}])"


def _usable(value: object) -> bool:
    if not isinstance(value, Tensor) or value.dtype != torch.float64 or not 2 <= value.dim() <= 5:
        return False
    if value.shape[0] != _BATCH or not 0 < value[0].numel() <= _MOST_ELEMENTS:
        return False
    return bool(value.isfinite().all()) and float(value.abs().max()) <= _LARGEST


def _source(form: str, inputs: tuple[Input, ...], members: dict[str, str], lines: list[str], result: str) -> str:
    names = [item.name for item in inputs]
    signature, unpacking = ", ".join(names), []
    if form == "keywords":
        signature = f"*, {signature}"
    if form == "dictionary":
        signature, unpacking = "inputs", [f"{name} = inputs['{name}']" for name in names]
    if form == "mixed":
        signature = f"{names[0]}, rest"
        unpacking = [f"[{', '.join(names[1:])}] = rest['values']"] if names[1:] else []
    body = [*unpacking, *lines, f"return {result}"]
    return "\n".join(
        [
            "import torch\nimport torch.nn.functional as F\nfrom torch import nn\n\n",
            "class Network(nn.Module):\n    def __init__(self):\n        super().__init__()",
            *(f"        self.{name} = {text}" for name, text in members.items()),
            f"\n    def forward(self, {signature}):",
            *(f"        {line}" for line in body),
        ]
    )
