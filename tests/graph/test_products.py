"""Products with a weight are matrices, however they are written; and what else random networks found."""

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import aimc_compiler as aimc
from aimc_compiler.errors import CaptureError, UnsupportedOpError
from aimc_compiler.graph import Graph, capture
from aimc_compiler.graph.ir import op_name

Spelling = Callable[["Weights", Tensor], Tensor]


class Weights(nn.Module):
    """A stack of three matrices, a matrix, an offset for each vector and a vector; the call is given."""

    def __init__(self, spelling: Spelling) -> None:
        super().__init__()
        self.spelling = spelling
        self.stack, self.matrix = nn.Parameter(torch.randn(3, 4, 5)), nn.Parameter(torch.randn(4, 5))
        self.times, self.vector = nn.Parameter(torch.randn(6, 3)), nn.Parameter(torch.randn(4))
        self.offset, self.outputs = nn.Parameter(torch.randn(3, 5)), nn.Parameter(torch.randn(5))

    def forward(self, x: Tensor) -> Tensor:
        return self.spelling(self, x)


def _captured(spelling: Spelling, *shape: int) -> Graph:
    torch.manual_seed(0)
    model = Weights(spelling).double().eval()
    graph = capture(model, (torch.randn(2, *shape, dtype=torch.float64),))
    x = torch.randn(5, *shape, dtype=torch.float64)
    torch.testing.assert_close(graph(x), model(x), rtol=1e-12, atol=1e-12)
    return graph


_ON_TILES: dict[str, tuple[Spelling, tuple[int, ...], str, int]] = {
    "bmm with the weight expanded": (
        lambda w, x: torch.bmm(x, w.matrix.expand(x.shape[0], -1, -1)), (3, 4), "linear", 1),
    "bmm with the weight repeated": (
        lambda w, x: torch.bmm(x, w.matrix[None].repeat(x.shape[0], 1, 1)), (3, 4), "linear", 1),
    "a weight from the left": (lambda w, x: w.times @ x, (3, 4), "linear", 1),
    "a weight times vectors": (lambda w, x: x @ w.vector, (3, 4), "linear", 1),
    "baddbmm": (
        lambda w, x: torch.baddbmm(w.offset, x, w.matrix.expand(x.shape[0], -1, -1)), (3, 4), "linear", 1),
    "addmm with factors": (
        lambda w, x: torch.addmm(w.outputs, x, w.matrix, beta=0.5, alpha=2), (4,), "linear", 1),
    "tensordot": (lambda w, x: torch.tensordot(x, w.matrix, 1), (3, 4), "linear", 1),
    "einsum with dots": (lambda w, x: torch.einsum("...i,io->...o", x, w.matrix), (2, 3, 4), "linear", 1),
    "a matrix for each head": (lambda w, x: x @ w.stack, (3, 6, 4), "conv1d", 3),
    "einsum with heads": (lambda w, x: torch.einsum("bthd,hde->bthe", x, w.stack), (6, 3, 4), "conv1d", 3),
    "bmm with samples inside": (
        lambda w, x: torch.bmm(x.transpose(0, 1), w.stack).transpose(0, 1), (3, 4), "conv1d", 3),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(_ON_TILES))
def test_a_product_with_a_weight_is_a_matrix(name: str) -> None:
    spelling, shape, kind, groups = _ON_TILES[name]
    graph = _captured(spelling, *shape)
    assert [(module.kind, module.groups) for module in graph.matrix_modules().values()] == [(kind, groups)]
    assert not {"matmul", "bmm", "mm", "addmm", "baddbmm", "einsum", "tensordot"} & {
        op_name(node) for node in graph.nodes if node.op == "call_function"
    }


def test_spellings_of_one_weight_share_its_matrix() -> None:
    graph = _captured(lambda w, x: x @ w.matrix + torch.bmm(x, w.matrix.expand(x.shape[0], -1, -1)), 3, 4)
    weights = [module.weight for module in graph.matrix_modules().values()]
    assert len(weights) == 2
    assert weights[0] is weights[1]


