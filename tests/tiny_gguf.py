"""Tiny random GGUF models that llama.cpp loads, with the ratios of real shapes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np

VOCAB = 320
CONTEXT = 8192
HIDDEN = 128


class Writer:
    """A GGUF file being written: keys of one architecture, random tensors."""

    def __init__(self, path: Path, architecture: str) -> None:
        self._file = gguf.GGUFWriter(str(path), architecture)
        self._random = np.random.default_rng(1)
        self._architecture = architecture
        self._tokenizer()

    def keys(self, **numbers: object) -> None:
        """Metadata of the architecture; __ stands for a dot."""
        for name, value in numbers.items():
            key = f"{self._architecture}.{name.replace('__', '.')}"
            if isinstance(value, bool):
                self._file.add_bool(key, value)
            elif isinstance(value, int):
                self._file.add_uint32(key, value)
            elif isinstance(value, float):
                self._file.add_float32(key, value)
            else:
                self._file.add_array(key, value)

    def tensor(self, name: str, *shape: int, half: bool = True) -> None:
        """A matrix in f16, or numbers in f32; shape outermost first."""
        data = (self._random.standard_normal(shape) * 0.02).astype(np.float32)
        self._file.add_tensor(name, data.astype(np.float16) if half else data)

    def norm(self, name: str, size: int) -> None:
        self._file.add_tensor(name, np.ones(size, np.float32))

    def close(self) -> None:
        self._file.write_header_to_file()
        self._file.write_kv_data_to_file()
        self._file.write_tensors_to_file()
        self._file.close()

    def _tokenizer(self) -> None:
        # GPT-2's own characters for bytes: printable ones stand for themselves.
        plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
        rest = [byte for byte in range(256) if byte not in plain]
        letters = [chr(b) for b in plain] + [chr(256 + place) for place in range(len(rest))]
        tokens = letters + [f"<{place}>" for place in range(VOCAB - len(letters))]
        self._file.add_tokenizer_model("gpt2")
        self._file.add_tokenizer_pre("default")
        self._file.add_token_list(tokens)
        self._file.add_token_types([1] * 256 + [3] * (VOCAB - 256))
        self._file.add_token_merges(["a b"])
        self._file.add_bos_token_id(256)
        self._file.add_eos_token_id(257)


def _common(
    model: Writer, layers: int, inner: int, last: str = "output_norm", **numbers: object
) -> None:
    model.keys(
        block_count=layers,
        context_length=CONTEXT,
        embedding_length=HIDDEN,
        feed_forward_length=inner,
        attention__layer_norm_rms_epsilon=1e-6,
        rope__freq_base=10000.0,
        **numbers,
    )
    model.tensor("token_embd.weight", VOCAB, HIDDEN)
    model.norm(f"{last}.weight", HIDDEN)


def _attention(model: Writer, layer: str, heads: int, groups: int, size: int) -> None:
    model.norm(layer + "attn_norm.weight", HIDDEN)
    model.tensor(layer + "attn_q.weight", heads * size, HIDDEN)
    model.tensor(layer + "attn_k.weight", groups * size, HIDDEN)
    model.tensor(layer + "attn_v.weight", groups * size, HIDDEN)
    model.tensor(layer + "attn_output.weight", HIDDEN, heads * size)


def _dense(model: Writer, layer: str, inner: int) -> None:
    model.norm(layer + "ffn_norm.weight", HIDDEN)
    model.tensor(layer + "ffn_gate.weight", inner, HIDDEN)
    model.tensor(layer + "ffn_up.weight", inner, HIDDEN)
    model.tensor(layer + "ffn_down.weight", HIDDEN, inner)


def _experts(model: Writer, layer: str, experts: int, inner: int) -> None:
    model.norm(layer + "ffn_norm.weight", HIDDEN)
    model.tensor(layer + "ffn_gate_inp.weight", experts, HIDDEN, half=False)
    model.tensor(layer + "ffn_gate_exps.weight", experts, inner, HIDDEN)
    model.tensor(layer + "ffn_up_exps.weight", experts, inner, HIDDEN)
    model.tensor(layer + "ffn_down_exps.weight", experts, HIDDEN, inner)


def llama(path: Path) -> None:
    """Grouped queries: 8 heads, 2 KV heads of 64 (Llama 3: 32 and 8 of 128)."""
    model = Writer(path, "llama")
    _common(model, 4, 256, vocab_size=VOCAB, rope__dimension_count=64)
    model.keys(attention__head_count=8, attention__head_count_kv=2)
    model.keys(attention__key_length=64, attention__value_length=64)
    for index in range(4):
        _attention(model, f"blk.{index}.", 8, 2, 64)
        _dense(model, f"blk.{index}.", 256)
    model.close()


def gemma3(path: Path) -> None:
    """Five layers of six look back 512 tokens only; head size 256 as in the real one."""
    model = Writer(path, "gemma3")
    _common(model, 14, 256, attention__sliding_window=512)
    model.keys(attention__head_count=4, attention__head_count_kv=1)
    model.keys(attention__key_length=256, attention__value_length=256)
    for index in range(14):
        layer = f"blk.{index}."
        _attention(model, layer, 4, 1, 256)
        for name in ("attn_q_norm", "attn_k_norm"):
            model.norm(f"{layer}{name}.weight", 256)
        for name in ("post_attention_norm", "post_ffw_norm"):
            model.norm(f"{layer}{name}.weight", HIDDEN)
        _dense(model, layer, 256)
    model.close()


def deepseek2(path: Path) -> None:
    """Latent attention with the real latent of 512 and 64 position numbers; dense, then experts."""
    latent, rope, plain, value, heads, query = 512, 64, 128, 128, 4, 64
    model = Writer(path, "deepseek2")
    _common(model, 3, 256, vocab_size=VOCAB, leading_dense_block_count=1)
    model.keys(attention__head_count=heads, attention__head_count_kv=1)
    model.keys(attention__key_length=latent + rope, attention__value_length=latent)
    model.keys(attention__key_length_mla=plain + rope, attention__value_length_mla=value)
    model.keys(attention__kv_lora_rank=latent, attention__q_lora_rank=query)
    model.keys(rope__dimension_count=rope, expert_count=4, expert_used_count=2)
    model.keys(expert_feed_forward_length=64, expert_shared_count=1, expert_weights_scale=1.0)
    model.keys(expert_gating_func=2, expert_weights_norm=True)
    for index in range(3):
        layer = f"blk.{index}."
        model.norm(layer + "attn_norm.weight", HIDDEN)
        model.norm(layer + "attn_q_a_norm.weight", query)
        model.norm(layer + "attn_kv_a_norm.weight", latent)
        model.tensor(layer + "attn_q_a.weight", query, HIDDEN)
        model.tensor(layer + "attn_q_b.weight", heads * (plain + rope), query)
        model.tensor(layer + "attn_kv_a_mqa.weight", latent + rope, HIDDEN)
        model.tensor(layer + "attn_k_b.weight", heads, latent, plain)
        model.tensor(layer + "attn_v_b.weight", heads, value, latent)
        model.tensor(layer + "attn_output.weight", HIDDEN, heads * value)
        if not index:
            _dense(model, layer, 256)
            continue
        _experts(model, layer, 4, 64)
        model.norm(layer + "exp_probs_b.bias", 4)
        model.tensor(layer + "ffn_gate_shexp.weight", 64, HIDDEN)
        model.tensor(layer + "ffn_up_shexp.weight", 64, HIDDEN)
        model.tensor(layer + "ffn_down_shexp.weight", HIDDEN, 64)
    model.close()


def qwen3moe(path: Path) -> None:
    """Eight experts of which two answer; 8 heads and 1 KV head of 128 (Qwen3-30B-A3B: 32 and 4)."""
    model = Writer(path, "qwen3moe")
    _common(model, 4, 256, expert_count=8, expert_used_count=2, expert_feed_forward_length=64)
    model.keys(attention__head_count=8, attention__head_count_kv=1)
    model.keys(attention__key_length=128, attention__value_length=128)
    for index in range(4):
        layer = f"blk.{index}."
        _attention(model, layer, 8, 1, 128)
        model.norm(layer + "attn_q_norm.weight", 128)
        model.norm(layer + "attn_k_norm.weight", 128)
        _experts(model, layer, 8, 64)
    model.tensor("output.weight", VOCAB, HIDDEN)
    model.close()


def granitehybrid(path: Path) -> None:
    """Mamba-2 in three of four layers, attention in the fourth (Granite 4.0: 36 of 40)."""
    inner, groups, state, heads = 256, 1, 64, 8
    model = Writer(path, "granitehybrid")
    _common(model, 4, 256, vocab_size=VOCAB, ssm__conv_kernel=4, ssm__inner_size=inner)
    model.keys(ssm__state_size=state, ssm__group_count=groups, ssm__time_step_rank=heads)
    model.keys(attention__head_count=4, attention__head_count_kv=[0, 0, 2, 0])
    model.keys(attention__key_length=64, attention__value_length=64, rope__dimension_count=64)
    model.keys(logit_scale=1.0, residual_scale=1.0, embedding_scale=1.0, attention__scale=0.1)
    for index in range(4):
        layer = f"blk.{index}."
        if index == 2:
            _attention(model, layer, 4, 2, 64)
        else:
            wide = inner + 2 * groups * state
            model.norm(layer + "attn_norm.weight", HIDDEN)
            model.tensor(layer + "ssm_in.weight", inner + wide + heads, HIDDEN)
            model.tensor(layer + "ssm_conv1d.weight", wide, 4, half=False)
            model.tensor(layer + "ssm_conv1d.bias", wide, half=False)
            model.norm(layer + "ssm_dt.bias", heads)
            model.tensor(layer + "ssm_a", heads, 1, half=False)
            model.tensor(layer + "ssm_d", heads, 1, half=False)
            model.tensor(layer + "ssm_norm.weight", groups, inner // groups, half=False)
            model.tensor(layer + "ssm_out.weight", HIDDEN, inner)
        _dense(model, layer, 256)
    model.close()


def lfm2(path: Path) -> None:
    """Short convolutions in two of three layers, attention in the third (LFM2: 10 of 16)."""
    model = Writer(path, "lfm2")
    _common(model, 3, 256, "token_embd_norm", vocab_size=VOCAB, shortconv__l_cache=3)
    model.keys(attention__head_count=4, attention__head_count_kv=[0, 0, 2])
    for index in range(3):
        layer = f"blk.{index}."
        if index == 2:
            _attention(model, layer, 4, 2, HIDDEN // 4)
            model.norm(layer + "attn_q_norm.weight", HIDDEN // 4)
            model.norm(layer + "attn_k_norm.weight", HIDDEN // 4)
        else:
            model.norm(layer + "attn_norm.weight", HIDDEN)
            model.tensor(layer + "shortconv.conv.weight", HIDDEN, 3, half=False)
            model.tensor(layer + "shortconv.in_proj.weight", 3 * HIDDEN, HIDDEN)
            model.tensor(layer + "shortconv.out_proj.weight", HIDDEN, HIDDEN)
        _dense(model, layer, 256)
    model.close()


MODELS: dict[str, Callable[[Path], None]] = {
    "llama": llama,
    "gemma3": gemma3,
    "deepseek2": deepseek2,
    "qwen3moe": qwen3moe,
    "granitehybrid": granitehybrid,
    "lfm2": lfm2,
}
