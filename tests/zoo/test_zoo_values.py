"""What the networks of the zoo compute: against written-out formulas, seeds, masks, and Hugging Face where it is."""

import logging
import math
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_networks import SMALL, integers, numbers
from torch import Tensor, nn

from aimc_compiler.zoo.albert import albert_base_v2
from aimc_compiler.zoo.attention import attend, causal_mask
from aimc_compiler.zoo.bert import bert_base
from aimc_compiler.zoo.gpt2 import Conv1D, gpt2
from aimc_compiler.zoo.llama import LlamaShape, llama, rotary_angles, rotate
from aimc_compiler.zoo.mixtral import MixtralShape, mixtral
from aimc_compiler.zoo.resnet_cifar import PaddedShortcut, resnet32
from aimc_compiler.zoo.rnn_t import rnn_t
from aimc_compiler.zoo.vit import vit_b16


@pytest.mark.parametrize("name", ["resnet18", "bert_base", "gpt2", "rnn_t"])
def test_the_seed_alone_decides_the_weights(name: str) -> None:
    first, _ = SMALL[name]()
    before = torch.get_rng_state()
    second, _ = SMALL[name]()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_another_seed_gives_other_weights() -> None:
    sizes = {"vocabulary": 50, "positions": 20, "width": 16, "heads": 2, "layers": 1}
    first, second = gpt2(**sizes, seed=0), gpt2(**sizes, seed=1)
    assert not torch.equal(first.lm_head.weight, second.lm_head.weight)
    assert not torch.equal(first.transformer.h[0].mlp["c_fc"].weight, second.transformer.h[0].mlp["c_fc"].weight)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_is_torchs(causal: bool) -> None:
    query, key, value = (numbers(2, 3, 5, 4) * scale for scale in (1.0, 2.0, 3.0))
    mask = causal_mask(numbers(2, 5, 4)) if causal else None
    expected = F.scaled_dot_product_attention(query, key, value, is_causal=causal)
    assert torch.allclose(attend(query, key, value, mask), expected, atol=1e-6)


@pytest.mark.parametrize("name", ["gpt2", "llama_tiny", "llama_tied", "ptb_lstm"])
def test_later_tokens_do_not_change_earlier_outputs(name: str) -> None:
    model, (tokens,) = SMALL[name]()
    other = tokens.clone()
    other[0, -1] = (other[0, -1] + 1) % 50
    with torch.no_grad():
        here, there = model(tokens), model(other)
    assert torch.allclose(here[:, :-1], there[:, :-1], atol=1e-6)
    assert not torch.allclose(here[:, -1], there[:, -1], atol=1e-6)


def test_padding_does_not_change_the_result() -> None:
    model, (tokens, mask, kinds) = SMALL["bert_base_padded"]()
    with torch.no_grad():
        padded = model(tokens, mask, kinds)
        short = model(tokens[:, :9], None, kinds[:, :9])
        unmasked = model(tokens, None, kinds)
    assert torch.allclose(padded, short, atol=1e-6)
    assert not torch.allclose(padded, unmasked, atol=1e-6)


def test_rotary_scores_depend_on_the_distance_alone() -> None:
    x = numbers(1, 9, 8)
    query, key = (torch.tile(vector, (9, 1))[None, None] for vector in x[0, :2])
    angles = rotary_angles(x, 8, 10000.0, x.shape[1])
    scores = (rotate(query, *angles) @ rotate(key, *angles).transpose(-1, -2))[0, 0]
    for distance in range(-8, 9):
        along = torch.diagonal(scores, distance)
        assert torch.allclose(along, along[:1].expand_as(along), atol=1e-5)
    assert not torch.allclose(scores[0], scores[0, :1].expand(9), atol=1e-3)


def test_query_heads_of_a_group_share_keys_and_values() -> None:
    """Grouped attention is full attention whose key and value matrices repeat each head for its group."""
    shape = {"vocabulary": 50, "width": 16, "layers": 1, "heads": 4, "inner": 24}
    grouped, full = (llama(LlamaShape(**shape, key_heads=heads)) for heads in (2, 4))
    state = grouped.state_dict()
    for name in ("k_proj", "v_proj"):
        key = f"model.layers.0.self_attn.{name}.weight"
        state[key] = state[key].unflatten(0, (2, 4)).repeat_interleave(2, dim=0).flatten(0, 1)
    full.load_state_dict(state)
    with torch.no_grad():
        assert torch.allclose(grouped(integers(7)), full(integers(7)), atol=1e-6)


def test_the_shortcut_of_zeros() -> None:
    x = numbers(2, 4, 6, 6)
    y = PaddedShortcut(2)(x)
    assert torch.equal(y[:, 2:6], x[:, :, ::2, ::2])
    assert not y[:, :2].any()
    assert not y[:, 6:].any()


def test_conv1d_of_gpt2_is_a_linear_layer() -> None:
    torch.manual_seed(0)
    layer = Conv1D(6, 4)
    nn.init.normal_(layer.bias)
    x = numbers(2, 3, 6)
    assert torch.allclose(layer(x), F.linear(x, layer.weight.t(), layer.bias), atol=1e-6)


