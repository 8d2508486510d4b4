"""Families of models whose caches are known here, and what their config.json may leave out.

A key that a config.json does not name has the default of its family's Config class, in every
program that reads it. A family without a line is not known: what its layers keep is a guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

# One line a family: layers, hidden size, query heads, KV heads (= as many), size of a head, inner
# size, vocabulary, context, window, experts, how many of them answer, size of each, whether input
# and output share a matrix. A pattern is repeated over the layers where there is a window and no
# layer_types: f full, s sliding, l a state; m: sliding from max_window_layers on; none: all slide.
TABLE = """
# transformers 5.19.0: the Config class of models/FAMILY/configuration_*.py
# family         lay hid  q   kv  head inner vocab  context win   exp use each pattern tied
afmoe            32  2048 16  =   128  6144  200192 16384   1024  64  6   1408 sssf    -
apertus          32  4096 32  =   -    14336 131072 65536   -     -   -   -    -       -
arcee            32  2560 32  =   -    18432 32000  4096    -     -   -   -    -       -
aria             32  4096 32  =   -    4096  32000  2048    -     8   2   -    -       -
bamba            32  4096 32  8   -    14336 128000 262144  -     -   -   -    -       -
bitnet           30  2560 20  5   -    6912  128256 2048    -     -   -   -    -       -
bloom            2   64   8   =   -    -     250880 -       -     -   -   -    -       yes
chameleon        32  4096 32  32  -    11008 65536  4096    -     -   -   -    -       -
codegen          28  4096 16  =   -    -     50400  2048    -     -   -   -    -       -
cohere           40  8192 64  =   -    22528 256000 8192    -     -   -   -    -       yes
cohere2          40  8192 64  =   -    22528 256000 8192    4096  -   -   -    sssf    yes
cohere2_moe      40  8192 64  =   128  22528 256000 8192    4096  8   2   -    sssf    yes
cwm              64  6144 48  8   128  21504 128256 131072  8192  -   -   -    fsss    -
dbrx             24  2048 16  =   -    -     32000  2048    -     -   -   -    -       -
deepseek_v2      32  4096 32  =   -    11008 102400 2048    -     -   -   1407 -       -
deepseek_v3      61  7168 128 128 -    18432 129280 4096    -     256 8   2048 -       -
deepseek_v32     61  7168 128 128 -    18432 129280 163840  -     256 8   2048 -       -
dots1            62  4608 32  32  -    10944 152064 2048    4096  -   -   -    m       -
ernie4_5         18  1024 16  2   128  3072  103424 131072  -     -   -   -    -       yes
ernie4_5_moe     28  2560 20  4   -    12288 103424 131072  -     64  6   1536 -       yes
ernie4_5_vl_moe  28  2560 20  4   -    12288 103424 131072  -     64  6   1536 -       yes
exaone4          32  4096 32  32  -    16384 102400 2048    4096  -   -   -    sssf    -
exaone_moe       32  4096 32  32  -    16384 102400 2048    4096  64  8   1024 sssf    -
falcon           32  4544 71  =   -    -     65024  2048    -     -   -   -    -       yes
falcon_h1        32  4096 32  8   -    14336 128000 8192    -     -   -   -    -       -
falcon_mamba     32  768  -   =   -    -     50280  -       -     -   -   -    -       yes
flex_olmo        32  4096 32  =   -    11008 100352 4096    -     7   5   -    -       -
gemma            28  3072 16  16  256  24576 256000 8192    -     -   -   -    -       yes
gemma2           26  2304 8   4   256  9216  256000 8192    4096  -   -   -    sf      yes
gemma3           26  2304 8   4   256  9216  262208 131072  4096  -   -   -    sssssf  yes
gemma3n          35  2048 8   2   256  16384 262400 32768   512   -   -   -    ssssf   yes
gemma4           30  2304 8   4   256  9216  262144 131072  512   -   -   -    sssssf  yes
glm              40  4096 32  2   128  13696 151552 131072  -     -   -   -    -       -
glm4             40  4096 32  2   128  13696 151552 131072  -     -   -   -    -       -
glm4_moe         46  4096 96  8   -    10944 151552 131072  -     128 8   1408 -       -
glm4_moe_lite    47  2048 20  20  -    10240 154880 202752  -     64  4   1536 -       -
glm4v            40  4096 32  2   -    13696 151552 32768   -     -   -   -    -       -
glm4v_moe        46  4096 96  8   -    10944 151424 65536   -     128 8   1408 -       -
glm_moe_dsa      78  6144 64  64  -    12288 154880 202752  -     256 8   2048 -       -
glm_ocr          16  1024 16  8   -    4096  59392  131072  -     -   -   -    -       -
gpt2             12  768  12  =   -    -     50257  1024    -     -   -   -    -       yes
gpt_bigcode      12  768  12  =   -    -     50257  1024    -     -   -   -    -       yes
gpt_neox         44  6144 64  =   -    24576 50432  2048    -     -   -   -    -       -
gpt_oss          36  2880 64  8   64   2880  201088 131072  128   128 4   -    sf      -
gptj             28  4096 16  =   -    -     50400  2048    -     -   -   -    -       -
granite          32  4096 32  =   -    11008 32000  2048    -     -   -   -    -       -
granite_swa      24  2560 20  4   -    8192  100352 8192    128   -   -   -    fsss    yes
granitemoe       32  4096 32  =   -    11008 32000  2048    -     8   2   -    -       -
granitemoe_swa   32  4096 32  =   -    11008 32000  2048    128   8   2   -    fsss    -
granitemoehybrid 32  4096 32  =   -    11008 32000  2048    -     8   2   -    -       -
granitemoeshared 32  4096 32  =   -    11008 32000  2048    -     8   2   -    -       -
helium           24  2560 20  20  128  7040  48000  4096    -     -   -   -    -       -
hunyuan_v1_dense 32  4096 32  =   -    11008 290943 2048    -     -   -   -    -       -
hunyuan_v1_moe   32  4096 32  =   -    11008 290943 2048    -     1   1   -    -       -
hy_v3            80  4096 64  8   128  13312 120832 131072  -     192 8   1536 -       -
hyperclovax      32  4096 32  =   -    11008 32000  2048    -     -   -   -    -       -
jais2            32  3328 26  =   -    26624 150272 8192    -     -   -   -    -       -
jamba            32  4096 32  8   -    14336 65536  262144  -     16  2   -    -       -
kimi_linear      27  2304 32  32  -    9216  163840 1048576 -     256 8   1024 -       -
lfm2             32  2560 32  8   -    12288 65536  128000  -     -   -   -    -       yes
lfm2_moe         32  2048 32  8   -    7168  65536  128000  -     32  4   1792 -       yes
llama            32  4096 32  =   -    11008 32000  2048    -     -   -   -    -       -
llama4           48  5120 40  8   128  8192  202048 131072  8192  16  1   -    sssf    -
longcat_flash    28  6144 64  =   -    12288 131072 131072  -     512 12  2048 -       -
mamba            32  768  -   =   -    -     50280  -       -     -   -   -    -       yes
mamba2           64  4096 -   =   -    -     32768  -       -     -   -   -    -       -
mimo_v2_flash    48  4096 64  4   192  16384 152576 131072  128   256 8   2048 -       -
minicpm3         62  2560 40  40  -    6400  73448  32768   -     -   -   -    -       yes
minimax          32  4096 32  8   -    14336 32000  131072  -     8   2   -    -       -
minimax_m2       62  3072 48  8   128  1536  200064 196608  -     256 8   -    -       -
ministral        32  4096 32  8   -    14336 32000  131072  4096  -   -   -    -       -
ministral3       34  4096 32  8   128  14336 131072 262144  -     -   -   -    -       -
mistral          32  4096 32  8   -    14336 32000  131072  4096  -   -   -    s       -
mixtral          32  4096 32  8   -    14336 32000  131072  -     8   2   -    -       -
mpt              24  2048 16  =   -    -     50368  2048    -     -   -   -    -       yes
nemotron         32  6144 48  =   -    24576 256000 4096    -     -   -   -    -       -
nemotron_h       4   4096 32  8   128  21504 131072 4096    -     -   -   -    -       -
olmo             32  4096 32  =   -    11008 50304  2048    -     -   -   -    -       -
olmo2            32  4096 32  =   -    11008 50304  2048    -     -   -   -    -       -
olmo3            32  4096 32  =   -    11008 50304  2048    4096  -   -   -    sssf    -
olmo_hybrid      32  3840 30  =   -    11008 100352 65536   -     -   -   -    lllf    -
olmoe            16  2048 16  =   -    2048  50304  4096    -     64  8   -    -       -
opt              12  768  12  =   -    3072  50272  2048    -     -   -   -    -       yes
paddleocr_vl     18  1024 16  2   128  3072  103424 131072  -     -   -   -    -       yes
persimmon        36  4096 64  =   -    16384 262144 16384   -     -   -   -    -       -
phi              24  2048 32  =   -    8192  51200  2048    -     -   -   -    -       -
phi3             32  3072 32  =   -    8192  32064  4096    -     -   -   -    -       -
phimoe           32  4096 32  8   -    6400  32064  131072  -     16  2   -    -       -
qwen2            32  4096 32  32  -    22016 151936 32768   4096  -   -   -    m       -
qwen2_5_omni     28  3584 28  4   -    18944 152064 32768   32768 -   -   -    m       yes
qwen2_5_vl       80  8192 64  8   -    29568 152064 32768   4096  -   -   -    m       -
qwen2_moe        24  2048 16  16  -    5632  151936 32768   4096  60  4   1408 m       -
qwen2_vl         80  8192 64  8   -    29568 152064 32768   4096  -   -   -    m       -
qwen3            32  4096 32  32  128  22016 151936 32768   4096  -   -   -    m       -
qwen3_5          32  4096 16  4   256  12288 248320 32768   -     -   -   -    lllf    -
qwen3_5_moe      40  2048 16  2   256  -     248320 32768   -     256 8   512  lllf    -
qwen3_moe        24  2048 32  4   -    6144  151936 32768   4096  128 8   768  s       -
qwen3_next       48  2048 16  2   256  5632  151936 32768   -     512 10  512  lllf    -
qwen3_omni_moe   28  2048 28  4   -    18944 3584   32768   -     128 8   768  -       -
qwen3_vl         32  4096 32  32  128  22016 151936 128000  -     -   -   -    -       -
qwen3_vl_moe     24  2048 16  16  -    5632  151936 128000  -     60  4   1408 -       yes
recurrent_gemma  26  2560 10  =   -    7680  256000 -       2048  -   -   -    s       yes
seed_oss         64  4096 80  8   128  27648 155136 524288  -     -   -   -    -       -
smollm3          36  2048 16  4   -    11008 128256 32768   -     -   -   -    -       yes
solar_open       48  4096 64  8   128  -     196608 131072  -     128 8   1280 -       -
stablelm         32  2560 32  32  -    6912  50304  4096    -     -   -   -    -       -
starcoder2       30  3072 24  2   -    12288 49152  4096    -     -   -   -    -       yes
zamba2           54  2560 32  =   -    10240 32000  4096    -     -   -   -    -       yes
# vLLM 0.32.0: transformers_utils/configs
RefinedWeb       -   -    -   =   -    -     -      -       -     -   -   -    -       -
RefinedWebModel  -   -    -   =   -    -     -      -       -     -   -   -    -       -
chatglm          28  4096 32  =   128  13696 65024  2048    -     -   -   -    -       -
kimi_k2          61  7168 128 128 -    18432 129280 4096    -     256 8   2048 -       -
# Code beside the model's files: their config.json says all of it.
aquila
baichuan
bailing_moe
bailing_moe_v2
deepseek
exaone
internlm
internlm2
internlm3
iquestcoder
mimo
minicpm
minimax_m1
minimax_text_01
nemotron-nas
orion
phi3_v
qwen
solar
telechat
telechat3
teleflm
xverse
"""
# Further keys of some families, from the same classes.
MORE = """
afmoe: num_shared_experts=2
aria ernie4_5_vl_moe: moe_num_shared_experts=2
bamba: mamba_d_conv=4 mamba_d_state=256 mamba_n_heads=128 mamba_d_head=64 mamba_n_groups=1
    mamba_expand=2
