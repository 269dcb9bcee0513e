"""Networks of Hugging Face's own classes, small and random: captured, on tiles, and equal to themselves in float64."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from random_checks import check_network, check_outputs
from torch import Tensor, nn

import aimc_compiler as aimc
from aimc_compiler.errors import CaptureError, UnsupportedOpError
from aimc_compiler.graph import capture
from aimc_compiler.workload import DigitalOp

hf: Any = pytest.importorskip("transformers", reason="needs transformers: pip install transformers")
logging.getLogger("transformers").setLevel(logging.ERROR)

# torch.export and transformers warn about each other's internals.
pytestmark = pytest.mark.filterwarnings("ignore")

_WORDS = {"vocab_size": 53, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_WIDTHS = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
_SHARED = {**_WORDS, **_WIDTHS, "num_attention_heads": 4, "num_key_value_heads": 2, "use_cache": False}
_GPT2 = {**_WORDS, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 20, "use_cache": False}
_WHISPER = {
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_layers": 2,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 32,
    "d_model": 16,
    "num_mel_bins": 8,
    "max_source_positions": 10,
    "max_target_positions": 16,
    "decoder_start_token_id": 1,
    "use_cache": False,
}
_WAV2VEC2 = {
    **_WIDTHS,
    "vocab_size": 20,
    "conv_dim": (8, 8),
    "conv_stride": (5, 2),
    "conv_kernel": (10, 3),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}
_IMAGES = {**_WIDTHS, "image_size": 32, "patch_size": 8}

Call = tuple[tuple[Any, ...], dict[str, Any]]


def _words(length: int) -> Callable[[int], Tensor]:
    return lambda batch: torch.randint(1, 53, (batch, length))


def _seen(batch: int) -> Tensor:
    """An attention mask that hides the last words of all samples but the first."""
    mask = torch.ones(batch, 7, dtype=torch.long)
    mask[1:, 5:] = 0
    return mask


def _values(*shape: int) -> Callable[[int], Tensor]:
    return lambda batch: torch.randn(batch, *shape, dtype=torch.float64)


_CASES: dict[str, tuple[str, str, dict[str, Any], dict[str, Callable[[int], Tensor]]]] = {
    "bert": ("BertModel", "BertConfig", {**_WORDS, **_WIDTHS}, {"input_ids": _words(7), "attention_mask": _seen}),
    "bert_classifier": ("BertForSequenceClassification", "BertConfig", {**_WORDS, **_WIDTHS}, {"input_ids": _words(7)}),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", _GPT2, {"input_ids": _words(7), "attention_mask": _seen}),
    "llama": ("LlamaForCausalLM", "LlamaConfig", _SHARED, {"input_ids": _words(7), "attention_mask": _seen}),
    "distilbert": (
        "DistilBertForSequenceClassification",
        "DistilBertConfig",
        {**_WORDS, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32},
        {"input_ids": _words(7), "attention_mask": _seen},
    ),
    "vit": ("ViTForImageClassification", "ViTConfig", _IMAGES, {"pixel_values": _values(3, 32, 32)}),
    "whisper": (
        "WhisperForConditionalGeneration",
        "WhisperConfig",
        {**_WORDS, **_WHISPER},
        {"input_features": _values(8, 20), "decoder_input_ids": _words(5)},
    ),
    "wav2vec2": ("Wav2Vec2ForCTC", "Wav2Vec2Config", _WAV2VEC2, {"input_values": _values(400)}),
    "mixtral": (
        "MixtralForCausalLM",
        "MixtralConfig",
        {**_SHARED, "num_local_experts": 4, "num_experts_per_tok": 2},
        {"input_ids": _words(7)},
    ),
}


def _network(name: str) -> nn.Module:
    network, config, settings, _ = _CASES[name]
    torch.manual_seed(1)
    model = getattr(hf, network)(getattr(hf, config)(**settings)).double().eval()
    if name == "mixtral":
        model.set_experts_implementation("batched_mm")
    return model


def _call(name: str, batch: int, seed: int) -> Call:
    torch.manual_seed(seed)
    return (), {key: draw(batch) for key, draw in _CASES[name][3].items()}


@pytest.mark.parametrize("name", sorted(_CASES))
def test_a_network_of_hugging_face_is_computed_as_it_is(name: str, tmp_path: Path) -> None:
    compiled = check_network(_network(name), _call(name, 2, 2), _call(name, 3, 3), tmp_path)
    assert compiled is not None
    assert compiled.graph.batch.dynamic
    assert not compiled.graph.unpriced


def test_the_tied_head_of_gpt2_is_one_matrix_and_a_lookup() -> None:
    """The matrix stands on tiles for the head; words are looked up in digital memory."""
    args, kwargs = _call("gpt2", 2, 2)
    workload = aimc.compile(_network("gpt2"), "ideal", args, example_kwargs=kwargs).workload
    head = next(op for op in workload.ops if op.name == "lm_head")
    tied = [matrix for matrix in workload.matrices if (matrix.rows, matrix.columns) == (16, 53)]
    assert [matrix.name for matrix in tied] == [head.matrix]
    lookups = [op for op in workload.ops if isinstance(op, DigitalOp) and op.op == "embedding"]
    assert [(op.cost_class, op.work) for op in lookups if op.name.startswith("transformer.wte")] == [("lookup", 7 * 16)]


def test_every_expert_of_mixtral_stands_on_tiles_and_the_router_chooses() -> None:
    """Each expert has matrices of its own, numbered in their stack; their weights are looked up nowhere."""
    args, kwargs = _call("mixtral", 2, 2)
    model = _network("mixtral")
    compiled = aimc.compile(model, "ideal", args, example_kwargs=kwargs)
    experts = [matrix for matrix in compiled.workload.matrices if ".experts." in matrix.name]
    assert [(matrix.rows, matrix.columns) for matrix in experts] == [*[(16, 64)] * 4, *[(32, 16)] * 4] * 2
    assert experts[5].name == "model.layers.0.mlp.experts.down_proj.1"
    # Other words take other experts: the choice is made anew in each run.
    check_outputs(model, compiled, _call("mixtral", 5, 11))


def test_mixtral_is_timed_for_the_experts_that_a_token_takes() -> None:
    """7 tokens take 14 experts, of which each of four has 4 or 3; values stay."""
    args, kwargs = _call("mixtral", 2, 2)
    rules = {"*.experts.*": {"experts": 4, "active": 2}}
    model = _network("mixtral")
    compiled = aimc.compile(model, "ideal", args, example_kwargs=kwargs, rules=rules)
    windows = {op.name: (op.windows, op.computed_windows) for op in compiled.workload.matrix_ops}
    for layer in range(2):
        for stack in ("gate_up_proj", "down_proj"):
            found = [windows[f"model.layers.{layer}.mlp.experts.{stack}.{expert}"] for expert in range(4)]
            assert found == [(4, 14), (4, 14), (3, 14), (3, 14)]
    check_outputs(model, compiled, _call("mixtral", 5, 11))


def test_experts_by_a_loop_over_those_that_are_hit_are_refused_with_the_line() -> None:
    model = _network("mixtral")
    model.set_experts_implementation("eager")
    args, kwargs = _call("mixtral", 2, 2)
    with pytest.raises(CaptureError, match=r"modeling_mixtral\.py:\d+ in forward, `for expert_idx in expert_hit:`"):
        capture(model, args, kwargs)


def test_experts_that_sort_all_samples_are_refused_with_path_and_line() -> None:
    model = _network("mixtral").float()
    model.set_experts_implementation("grouped_mm")
    args, kwargs = _call("mixtral", 2, 2)
    with pytest.raises(UnsupportedOpError, match=r"grouped_mm.* at 'model\.layers\.0\.mlp\.experts' \(.*\.py:\d+ in "):
        capture(model, args, kwargs)


def test_positions_given_as_input_are_not_multiplied_on_tiles() -> None:
    """The angles of rotary embedding are outer products of positions and frequencies, digital like the rest of it."""
    args, kwargs = _call("llama", 2, 2)
    kwargs["position_ids"] = torch.arange(7).expand(2, -1) + torch.tensor([[0], [3]])
    model = _network("llama")
    compiled = aimc.compile(model, "ideal", args, example_kwargs=kwargs)
    assert not [op.name for op in compiled.workload.analog_ops if "rotary" in op.name]
    check_outputs(model, compiled, (args, kwargs))


def test_a_cache_as_output_is_refused_by_name() -> None:
    model = _network("gpt2")
    model.config.use_cache = True
    args, kwargs = _call("gpt2", 2, 2)
    with pytest.raises(CaptureError, match=r"output .*past_key_values.* is a DynamicCache.*use_cache = False"):
        capture(model, args, kwargs)
