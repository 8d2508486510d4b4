"""Configs of real models of many families, as published: only what capacity reads of them."""

from __future__ import annotations

from typing import Any

VISION = {"hidden_size": 1152}
DEEPSEEK: dict[str, Any] = {
    "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
}  # fmt: skip
DELTA: dict[str, Any] = {
    "linear_num_key_heads": 16, "linear_num_value_heads": 32, "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
}  # fmt: skip
# (config, bytes of KV cache per token in 16 bits, layers of each kind)
FAMILIES: dict[str, tuple[dict[str, Any], int, dict[str, int]]] = {
    # Heads 8, KV heads 4 and their size 256 are left out, and so is the vocabulary:
    # 34 layers x 4 x (256 + 256) x 2; every sixth layer is full.
    "gemma-3-4b-it": (
        {"model_type": "gemma3", "vision_config": VISION, "text_config": {
            "model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240,
            "num_hidden_layers": 34, "sliding_window": 1024}},
        139_264, {"window": 29, "full": 5},
    ),
    # The size 256 of a head is left out; 3840 / 16 = 240 would be wrong: 48 x 8 x 512 x 2.
    "gemma-3-12b-it": (
        {"model_type": "gemma3", "vision_config": VISION, "text_config": {
            "model_type": "gemma3_text", "hidden_size": 3840, "intermediate_size": 15360,
            "num_attention_heads": 16, "num_key_value_heads": 8, "num_hidden_layers": 48,
            "sliding_window": 1024}},
        393_216, {"window": 40, "full": 8},
    ),
    # 2 groups of queries have a KV head each: 40 x 2 x (128 + 128) x 2.
    "glm-4-9b-chat": (
        {"model_type": "chatglm", "num_layers": 40, "hidden_size": 4096,
         "num_attention_heads": 32, "kv_channels": 128, "multi_query_attention": True,
         "multi_query_group_num": 2, "ffn_hidden_size": 13696, "padded_vocab_size": 151552,
         "seq_length": 131072, "torch_dtype": "bfloat16"},
        40_960, {"full": 40},
    ),
    # 49 layers have attention, groups of 8 of 64 queries: 49 x (64 / 8) x (128 + 128) x 2.
    "nemotron-super-49b": (
        {"model_type": "nemotron-nas", "hidden_size": 8192, "num_hidden_layers": 80,
         "num_attention_heads": 64, "num_key_value_heads": None, "intermediate_size": None,
         "vocab_size": 128256, "torch_dtype": "bfloat16", "block_configs": [
             {"attention": {"n_heads_in_group": 8, "no_op": False, "replace_with_linear": False},
              "ffn": {"ffn_mult": 5.25, "no_op": False}}] * 49 + [
             {"attention": {"n_heads_in_group": None, "no_op": True},
              "ffn": {"ffn_mult": 1.5, "no_op": False}}] * 31},
        200_704, {"full": 49, "none": 31},
    ),
    # KV heads lie in attn_config, experts in ffn_config: 40 x 8 x (128 + 128) x 2.
    "dbrx": (
        {"model_type": "dbrx", "d_model": 6144, "n_heads": 48, "n_layers": 40,
         "attn_config": {"kv_n_heads": 8, "clip_qkv": 8}, "max_seq_len": 32768,
         "ffn_config": {"ffn_hidden_size": 10752, "moe_num_experts": 16, "moe_top_k": 4},
         "vocab_size": 100352, "torch_dtype": "bfloat16"},
        163_840, {"full": 40},
    ),
    # A latent of 512 + 64 numbers, and an indexer's 128 bytes with one scale of 4:
    # 61 x (576 x 2 + 132).
    "deepseek-v3.2": (
        {"model_type": "deepseek_v32", "hidden_size": 7168, "num_hidden_layers": 61,
         "num_attention_heads": 128, "num_key_value_heads": 128, "intermediate_size": 18432,
         "moe_intermediate_size": 2048, "n_routed_experts": 256, "num_experts_per_tok": 8,
         "n_shared_experts": 1, "first_k_dense_replace": 3, "q_lora_rank": 1536, **DEEPSEEK,
         "vocab_size": 129280, "index_head_dim": 128, "index_n_heads": 64, "index_topk": 2048},
        78_324, {"mla": 61},
    ),
    # One layer of eight has attention: 10 x 8 x (128 + 128) x 2.
    "minimax-text-01": (
        {"model_type": "minimax_text_01", "hidden_size": 6144, "num_hidden_layers": 80,
         "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 128,
         "attn_type_list": ([0] * 7 + [1]) * 10, "intermediate_size": 9216,
         "num_local_experts": 32, "num_experts_per_tok": 2, "vocab_size": 200064},
        40_960, {"full": 10, "linear": 70},
    ),
    # Two recurrent layers, one with a window, in turns; 26 = 8 x 3 + 2: 8 x 1 x 512 x 2.
    "recurrentgemma-2b": (
        {"model_type": "recurrent_gemma", "hidden_size": 2560, "num_hidden_layers": 26,
         "num_attention_heads": 10, "num_key_value_heads": 1, "head_dim": 256,
         "block_types": ["recurrent", "recurrent", "attention"], "attention_window_size": 2048,
         "lru_width": 2560, "intermediate_size": 15360, "vocab_size": 256000},
        8_192, {"window": 8, "linear": 18},
    ),
    # 13 of 81 layers have attention beside their state, of twice the width: heads of
    # 2 x 3584 / 32 = 224: 13 x 32 x (224 + 224) x 2.
    "zamba2-7b": (
        {"model_type": "zamba2", "hidden_size": 3584, "num_hidden_layers": 81,
         "num_attention_heads": 32, "num_key_value_heads": 32, "attention_head_dim": 224,
         "layers_block_type": (["mamba"] * 5 + ["hybrid"]) * 13 + ["mamba"] * 3,
         "n_mamba_heads": 112, "mamba_headdim": 64, "mamba_ngroups": 2, "mamba_d_state": 64,
         "mamba_d_conv": 4, "mamba_expand": 2, "num_mem_blocks": 2, "vocab_size": 32000,
         "intermediate_size": 14336, "torch_dtype": "bfloat16"},
        372_736, {"full": 13, "linear": 68},
    ),
    # LLLG: three layers look back 4096 tokens, the fourth at all: 64 x 8 x (128 + 128) x 2.
    "exaone-4-32b": (
        {"model_type": "exaone4", "hidden_size": 5120, "num_hidden_layers": 64,
         "num_attention_heads": 40, "num_key_value_heads": 8, "head_dim": 128,
         "sliding_window": 4096, "sliding_window_pattern": "LLLG", "intermediate_size": 27392,
         "vocab_size": 102400, "torch_dtype": "bfloat16"},
        262_144, {"window": 48, "full": 16},
    ),
    # Six layers have attention: 6 x 2 x (128 + 128) x 2.
    "nemotron-3-nano": (
        {"model_type": "nemotron_h", "hidden_size": 2688, "num_hidden_layers": 52,
         "hybrid_override_pattern": "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME",
         "num_attention_heads": 32, "num_key_value_heads": 2, "head_dim": 128,
         "mamba_num_heads": 64, "mamba_head_dim": 64, "n_groups": 8, "ssm_state_size": 128,
         "conv_kernel": 4, "intermediate_size": 1856, "moe_intermediate_size": 1856,
         "moe_shared_expert_intermediate_size": 3712, "n_routed_experts": 128,
         "n_shared_experts": 1, "num_experts_per_tok": 6, "vocab_size": 131072},
        6_144, {"full": 6, "linear": 23, "none": 23},
    ),
    # Three of four layers look at chunks of 8192: 48 x 8 x (128 + 128) x 2.
    "llama-4-scout": (
        {"model_type": "llama4", "vision_config": VISION, "text_config": {
            "model_type": "llama4_text", "hidden_size": 5120, "num_hidden_layers": 48,
            "num_attention_heads": 40, "num_key_value_heads": 8, "head_dim": 128,
            "attention_chunk_size": 8192, "intermediate_size": 8192,
            "intermediate_size_mlp": 16384, "interleave_moe_layer_step": 1,
            "num_local_experts": 16, "num_experts_per_tok": 1, "vocab_size": 202048}},
        196_608, {"window": 36, "full": 12},
    ),
    # A latent each: 27 x (512 + 64) x 2.
    "deepseek-v2-lite": (
        {"model_type": "deepseek_v2", "hidden_size": 2048, "num_hidden_layers": 27,
         "num_attention_heads": 16, "num_key_value_heads": 16, "intermediate_size": 10944,
         "moe_intermediate_size": 1408, "n_routed_experts": 64, "num_experts_per_tok": 6,
         "n_shared_experts": 2, "first_k_dense_replace": 1, "q_lora_rank": None, **DEEPSEEK,
         "vocab_size": 102400},
        31_104, {"mla": 27},
    ),
    # Two attentions in each of 28 blocks: 56 x (512 + 64) x 2.
    "longcat-flash": (
        {"model_type": "longcat_flash", "hidden_size": 6144, "num_layers": 28,
         "num_attention_heads": 64, "ffn_hidden_size": 12288, "expert_ffn_hidden_size": 2048,
         "n_routed_experts": 512, "moe_topk": 12, "q_lora_rank": 1536, **DEEPSEEK,
         "vocab_size": 131072},
        64_512, {"mla": 56},
    ),
    # Not a latent in vLLM, but keys of 64 + 32 and values padded to them:
    # 62 x 40 x (96 + 96) x 2.
    "minicpm3-4b": (
        {"model_type": "minicpm3", "hidden_size": 2560, "num_hidden_layers": 62,
         "num_attention_heads": 40, "num_key_value_heads": 40, "kv_lora_rank": 256,
         "q_lora_rank": 768, "qk_nope_head_dim": 64, "qk_rope_head_dim": 32, "v_head_dim": 64,
         "intermediate_size": 6400, "vocab_size": 73448},
        952_320, {"full": 62},
    ),
    # One KV head for all queries: 32 x 1 x (64 + 64) x 2.
    "falcon-7b": (
        {"model_type": "falcon", "hidden_size": 4544, "num_hidden_layers": 32,
         "num_attention_heads": 71, "multi_query": True, "vocab_size": 65024},
        8_192, {"full": 32},
    ),
    # The newer design says its KV heads: 60 x 8 x (64 + 64) x 2.
    "falcon-40b": (
        {"model_type": "falcon", "hidden_size": 8192, "num_hidden_layers": 60,
         "num_attention_heads": 128, "num_kv_heads": 8, "multi_query": True,
         "new_decoder_architecture": True, "vocab_size": 65024},
        122_880, {"full": 60},
    ),
    # 40 x 1 x (128 + 128) x 2.
    "starcoder": (
        {"model_type": "gpt_bigcode", "n_embd": 6144, "n_layer": 40, "n_head": 48,
         "n_inner": 24576, "vocab_size": 49152, "torch_dtype": "float32"},
        20_480, {"full": 40},
    ),
    # 32 x 32 x (128 + 128) x 2.
    "mpt-7b": (
        {"model_type": "mpt", "d_model": 4096, "n_heads": 32, "n_layers": 32,
         "max_seq_len": 2048, "vocab_size": 50432, "attn_config": {"attn_type":
         "multihead_attention"}},
        524_288, {"full": 32},
    ),
    # The last 15 of 35 layers use the caches of others: 20 x 2 x (256 + 256) x 2.
    "gemma-3n-e4b": (
        {"model_type": "gemma3n", "text_config": {
            "model_type": "gemma3n_text", "hidden_size": 2048, "num_hidden_layers": 35,
            "intermediate_size": [16384] * 35, "vocab_size": 262400}},
        40_960, {"window": 16, "full": 4, "none": 15},
    ),
    # One layer of four has attention: 10 x 2 x (256 + 256) x 2.
    "qwen3.5-35b-a3b": (
        {"model_type": "qwen3_5_moe", "vision_config": VISION, "text_config": {
            "model_type": "qwen3_5_moe_text", "hidden_size": 2048, "num_hidden_layers": 40,
            "head_dim": 256, "num_attention_heads": 16, "num_key_value_heads": 2,
            "moe_intermediate_size": 512, "shared_expert_intermediate_size": 512,
            "num_experts": 256, "num_experts_per_tok": 8, **DELTA, "vocab_size": 248320,
            "mamba_ssm_dtype": "float32"}},
        20_480, {"full": 10, "linear": 30},
    ),
    # Seven latents: 7 x (512 + 64) x 2.
    "kimi-linear-48b": (
        {"model_type": "kimi_linear", "hidden_size": 2304, "num_hidden_layers": 27,
         "num_attention_heads": 32, "num_key_value_heads": 32, "head_dim": 72, **DEEPSEEK,
         "q_lora_rank": None, "intermediate_size": 9216, "moe_intermediate_size": 1024,
         "num_experts": 256, "num_experts_per_token": 8, "num_shared_experts": 1,
         "first_k_dense_replace": 1, "vocab_size": 163840, "linear_attn_config": {
             "kda_layers": [n for n in range(1, 27) if n % 4], "head_dim": 128, "num_heads": 32,
             "short_conv_kernel_size": 4}},
        8_064, {"mla": 7, "linear": 20},
    ),
    # 6 x 8 x (64 + 64) x 2.
    "lfm2-1.2b": (
        {"model_type": "lfm2", "hidden_size": 2048, "num_hidden_layers": 16,
         "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 65536,
         "full_attn_idxs": [2, 5, 8, 10, 12, 14], "conv_L_cache": 3, "intermediate_size": 12288},
        12_288, {"full": 6, "linear": 10},
    ),
    # Attention and a state in every layer: 44 x 2 x (128 + 128) x 2.
    "falcon-h1-7b": (
        {"model_type": "falcon_h1", "hidden_size": 3072, "num_hidden_layers": 44,
         "num_attention_heads": 12, "num_key_value_heads": 2, "head_dim": 128,
         "mamba_d_ssm": 3072, "mamba_n_heads": 24, "mamba_d_head": 128, "mamba_n_groups": 1,
         "mamba_d_state": 256, "mamba_d_conv": 4, "intermediate_size": 12288,
         "vocab_size": 130048},
        45_056, {"full": 44},
    ),
    # 3 x 8 x (128 + 128) x 2.
    "bamba-9b": (
        {"model_type": "bamba", "hidden_size": 4096, "num_hidden_layers": 32,
         "attn_layer_indices": [9, 18, 27], "num_attention_heads": 32, "num_key_value_heads": 8,
         "mamba_n_heads": 128, "mamba_d_head": "auto", "mamba_n_groups": 1,
         "mamba_d_state": 128, "mamba_d_conv": 4, "vocab_size": 128256,
         "intermediate_size": 14336},
        12_288, {"full": 3, "linear": 29},
    ),
    # use_sliding_window is left out and false: 80 x 8 x (128 + 128) x 2.
    "qwen2.5-72b": (
        {"model_type": "qwen2", "hidden_size": 8192, "num_hidden_layers": 80,
         "num_attention_heads": 64, "num_key_value_heads": 8, "intermediate_size": 29696,
         "sliding_window": 131072, "max_window_layers": 70, "vocab_size": 152064},
        327_680, {"full": 80},
    ),
    # text_config says little more than that it is a Llama: 32 x 32 x (128 + 128) x 2.
    "llava-1.5-7b": (
        {"model_type": "llava", "vision_config": VISION, "text_config": {
            "model_type": "llama", "max_position_embeddings": 4096, "vocab_size": 32064}},
        524_288, {"full": 32},
    ),
    # 28 x 4 x (128 + 128) x 2.
    "ernie-4.5-21b-a3b": (
        {"model_type": "ernie4_5_moe", "hidden_size": 2560, "num_hidden_layers": 28,
         "num_attention_heads": 20, "num_key_value_heads": 4, "intermediate_size": 12288,
         "moe_intermediate_size": 1536, "moe_num_experts": 64, "moe_k": 6,
         "moe_num_shared_experts": 2, "moe_layer_start_index": 1, "vocab_size": 103424},
        57_344, {"full": 28},
    ),
    # Windows have KV heads of their own; keys of 192 and values of 128 numbers:
    # (9 x 4 + 39 x 8) x (192 + 128) x 2.
    "mimo-v2-flash": (
        {"model_type": "mimo_v2_flash", "hidden_size": 4096, "num_hidden_layers": 48,
         "num_attention_heads": 64, "num_key_value_heads": 4, "head_dim": 192,
         "v_head_dim": 128, "swa_num_key_value_heads": 8, "swa_head_dim": 192,
         "swa_v_head_dim": 128, "sliding_window": 128, "vocab_size": 152576,
         "hybrid_layer_pattern": [0, *([1] * 4 + [0]), *(([1] * 5 + [0]) * 7)],
         "intermediate_size": 16384, "moe_intermediate_size": 2048, "n_routed_experts": 256,
         "num_experts_per_tok": 8},
        222_720, {"window": 39, "full": 9},
    ),
    # Full layers have heads of 512 and as many KV heads as the others: the last one is full.
    # (25 x 4 x 512 + 5 x 4 x 1024) x 2.
    "gemma-4 (defaults)": (
        {"model_type": "gemma4", "text_config": {"model_type": "gemma4_text"}},
        143_360, {"window": 25, "full": 5},
    ),
}  # fmt: skip
# In 1e9, as their authors count them.
PARAMETERS = {
    "gemma-3-4b-it": 3.88, "gemma-3-12b-it": 11.77, "glm-4-9b-chat": 9.40, "dbrx": 132.0,
    "nemotron-super-49b": 49.9, "deepseek-v3.2": 671.0, "minimax-text-01": 456.0,
    "zamba2-7b": 7.36, "exaone-4-32b": 32.0, "nemotron-3-nano": 31.6, "llama-4-scout": 107.8,
    "deepseek-v2-lite": 15.7, "longcat-flash": 560.0, "ernie-4.5-21b-a3b": 21.8,
}  # fmt: skip