deepseek_v2: v_head_dim=128 kv_lora_rank=512 q_lora_rank=1536 qk_nope_head_dim=128
    qk_rope_head_dim=64 n_shared_experts=2
deepseek_v3 kimi_k2: v_head_dim=128 kv_lora_rank=512 q_lora_rank=1536 qk_nope_head_dim=128
    qk_rope_head_dim=64 n_shared_experts=1 first_k_dense_replace=3
deepseek_v32: v_head_dim=128 kv_lora_rank=512 q_lora_rank=1536 qk_nope_head_dim=128
    qk_rope_head_dim=64 index_head_dim=128 n_shared_experts=1 first_k_dense_replace=3
dots1: max_window_layers=62
ernie4_5_moe: moe_num_shared_experts=2 moe_layer_start_index=1
exaone_moe: num_shared_experts=1 first_k_dense_replace=1
falcon gpt_bigcode: multi_query=yes
falcon_h1: mamba_d_conv=4 mamba_d_state=256 mamba_n_heads=128 mamba_d_ssm=1024 mamba_n_groups=1
    mamba_expand=2
falcon_mamba mamba: conv_kernel=4 state_size=16 expand=2
gemma3n: num_kv_shared_layers=15
gemma4: global_head_dim=512
glm4_moe glm4v_moe: n_shared_experts=1 first_k_dense_replace=1
glm4_moe_lite: v_head_dim=256 kv_lora_rank=512 q_lora_rank=768 qk_nope_head_dim=192
    qk_rope_head_dim=64 n_shared_experts=1