_WITH_TWO_ACTIVATIONS: dict[str, tuple[Spelling, str, int]] = {
    "the weight in the middle": (lambda w, x: torch.einsum("bti,tio,bto->bt", x, w.stack, _wider(x)), "conv1d", 3),
    "dots, the weight last": (lambda w, x: torch.einsum("...i,...j,ij->...", x, _wider(x), w.matrix), "linear", 1),
    "bilinear": (lambda w, x: F.bilinear(x, _wider(x), w.stack, w.times[0]), "linear", 1),
}


def _wider(x: Tensor) -> Tensor:
    return torch.cat([x, x[..., :1].exp()], -1)


@pytest.mark.parametrize("name", sorted(_WITH_TWO_ACTIVATIONS))
def test_a_weight_between_two_activations_is_a_matrix_and_a_digital_product(name: str) -> None:
    spelling, kind, groups = _WITH_TWO_ACTIVATIONS[name]
    graph = _captured(spelling, 3, 4)
    assert [(module.kind, module.groups) for module in graph.matrix_modules().values()] == [(kind, groups)]
    assert [op_name(node) for node in graph.nodes].count("matmul") == 1


def test_a_chain_of_weights_is_multiplied_one_after_another() -> None:
    """An activation and a weight first: two small matrices, not their product."""
    graph = _captured(lambda w, x: torch.einsum("ts,bti,io->bso", w.times, x, w.matrix), 6, 4)
    assert sorted((module.rows, module.columns) for module in graph.matrix_modules().values()) == [(4, 5), (6, 3)]


def test_products_of_three_activations_are_digital() -> None:
    graph = _captured(lambda w, x: torch.einsum("bti,bsi,bsj->btj", x, x.exp(), x), 3, 4)
    assert not graph.matrix_modules()
    assert [op_name(node) for node in graph.nodes].count("matmul") == 2


def test_the_two_inputs_of_a_bilinear_layer() -> None:
    class Bilinear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Bilinear(4, 5, 3)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.layer(x, y)

    model, x, y = Bilinear().double().eval(), torch.randn(2, 4).double(), torch.randn(2, 5).double()
    compiled = aimc.compile(model, "ideal", (x, y))
    torch.testing.assert_close(compiled.deploy()(x, y), model(x, y), rtol=1e-12, atol=1e-12)
    [op] = compiled.workload.matrix_ops
    assert (op.name, compiled.workload.matrices[0].rows, compiled.workload.matrices[0].columns) == ("layer", 4, 15)


class Empty(nn.Module):
    """What has no elements on its way: a slice, a layer."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, of initialising nothing
            self.layer = nn.Linear(4, 0)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x[:, :0].relu(), x], 1) if self.what == "slice" else torch.cat([self.layer(x), x], 1)


@pytest.mark.parametrize(("what", "place"), [("slice", r"aten\.slice\.Tensor at "), ("layer", "layer at 'layer'")])
def test_tensors_without_elements_are_refused_with_the_line(what: str, place: str) -> None:
    message = rf"{place}.*test_products\.py:\d+.*: gives a tensor without elements"
    with pytest.raises(UnsupportedOpError, match=message):
        capture(Empty(what).eval(), (torch.randn(2, 4),))


def test_an_example_without_elements_is_refused_by_name() -> None:
    with pytest.raises(
        CaptureError, match=r"Linear: input \[0\]\[0\] of the example has shape \(1, 0, 4\), which holds no"
    ):
        capture(nn.Linear(4, 3).eval(), (torch.zeros(1, 0, 4),))


def test_an_outer_product_stays_digital() -> None:
    graph = _captured(lambda w, x: torch.matmul(x.unsqueeze(-1), w.vector.unsqueeze(0)), 3)
    assert not graph.matrix_modules()


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_matrix_that_an_index_chooses_is_on_tiles_with_the_whole_stack(side: str) -> None:
    """The choice is the input's own: word 1 takes the second matrix; one counts from the end."""

    def routed(w: Weights, x: Tensor) -> Tensor:
        choice = x[:, 0].gt(0).long() * 2 - 1
        if side == "right":
            return torch.bmm(x.unsqueeze(1), w.stack[choice]).squeeze(1)
        return torch.bmm(w.stack.transpose(1, 2)[choice], x.unsqueeze(-1)).squeeze(-1)

    modules = _captured(routed, 4).matrix_modules()
    assert {name: tuple(module.weight.shape) for name, module in modules.items()} == {
        f"stack.{index}": (5, 4) for index in range(3)
    }


