"""Operations exempt from a chip: floating point in their place, and all else as it was."""

import pytest
import torch
from torch import nn

import aimc_compiler as aimc
from aimc_compiler.errors import DataError


@pytest.fixture(scope="module")
def compiled() -> aimc.CompiledModel:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 5)).eval()
    x = torch.randn(20, 3, 6, 6)
    return aimc.compile(model, "analog-fabric", (x[:1],), calibration=[x])


X = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def run(device: aimc.Device) -> torch.Tensor:
    device.rewind()
    result: torch.Tensor = device(X, time_s=3600.0)
    return result


def test_all_exempt_is_the_float_network(compiled: aimc.CompiledModel) -> None:
    device = compiled.deploy()
    device.exempt(dict.fromkeys(device.precision))
    assert torch.equal(run(device), compiled.float_outputs(X))


def test_taken_back_it_is_the_same_chip(compiled: aimc.CompiledModel) -> None:
    device = compiled.deploy()
    before = run(device)
    device.exempt({"0": None})
    assert not torch.equal(run(device), before)
    device.exempt(None)
    assert torch.equal(run(device), before)


def test_the_noise_of_all_else_stays(compiled: aimc.CompiledModel) -> None:
    exempt, whole = compiled.deploy(), compiled.deploy()
    exempt.exempt({"0": None})
    seen: list[torch.Tensor] = []
    whole.beside(lambda node, plain, chip, own: seen.append(own) if own is not None else None, X, time_s=3600.0)
    assert torch.equal(run(exempt), seen[-1])  # the last layer, of the float network's input


def test_single_outputs_of_a_convolution(compiled: aimc.CompiledModel) -> None:
    device = compiled.deploy()
    values: dict[str, torch.Tensor] = {}
    device.exempt({"0": [4, 1]})
    device.beside(lambda node, plain, chip, own: values.setdefault(node.name, chip - plain), X, time_s=3600.0)
    wrong = next(iter(values.values())).abs().amax(dim=(0, 2, 3)) > 0
    assert wrong.tolist() == [True, False, True, True, False, True]


def test_matrices_of_a_loop() -> None:
    torch.manual_seed(0)

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(5, 4, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.lstm(x)[0][:, -1]

    x = torch.randn(6, 7, 5)
    compiled = aimc.compile(Last().eval(), "analog-fabric", (x[:1],), calibration=[x])
    device = compiled.deploy()
    names = list(device.precision)
    assert len(names) == 2
    device.exempt(dict.fromkeys(names))
    torch.testing.assert_close(device(x), compiled.float_outputs(x))
    device.exempt({name: range(16) for name in names})  # every output by itself
    torch.testing.assert_close(device(x), compiled.float_outputs(x))
    device.exempt({names[1]: [0, 3]})
    assert not torch.allclose(device(x), compiled.float_outputs(x))


@pytest.mark.parametrize(
    ("exempt", "message"),
    [
        ({"2": None}, "no analog operation is called '2': there are 0, 3"),
        ({"3": [5]}, "operation '3' has no output 5: name each output once, from 0 to 4"),
        ({"3": [1, 1]}, "operation '3' has been given one output twice"),
    ],
)
def test_what_there_is_not(compiled: aimc.CompiledModel, exempt: dict, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(DataError, match=message):
        compiled.deploy().exempt(exempt)
