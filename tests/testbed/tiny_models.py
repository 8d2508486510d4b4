"""Makes tiny models with random weights below a folder; run by vLLM's own interpreter.

llama: a chat model, its tokenizer one token for each byte. embedder: a BERT for embeddings with
the same tokenizer. adapter: a LoRA adapter for llama. chat.jinja: another chat template.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM
from transformers import PreTrainedTokenizerFast as Fast

LAYERS, WIDTH, HEADS, RANK = 4, 128, 4, 8
CHAT = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n"
    "{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)


def main(folder: Path) -> None:
    """Make all of them."""
    torch.manual_seed(1)
    words = _tokenizer()
    llama = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(words), hidden_size=WIDTH, intermediate_size=4 * WIDTH,
            num_hidden_layers=LAYERS, num_attention_heads=HEADS, num_key_value_heads=HEADS // 2,
            head_dim=WIDTH // HEADS, max_position_embeddings=4096, bos_token_id=0, eos_token_id=1,
            tie_word_embeddings=False,
        )
    )  # fmt: skip
    llama.to(torch.bfloat16).save_pretrained(folder / "llama")
    words.chat_template = CHAT
    words.save_pretrained(folder / "llama")
    embedder = BertModel(
        BertConfig(
            vocab_size=len(words), hidden_size=WIDTH, intermediate_size=4 * WIDTH,
            num_hidden_layers=2, num_attention_heads=HEADS, max_position_embeddings=512,
        )
    )  # fmt: skip
    embedder.save_pretrained(folder / "embedder")
    words.chat_template = None
    words.save_pretrained(folder / "embedder")
    _adapter(folder / "adapter")
    (folder / "chat.jinja").write_text("SHOUT\n" + CHAT)
    for path in folder.rglob("*"):  # weights are written for their owner alone
        path.chmod(0o755 if path.is_dir() else 0o644)


def _tokenizer() -> Fast:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = ["<s>", "</s>", "<pad>", *letters]
    bpe = models.BPE({name: number for number, name in enumerate(names)}, [])
    made = Tokenizer(bpe)
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return Fast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        unk_token="<pad>", model_max_length=4096,
    )  # fmt: skip


def _adapter(folder: Path) -> None:
    folder.mkdir()
    tensors = {}
    for layer in range(LAYERS):
        for name, out in (("q_proj", WIDTH), ("v_proj", WIDTH // 2)):
            path = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            tensors[f"{path}.lora_A.weight"] = torch.randn(RANK, WIDTH, dtype=torch.bfloat16)
            tensors[f"{path}.lora_B.weight"] = torch.randn(out, RANK, dtype=torch.bfloat16)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": 16,
        "lora_dropout": 0.0, "bias": "none", "target_modules": ["q_proj", "v_proj"],
        "base_model_name_or_path": "llama",
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