def test_an_offset_for_each_vector_is_no_bias() -> None:
    """Four vectors and four outputs: as many values as a bias has, but for other places."""

    class Offset(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.offset, self.weight = nn.Parameter(torch.randn(4, 1)), nn.Parameter(torch.randn(3, 4))

        def forward(self, x: Tensor) -> Tensor:
            return torch.addmm(self.offset, x, self.weight)

    model, x = Offset().eval(), torch.randn(4, 3)
    torch.testing.assert_close(capture(model, (x,), batch_dim=None)(x), model(x))


def test_cross_attention_with_a_packed_weight_is_on_tiles() -> None:
    """torch cuts the packed weight of query, key and value in two where query and key differ."""

    class Cross(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.attention(x, y, y)[0]

    model, x, y = Cross().eval(), torch.randn(2, 3, 4), torch.randn(2, 5, 4)
    graph = capture(model, (x, y))
    assert sorted(module.rows * module.columns for module in graph.matrix_modules().values()) == [16, 16, 32]
    torch.testing.assert_close(graph(x, y), model(x, y))


def test_images_of_one_sample_are_convolved_each_by_itself() -> None:
    """Views of one tensor cut it in different ways: frames as images, and the whole as one."""

    class Frames(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.each, self.all = nn.Conv2d(1, 2, 3), nn.Conv2d(3, 2, 3)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.each(x.reshape(-1, 1, 6, 4)).reshape(-1, 3, 2, 4, 2), self.all(x)

    compiled = aimc.compile(Frames().eval(), "ideal", (torch.randn(2, 3, 6, 4),))
    assert {op.name: op.windows for op in compiled.workload.matrix_ops} == {"each": 24, "all": 8}


def test_a_single_row_and_its_transpose_are_saved(tmp_path: Path) -> None:
    """Both have one memory, which a file of tensors refuses to hold under two names."""

    class Row(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.row = nn.Linear(1, 4, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.row(x) @ self.row.weight

    model, x = Row().eval(), torch.randn(2, 1)
    loaded = aimc.load(aimc.compile(model, "ideal", (x,)).save(tmp_path / "row.aimc"))
    torch.testing.assert_close(loaded.deploy()(x), model(x))


def test_a_head_tied_to_an_embedding_is_saved_once(tmp_path: Path) -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(50, 8)

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(self.words(x), self.words.weight)

    model, x = Words().eval(), torch.randint(50, (2, 3))
    path = aimc.compile(model, "ideal", (x,)).save(tmp_path / "words.aimc")
    graph = aimc.load(path).graph
    torch.testing.assert_close(graph(x), model(x))
    [module] = graph.matrix_modules().values()
    held = [getattr(graph.module, str(node.target)) for node in graph.module.graph.find_nodes(op="get_attr")]
    assert [tensor.data_ptr() for tensor in held] == [module.weight.data_ptr()]


def test_results_of_one_operation_do_not_share_memory() -> None:
    """What topk returns may be changed in place, one part and not the other."""

    class Best(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            best, places = x.topk(2, -1)
            best /= best.sum(-1, keepdim=True)
            return best, places

    model, x = Best().eval(), torch.rand(2, 5)
    graph = capture(model, (x,))
    assert "copy" not in {op_name(node) for node in graph.nodes}
    torch.testing.assert_close(graph(x), model(x))


def test_the_default_device_is_not_where_the_compiler_computes() -> None:
    model, x = nn.Conv2d(1, 2, 3).eval(), torch.randn(2, 1, 5, 4)
    with torch.device("meta"):
        compiled = aimc.compile(nn.Sequential(model, nn.Flatten()).eval(), "ideal", (x,))
    assert compiled.workload.matrix_ops[0].windows == 6


def test_an_output_that_holds_state_is_named() -> None:
    class State:
        pass

    class Stateful(nn.Module):
        def forward(self, x: Tensor) -> dict[str, object]:
            return {"y": x, "state": State()}

    with pytest.raises(CaptureError, match=r"Stateful: output \['state'\] is a State, which holds state"):
        capture(Stateful().eval(), (torch.randn(2, 3),))
