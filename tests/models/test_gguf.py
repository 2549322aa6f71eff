"""A model in one GGUF file: named, read as a plain model, published as a plain model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from pipelines.config.model_section import ModelSection
from pipelines.errors import ArtifactError
from pipelines.models.adapters import adapter_state, add_reward_adapter
from pipelines.models.base_model import load_causal, load_sequence_classifier, location
from pipelines.models.base_ref import BaseRef
from pipelines.models.publish import publish_model
from tests.models.test_adapters import carrier
from tests.models.test_opening_recipe import recipe
from tests.tiny import tiny_llama, tiny_tokenizer

gguf = pytest.importorskip("gguf", reason="GGUF files need the package gguf (extra smollm2)")
CPU = torch.device("cpu")


def permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key projection as GGUF files of Llama hold them."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write_gguf(path: Path, model: LlamaForCausalLM) -> None:
    config, state = model.config, {name: value.numpy() for name, value in model.state_dict().items()}
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    parts = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    for layer in range(config.num_hidden_layers):
        names |= {f"model.layers.{layer}.{ours}": f"blk.{layer}.{theirs}" for ours, theirs in parts.items()}
    for ours, theirs in names.items():
        weight = state[f"{ours}.weight"]
        if theirs.endswith(("attn_q", "attn_k")):
            queries = theirs.endswith("attn_q")
            weight = permuted(weight, config.num_attention_heads if queries else config.num_key_value_heads)
        writer.add_tensor(f"{theirs}.weight", np.ascontiguousarray(weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_the_name_of_a_gguf_file_is_taken_apart():
    assert location("/models/a/b.gguf") == ("/models/a", {"gguf_file": "b.gguf"})
    assert location("owner/name/b.Q4_1.gguf") == ("owner/name", {"gguf_file": "b.Q4_1.gguf"})
    assert location("owner/name") == ("owner/name", {})


def test_a_gguf_file_is_read_trained_and_saved_as_a_plain_model(tmp_path: Path):
    model = tiny_llama(tiny_tokenizer()).eval()
    path = tmp_path / "tiny.gguf"
    write_gguf(path, model)
    section = ModelSection(name_or_path=str(path))
    loaded = load_causal(section, path, CPU)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        assert torch.allclose(loaded(ids).logits, model(ids).logits, atol=1e-5)
    loaded.save_pretrained(tmp_path / "plain")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    with torch.no_grad():
        assert torch.equal(plain(ids).logits, loaded(ids).logits)
    assert load_sequence_classifier(section, path, CPU, new_head=True).score.weight.shape[0] == 1


@pytest.mark.parametrize("task", ["policy", "reward"])
def test_an_adapter_on_a_gguf_file_opens_by_its_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str):
    path, tokenizer = tmp_path / "tiny.gguf", tiny_tokenizer()
    write_gguf(path, tiny_llama(tokenizer))
    section = ModelSection(name_or_path=str(path), use_peft=True, lora_r=2)
    if task == "policy":
        model = carrier(section, "default")
    else:
        bare = load_sequence_classifier(section, path, CPU, new_head=True)
        bare.config.pad_token_id = tokenizer.pad_token_id
        model = add_reward_adapter(bare, section, adapter_state(carrier(section, "policy"), "policy"))
    reads = "tokens" if task == "reward" else None
    base = BaseRef(name_or_path=str(path))
    publish_model(model, tokenizer, tmp_path / "model", base=base, run_dir=tmp_path, reads=reads)
    opened = recipe(tmp_path / "model", monkeypatch)["model"]
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        assert torch.allclose(opened(ids).logits, model.eval()(ids).logits, atol=1e-6)


def test_a_broken_gguf_file_is_an_artifact_error(tmp_path: Path):
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF and no more")
    with pytest.raises(ArtifactError, match="cannot be loaded"):
        load_causal(ModelSection(name_or_path=str(path)), path, CPU)


def test_four_bits_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="quantized already"):
        ModelSection(name_or_path="a/b/c.gguf", load_in_4bit=True, use_peft=True)