glm_moe_dsa: v_head_dim=256 kv_lora_rank=512 q_lora_rank=2048 qk_nope_head_dim=192
    qk_rope_head_dim=64 index_head_dim=128 n_shared_experts=1 first_k_dense_replace=3
granitemoehybrid: mamba_d_conv=4 mamba_d_state=256 mamba_n_heads=128 mamba_d_head=64
    mamba_n_groups=1 mamba_expand=2 shared_intermediate_size=1024
hy_v3: num_shared_experts=1
jamba: mamba_d_conv=4 mamba_d_state=16 mamba_expand=2 attn_layer_period=8 attn_layer_offset=4
    expert_layer_period=2 expert_layer_offset=1
kimi_linear: v_head_dim=128 kv_lora_rank=512 qk_nope_head_dim=128 qk_rope_head_dim=64
    num_shared_experts=1
lfm2 lfm2_moe: conv_L_cache=3
llama4: intermediate_size_mlp=16384
longcat_flash: v_head_dim=128 kv_lora_rank=512 q_lora_rank=1536 qk_nope_head_dim=128
    qk_rope_head_dim=64
mamba2: conv_kernel=4 state_size=128 n_groups=8 expand=2 num_heads=128
mimo_v2_flash: v_head_dim=128
minicpm3: v_head_dim=64 kv_lora_rank=256 q_lora_rank=768 qk_nope_head_dim=64 qk_rope_head_dim=32
nemotron_h: conv_kernel=4 ssm_state_size=128 mamba_num_heads=128 mamba_head_dim=64 n_groups=8
    expand=2