def test_the_two_joint_networks() -> None:
    sizes = {"features": 10, "width": 12, "layers": 1, "prediction": 8, "joint_width": 6, "characters": 20}
    frames, characters = numbers(2, 7, 10), integers(4, below=20).expand(2, 4)
    for joint, combine in (("multiplicative", torch.mul), ("additive", torch.add)):
        model = rnn_t(**sizes, joint=joint)
        with torch.no_grad():
            left = model.joint.encoder(model.encoder(frames)[0])
            right = model.joint.prediction(model.prediction(characters))
            logits = model(frames, characters)
            for time, length in ((0, 0), (6, 3), (2, 1)):
                one = model.joint.output(torch.tanh(combine(left[:, time], right[:, length])))
                assert torch.allclose(logits[:, time, length], one, atol=1e-6)


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="3 heads do not divide a width of 16"):
        bert_base(vocabulary=50, width=16, heads=3)
    with pytest.raises(ValueError, match="3 key heads do not divide 4 heads"):
        LlamaShape(vocabulary=50, width=16, layers=1, heads=4, key_heads=3, inner=8)
    with pytest.raises(ValueError, match="patches of 7 do not divide an image of 32"):
        vit_b16(size=32, patch=7)
    with pytest.raises(ValueError, match="choose 'multiplicative' or 'additive'"):
        rnn_t(joint="gated")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"shortcut is 'C': choose 'A' \(zeros\) or 'B'"):
        resnet32(shortcut="C")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"widths are \(4, 8, 12\): each stage must have twice the channels"):
        resnet32(widths=(4, 8, 12))


def _hugging_face(name: str) -> tuple[nn.Module, nn.Module]:
    """(theirs, ours) at one small size."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("transformers").setLevel(logging.ERROR)
        hf: Any = pytest.importorskip("transformers")
        text = {"vocab_size": 50, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24}
        ours = {"vocabulary": 50, "width": 16, "heads": 2}
        match name:
            case "bert":
                config = hf.BertConfig(**text, num_hidden_layers=2, max_position_embeddings=20)
                return hf.BertForSequenceClassification(config), bert_base(**ours, layers=2, inner=24, positions=20)
            case "albert":
                config = hf.AlbertConfig(**text, embedding_size=8, num_hidden_layers=3, max_position_embeddings=20)
                small = albert_base_v2(**ours, embedding=8, uses=3, inner=24, positions=20)
                return hf.AlbertForSequenceClassification(config), small
            case "gpt2":
                config = hf.GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=20)
                return hf.GPT2LMHeadModel(config), gpt2(**ours, layers=2, positions=20)
            case "llama":
                text |= {"num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5}
                shape = LlamaShape(vocabulary=50, width=16, layers=2, heads=4, key_heads=2, inner=24)
                return hf.LlamaForCausalLM(hf.LlamaConfig(**text, num_hidden_layers=2)), llama(shape)
            case "mixtral":
                text |= {"num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5}
                config = hf.MixtralConfig(**text, num_hidden_layers=2, num_local_experts=4, num_experts_per_tok=2)
                sizes = {"vocabulary": 50, "width": 16, "layers": 2, "heads": 4, "key_heads": 2, "inner": 24}
                small = mixtral(MixtralShape(**sizes, experts=4, rotary_base=1e6))
                return hf.MixtralForCausalLM(config), small
            case _:
                del text["vocab_size"]
                config = hf.ViTConfig(**text, num_hidden_layers=2, image_size=32, patch_size=8)
                small = vit_b16(classes=2, size=32, patch=8, width=16, layers=2, heads=2, inner=24)
                return hf.ViTForImageClassification(config), small


def _unstacked(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """With each expert's matrices under their published names, not stacked."""
    names = {}
    for name, value in state.items():
        place, _, rest = name.partition(".mlp.experts.")
        if rest:
            parts = {"w2": value} if rest == "down_proj" else dict(zip(("w1", "w3"), value.chunk(2, 1), strict=True))
            for part, stack in parts.items():
                names |= {f"{place}.block_sparse_moe.experts.{n}.{part}.weight": each for n, each in enumerate(stack)}
        else:
            names[name.replace(".mlp.gate.", ".block_sparse_moe.gate.")] = value
    return names


def _arguments(name: str) -> dict[str, Tensor]:
    tokens = {"input_ids": torch.cat([integers(11), integers(11).flip(-1)])}
    if name == "vit":
        return {"pixel_values": numbers(2, 3, 32, 32)}
    if name in ("gpt2", "llama", "mixtral"):
        return tokens
    mask = torch.tensor([[1] * 11, [1] * 7 + [0] * 4])
    return tokens | {"attention_mask": mask, "token_type_ids": torch.cat([integers(11, 2)] * 2)}


@pytest.mark.parametrize("name", ["bert", "albert", "gpt2", "llama", "mixtral", "vit"])
def test_values_are_hugging_faces(name: str) -> None:
    theirs, ours = _hugging_face(name)
    generator = torch.Generator().manual_seed(0)
    for parameter in theirs.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) / math.sqrt(16)
    ours.load_state_dict(_unstacked(theirs.state_dict()))
    with torch.no_grad():
        expected = theirs.eval()(**_arguments(name)).logits
        assert torch.allclose(ours(**_arguments(name)), expected, rtol=1e-5, atol=1e-5)
