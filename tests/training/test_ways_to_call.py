"""Prepared networks in copies, threads and functional calls, and classes and methods of unusual kinds."""

import copy
import pickle
import threading
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import aimc_compiler as aimc
from aimc_compiler.errors import TrainingError
from aimc_compiler.training import mini_batch, on_chip, prepare_hwa


def prepared() -> Any:
    torch.manual_seed(0)
    return prepare_hwa(nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6)), "analog-fabric").train()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_a_copy_that_is_made_on_a_chip_is_on_none(copied: Any) -> None:
    trained, x = prepared().eval(), torch.randn(9, 6)
    with on_chip(trained), torch.no_grad():
        trained(x)
        twin = copied(trained)
    assert twin.hwa.clock is None
    twin.train()(x).square().sum().backward()
    assert int(twin[0].analog.seen) == 1
    assert float(twin[0].weight.grad.abs().max()) > 0


class Waits(nn.Module):
    """Its calls overlap: each waits for another one to begin."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.meet: list[threading.Barrier] = []

    def forward(self, x: Tensor) -> Tensor:
        for barrier in self.meet:
            barrier.wait(20)
        y: Tensor = self.layer(x)
        return y


def test_calls_that_overlap_in_threads_leave_training_as_it_was() -> None:
    torch.manual_seed(0)
    trained, x = prepare_hwa(Waits(), "analog-fabric").eval(), torch.randn(9, 6)
    alone = trained(x).detach()
    trained.meet.append(threading.Barrier(2))
    found: list[Tensor] = []
    threads = [threading.Thread(target=lambda: found.append(trained(x).detach())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    assert all(torch.equal(each, alone) for each in found)
    trained.meet.clear()
    trained.train()(x).sum().backward()
    assert int(trained.layer.analog.seen) == trained.hwa.batches.number == 1


def test_tensors_of_a_functional_call_are_not_clipped() -> None:
    trained, x = prepared(), torch.randn(9, 6)
    trained(x)
    given = {name: value.detach().clone() for name, value in trained.named_parameters()}
    given["0.weight"] = (torch.randn(6, 6) ** 3).requires_grad_()
    before, own = given["0.weight"].detach().clone(), trained[0].weight.detach().clone()
    torch.func.functional_call(trained, given, (x,)).square().sum().backward()
    assert torch.equal(given["0.weight"], before)
    assert torch.equal(trained[0].weight, own)
    assert float(given["0.weight"].grad.abs().max()) > 0


class Registered(nn.Module):
    """A base that wants a keyword of each of its classes."""

    kinds: ClassVar[dict[str, type[nn.Module]]] = {}

    def __init_subclass__(cls, *, key: str, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        assert key not in cls.kinds
        cls.kinds[key] = cls


class Whole(Registered, key="whole"):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        return y


class Layer(Registered, nn.Linear, key="layer"):
    pass


def test_classes_that_register_theirs_are_prepared() -> None:
    for plain in (Whole(), nn.Sequential(Layer(6, 6))):
        trained = prepare_hwa(plain, "analog-fabric").train()
        trained(torch.randn(3, 6)).sum().backward()
        assert trained.hwa.batches.number == 1
    assert set(Registered.kinds) == {"whole", "layer"}


class StepByStep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Iterator[Tensor]:
        for _ in range(2):
            x = self.layer(x)
            yield x


def test_a_forward_that_gives_a_generator_runs_within_a_mini_batch_or_is_refused() -> None:
    trained, x = prepare_hwa(StepByStep(), "analog-fabric").train(), torch.randn(3, 6)
    with pytest.raises(TrainingError, match=r"of StepByStep gives a generator, whose steps run behind the mini-batch"):
        trained(x)
    with mini_batch(trained):
        assert len(list(trained(x))) == 2
    assert len(list(trained.eval()(x))) == 2


class Cell(nn.Module):
    """A loop over a cell that begins with no state, with zeros made like its input, or with one of the input."""

    def __init__(self, kind: type[nn.Module], start: str) -> None:
        super().__init__()
        self.cell, self.start = kind(6, 6), start

    def forward(self, x: Tensor) -> Tensor:
        state: Any = {"none": None, "zeros like inputs": x.new_zeros(x.shape[0], 6), "inputs": x[:, 0] * 0.3}[
            self.start
        ]
        if state is not None and isinstance(self.cell, nn.LSTMCell):
            state = (state, state)
        for step in range(3):
            state = self.cell(x[:, step], state)
        return state[0] if isinstance(state, tuple) else state


@pytest.mark.parametrize("start", ["none", "zeros like inputs", "inputs"])
@pytest.mark.parametrize("kind", [nn.RNNCell, nn.GRUCell, nn.LSTMCell])
def test_cells_are_those_of_the_compiled_chip_however_they_begin(kind: type[nn.Module], start: str) -> None:
    torch.manual_seed(1)
    x = torch.randn(4, 3, 6)
    trained = prepare_hwa(Cell(kind, start), "analog-fabric", {"range_batches": 2}).train()
    for _ in range(3):
        trained(x)
    compiled = aimc.compile(trained.eval(), "analog-fabric", (x[:2],))
    assert {matrix.name for matrix in compiled.workload.matrices} == {"cell.weight_ih", "cell.weight_hh"}
    device = compiled.deploy(seed=3, precision="exact")
    with torch.no_grad(), on_chip(trained, seed=3, time_s=3600.0):
        assert torch.equal(trained(x), device(x, time_s=3600.0))