olmo_hybrid: linear_num_value_heads=30 linear_value_head_dim=192 linear_num_key_heads=30
    linear_key_head_dim=96 linear_conv_kernel_dim=4
qwen2 qwen2_5_omni qwen3: max_window_layers=28 use_sliding_window=no
qwen2_5_vl qwen2_vl: max_window_layers=80 use_sliding_window=no
qwen2_moe: shared_expert_intermediate_size=5632 max_window_layers=28 use_sliding_window=no
qwen3_5: linear_num_value_heads=32 linear_value_head_dim=128 linear_num_key_heads=16
    linear_key_head_dim=128 linear_conv_kernel_dim=4
qwen3_5_moe qwen3_next: linear_num_value_heads=32 linear_value_head_dim=128
    linear_num_key_heads=16 linear_key_head_dim=128 linear_conv_kernel_dim=4
    shared_expert_intermediate_size=512
qwen3_moe smollm3: use_sliding_window=no
recurrent_gemma: conv1d_width=4
solar_open: n_shared_experts=1
zamba2: mamba_d_conv=4 mamba_d_state=64 mamba_ngroups=1 mamba_expand=2
"""
# What the text part of these is where it does not name its own family.
INSIDE = {
    "aya_vision": "cohere2", "cohere2_vision": "cohere2", "deepseek_vl_v2": "deepseek_v2",
    "exaone4_5": "exaone4", "fast_vlm": "qwen2", "got_ocr2": "qwen2", "idefics2": "mistral",
    "hyperclovax_vision_v2": "hyperclovax", "idefics3": "llama", "internvl": "qwen2",
    "kimi_k25": "deepseek_v3", "kimi_vl": "deepseek_v3", "lfm2_vl": "lfm2", "lighton_ocr": "qwen3",
    "llava": "llama", "llava_next": "llama", "llava_next_video": "llama", "ovis2": "qwen2",
    "llava_onevision": "qwen2", "mistral3": "mistral", "paligemma": "gemma", "smolvlm": "llama",
    "perception_lm": "llama", "qwen2_5_omni_thinker": "qwen2_5_omni", "shieldgemma2": "gemma3",
    "qwen3_omni_moe_thinker": "qwen3_omni_moe", "video_llava": "llama", "vipllava": "llama",
}  # fmt: skip
# Columns of numbers, by the first name of each key (see fields.py).
_COLUMNS = (
    "num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim",
    "intermediate_size", "vocab_size", "max_position_embeddings", "sliding_window",
    "num_local_experts", "num_experts_per_tok", "moe_intermediate_size",
)  # fmt: skip
_WORDS = {"yes": True, "no": False}


def family(model_type: str) -> str:
    """A model_type without the ending that says that it is the text part of another."""
    return model_type.removesuffix("_model").removesuffix("_text")


def known(name: str) -> bool:
    """Whether the layers of a family are known here."""
    return name in _lines()


@cache
def defaults(name: str) -> Mapping[str, Any]:
    """What the family's config.json may leave out, by key."""
    line = _lines().get(name, ())
    found: dict[str, Any] = {
        key: int(value) for key, value in zip(_COLUMNS, line, strict=False) if value.isdigit()
    }
    if line and line[-1] == "yes":
        found["tie_word_embeddings"] = True
    return {**found, **_more().get(name, {})}


def pattern(name: str) -> str:
    """The family's pattern of layers, "" for none."""
    line = _lines().get(name)
    return line[len(_COLUMNS)].strip("-") if line else ""


@cache
def _lines() -> Mapping[str, tuple[str, ...]]:
    """The table's columns after the first, by family."""
    split = (line.split() for line in TABLE.splitlines() if line and line[0] != "#")
    return {line[0]: tuple(line[1:]) for line in split}


@cache
def _more() -> Mapping[str, Mapping[str, int]]:
    found: dict[str, Mapping[str, int]] = {}
    for line in MORE.strip().replace("\n    ", " ").splitlines():
        names, _, rest = line.partition(":")
        pairs = (one.split("=") for one in rest.split())
        values = {key: _WORDS[said] if said in _WORDS else int(said) for key, said in pairs}
        found |= dict.fromkeys(names.split(), values)
    return found
