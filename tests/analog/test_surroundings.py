"""What torch is set to around a matrix, and how its ranges are changed, does not show in its outputs."""

from collections.abc import Callable, Iterator

import pytest
import torch
from analog_chips import STANDARD_EFFECTS, pieces, standard_tile
from fast_cases import UNITS
from torch import Tensor

from aimc_compiler.analog import Contraction, MatrixOnTiles
from aimc_compiler.analog.fast import Precision, space

LINEAR = Contraction(kind="linear")
CONV = Contraction(kind="conv1d", kernel=(9,), stride=(1,), padding=(4,), dilation=(1,))
PRECISIONS = ["exact", pytest.param("fast", marks=pytest.mark.skipif(UNITS is not None, reason=str(UNITS)))]
HOUR = 3600.0


def matrix(precision: Precision, contraction: Contraction = LINEAR) -> MatrixOnTiles:
    weight = torch.randn(1, 20, 90, generator=torch.Generator().manual_seed(1), dtype=torch.float32) / 3
    figures = torch.linspace(0.5, 2.0, 20, dtype=torch.float32)
    return MatrixOnTiles(
        weight, contraction, pieces(1, (50, 40), (9, 11)), standard_tile(), STANDARD_EFFECTS, factor=figures,
        bias=figures - 1, precision=precision,
    )  # fmt: skip


def inputs(contraction: Contraction = LINEAR) -> Tensor:
    shape = (12, 90) if contraction is LINEAR else (6, 10, 12)
    return torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float32)


def ranges() -> Tensor:
    return torch.tensor([[1.5, 2.0]], dtype=torch.float32)


@pytest.fixture
def wide() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("contraction", [LINEAR, CONV], ids=["linear", "conv1d"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_autocast(precision: Precision, contraction: Contraction) -> None:
    """Products in bfloat16 would be off by several codes; the state made under it is kept, so it counts as well."""
    x = inputs(contraction)
    expected = matrix(precision, contraction).forward(x, ranges(), HOUR)
    cast = matrix(precision, contraction)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(cast.forward(x, ranges(), HOUR), expected)
    assert torch.equal(cast.forward(x, ranges(), HOUR), expected)


def test_autocast_with_gradients() -> None:
    x, cast = inputs().requires_grad_(), inputs().requires_grad_()
    expected = matrix("exact").forward(x, ranges(), HOUR)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = matrix("exact").forward(cast, ranges(), HOUR)
    found.sum().backward()
    expected.sum().backward()
    assert torch.equal(found, expected)
    assert x.grad is not None
    assert cast.grad is not None
    assert torch.equal(x.grad, cast.grad)


@pytest.mark.parametrize("contraction", [LINEAR, CONV], ids=["linear", "conv1d"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_default_dtype(precision: Precision, contraction: Contraction, wide: None) -> None:
    found = matrix(precision, contraction).forward(inputs(contraction), ranges(), HOUR)
    assert found.dtype == torch.float32


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    "change",
    [
        lambda kept: kept.mul_(2.0),
        lambda kept: kept.data.mul_(2.0),  # neither of these two counts as a change of the tensor
        lambda kept: kept.numpy().__imul__(2.0),
    ],
    ids=["in place", "data", "numpy"],
)
def test_ranges_that_are_changed_in_place(precision: Precision, change: Callable[[Tensor], object]) -> None:
    on_tiles, x, kept = matrix(precision), inputs(), ranges()
    first = on_tiles.forward(x, kept, HOUR)
    change(kept)
    found = on_tiles.forward(x, kept, HOUR)
    assert torch.equal(found, matrix(precision).forward(x, 2 * ranges(), HOUR))
    assert not torch.equal(found, first)
    with torch.inference_mode():
        assert torch.equal(on_tiles.forward(x, ranges(), HOUR), first)


def test_made_in_inference_mode_and_differentiated() -> None:
    with torch.inference_mode():
        made = matrix("exact")
        made.forward(inputs(), ranges(), HOUR)
    found = []
    for on_tiles in (made, matrix("exact")):
        x, r = inputs().requires_grad_(), ranges().requires_grad_()
        on_tiles.forward(x, r, HOUR).square().sum().backward()
        assert x.grad is not None
        assert r.grad is not None
        found.append((x.grad, r.grad))
    assert all(torch.equal(*both) for both in zip(*found, strict=True))


def test_digital_factors_are_copies() -> None:
    """What is changed elsewhere later changes neither precision."""
    factor = torch.ones(20)
    on_tiles = matrix("exact")
    on_tiles.rescale_outputs(factor, None)
    first = on_tiles.forward(inputs(), ranges(), HOUR)
    factor.mul_(2)
    assert torch.equal(on_tiles.forward(inputs(), ranges(), HOUR), first)


def test_the_last_spare_memory_may_go_to_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    class Raced(list[space.Memory]):
        """Another thread takes what is there between the question and the answer."""

        def __len__(self) -> int:
            return 1

    monkeypatch.setattr(space, "_SPARE", Raced())
    with space.memory() as held:
        assert isinstance(held, space.Memory)
