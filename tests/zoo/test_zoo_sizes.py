"""Networks of the zoo at full size, on the meta device: published counts, and names of the implementations in use."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from aimc_compiler.zoo import NETWORKS, Entry
from aimc_compiler.zoo.building import count_parameters
from aimc_compiler.zoo.llama import LLAMA_1B
from aimc_compiler.zoo.resnet_cifar import resnet32

#: Counts that torchvision's and Hugging Face's documentation, or the papers, state.
PUBLISHED = {
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "wide_resnet50_2": 68_883_240,
    "densenet121": 7_978_856,
    "mobilenet_v2": 3_504_872,
    "vit_b16": 86_567_656,
    "gpt2": 124_439_808,
    "llama_1b": 1_235_814_400,
    "llama_70b": 68_976_648_192,
    "llama3_70b": 70_553_706_496,
    "mixtral_8x7b": 46_702_792_704,  # 46.7 billion: Jiang et al., section 3
}

#: Counts that papers round: (in millions, decimals).
ROUNDED = {
    "resnet32": (0.46, 2),  # He et al., table 6
    "wide_resnet16_4": (2.7, 1),  # Zagoruyko and Komodakis, cut
    "swb300_lstm": (30, 0),
    "rnn_t": (57, 0),  # Saon et al.
    "ptb_lstm": (20, 0),
}

#: Entries of the state dict, and a few with their shapes, as those implementations have them.
KEYS: dict[str, tuple[int, dict[str, tuple[int, ...]]]] = {
    "resnet18": (122, {"layer2.0.downsample.0.weight": (128, 64, 1, 1), "fc.weight": (1000, 512)}),
    "resnet50": (320, {"layer1.0.conv3.weight": (256, 64, 1, 1), "layer4.2.bn3.running_var": (2048,)}),
    "wide_resnet50_2": (320, {"layer1.0.conv2.weight": (128, 128, 3, 3), "layer4.0.conv1.weight": (1024, 1024, 1, 1)}),
    "densenet121": (
        727,
        {
            "features.denseblock4.denselayer16.conv1.weight": (128, 992, 1, 1),
            "features.transition3.conv.weight": (512, 1024, 1, 1),
            "features.norm5.weight": (1024,),
        },
    ),
    "mobilenet_v2": (
        314,
        {
            "features.1.conv.0.0.weight": (32, 1, 3, 3),
            "features.17.conv.1.0.weight": (960, 1, 3, 3),
            "features.18.0.weight": (1280, 320, 1, 1),
            "classifier.1.weight": (1000, 1280),
        },
    ),
    "resnet32": (188, {"layer3.4.conv2.weight": (64, 64, 3, 3), "linear.weight": (10, 64)}),
    "wide_resnet16_4": (83, {"block2.layer.0.convShortcut.weight": (128, 64, 1, 1), "fc.weight": (10, 256)}),
    "bert_base": (
        201,
        {
            "bert.embeddings.word_embeddings.weight": (30522, 768),
            "bert.encoder.layer.11.attention.self.query.weight": (768, 768),
            "bert.encoder.layer.0.attention.output.LayerNorm.weight": (768,),
            "bert.encoder.layer.0.intermediate.dense.weight": (3072, 768),
            "bert.pooler.dense.bias": (768,),
            "classifier.weight": (2, 768),
        },
    ),
    "albert_base_v2": (
        27,
        {
            "albert.embeddings.word_embeddings.weight": (30000, 128),
            "albert.encoder.embedding_hidden_mapping_in.weight": (768, 128),
            "albert.encoder.albert_layer_groups.0.albert_layers.0.ffn_output.weight": (768, 3072),
            "albert.pooler.weight": (768, 768),
        },
    ),
    "gpt2": (
        149,
        {
            "transformer.wpe.weight": (1024, 768),
            "transformer.h.11.attn.c_attn.weight": (768, 2304),
            "transformer.h.0.mlp.c_proj.weight": (3072, 768),
            "lm_head.weight": (50257, 768),
        },
    ),
    "llama_70b": (
        723,
        {
            "model.embed_tokens.weight": (32000, 8192),
            "model.layers.79.self_attn.k_proj.weight": (1024, 8192),
            "model.layers.0.mlp.down_proj.weight": (8192, 28672),
            "model.layers.0.post_attention_layernorm.weight": (8192,),
            "lm_head.weight": (32000, 8192),
        },
    ),
    "mixtral_8x7b": (
        995,
        {
            "model.layers.31.block_sparse_moe.gate.weight": (8, 4096),
            "model.layers.0.block_sparse_moe.experts.7.w1.weight": (14336, 4096),
            "model.layers.0.block_sparse_moe.experts.0.w2.weight": (4096, 14336),
            "model.layers.5.block_sparse_moe.experts.3.w3.weight": (14336, 4096),
            "model.layers.0.self_attn.k_proj.weight": (1024, 4096),
        },
    ),
    "vit_b16": (
        200,
        {
            "vit.embeddings.cls_token": (1, 1, 768),
            "vit.embeddings.position_embeddings": (1, 197, 768),
            "vit.embeddings.patch_embeddings.projection.weight": (768, 3, 16, 16),
            "vit.layers.11.attention.q_proj.weight": (768, 768),
            "vit.layers.0.mlp.fc1.bias": (3072,),
            "classifier.weight": (1000, 768),
        },
    ),
}

#: Shapes of the outputs for the example inputs.
OUTPUTS = {
    "resnet32": (1, 10),
    "wide_resnet16_4_cifar100": (1, 100),
    "bert_base": (1, 2),
    "gpt2": (1, 1024, 50257),
    "llama_70b": (1, 4096, 32000),
    "ptb_lstm": (1, 35, 10000),
    "swb300_lstm": (1, 21, 32000),
    "rnn_t": (1, 50, 8, 46),
}

UNTRAINED = sorted(name for name in NETWORKS if name not in ("fashion_resnet", "digit_lstm"))


def on_meta(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.device("meta"):
        return build()


@pytest.mark.parametrize("name", UNTRAINED)
def test_counts_and_outputs(name: str) -> None:
    entry: Entry = NETWORKS[name]
    model = on_meta(entry.build)
    assert count_parameters(model) == entry.parameters == PUBLISHED.get(name, entry.parameters)
    if name in ROUNDED:
        millions, decimals = ROUNDED[name]
        assert abs(entry.parameters / 1e6 - millions) <= 0.5 * 10.0**-decimals
    assert not model.training
    with torch.device("meta"):
        output = model(*entry.example_inputs())
    assert output.shape[0] == 1
    assert tuple(output.shape) == OUTPUTS.get(name, (1, *output.shape[1:]))


@pytest.mark.parametrize("name", sorted(KEYS))
def test_names_are_those_in_use(name: str) -> None:
    count, some = KEYS[name]
    state = on_meta(NETWORKS[name].build).state_dict()
    assert len(state) == count
    assert {key: tuple(state[key].shape) for key in some} == some


@pytest.mark.parametrize(
    ("name", "inner", "published"), [("bert_base", "bert", 109_482_240), ("albert_base_v2", "albert", 11_683_584)]
)
def test_encoders_without_their_heads(name: str, inner: str, published: int) -> None:
    assert count_parameters(on_meta(NETWORKS[name].build).get_submodule(inner)) == published


def test_projected_shortcuts_add_two_convolutions() -> None:
    projections = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    plain, projected = (on_meta(lambda kind=kind: resnet32(shortcut=kind)) for kind in ("A", "B"))
    assert count_parameters(projected) - count_parameters(plain) == projections


def test_tied_output_layers_are_one_matrix() -> None:
    for name, table in (("gpt2", "transformer.wte"), ("llama_1b", "model.embed_tokens")):
        model = on_meta(NETWORKS[name].build)
        assert model.get_submodule("lm_head").weight is model.get_submodule(table).weight
    assert LLAMA_1B.head == 64


def test_resnet50_has_its_stride_in_the_middle_convolution() -> None:
    block = on_meta(NETWORKS["resnet50"].build).get_submodule("layer2.0")
    assert [block.get_submodule(f"conv{i}").stride for i in (1, 2, 3)] == [(1, 1), (2, 2), (1, 1)]


def test_depthwise_convolutions_of_mobilenet() -> None:
    convolutions = [m for m in on_meta(NETWORKS["mobilenet_v2"].build).modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 52
    assert sum(conv.groups > 1 for conv in convolutions) == 17
    assert all(conv.groups in (1, conv.in_channels) for conv in convolutions)
