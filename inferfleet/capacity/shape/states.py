"""What layers without attention keep: the states of each family."""

from __future__ import annotations

from inferfleet.capacity.shape.fields import HEAD, HEADS, HIDDEN, Fields
from inferfleet.capacity.shape.shape import State
from inferfleet.errors import FleetError

_MATRIX = {"float32": 4, "bfloat16": 2, "float16": 2}
# Lightning attention: one matrix a head, no convolution.
LIGHTNING = ("minimax", "minimax_text_01", "minimax_m1")


def state(fields: Fields) -> State:
    """The state of one layer. Raises FleetError for a family whose states are not known here."""
    hidden = fields.number(*HIDDEN)
    if fields.given("linear_num_value_heads"):
        # Gated delta net: vLLM's MambaStateShapeCalculator.gated_delta_net_state_shape.
        inner = fields.number("linear_num_value_heads") * fields.number("linear_value_head_dim")
        kernel = fields.above("linear_conv_kernel_dim", default=4)
        matrix = _MATRIX.get(fields.text("mamba_ssm_dtype"), 0)
        groups = fields.number("linear_num_key_heads")
        return State(kernel, inner, groups, fields.number("linear_key_head_dim"), matrix)
    if fields.family == "kimi_linear":
        told = fields.part("linear_attn_config")
        heads, size = told.number("num_heads"), told.number("head_dim")
        kernel = told.above("short_conv_kernel_size", default=4)
        return State(kernel, heads * size, heads, size, 4)
    if fields.family in ("lfm2", "lfm2_moe"):
        inner = fields.first("conv_dim") or hidden
        return State(fields.above("conv_L_cache", default=3), inner)
    if fields.family in LIGHTNING:
        heads = fields.number(*HEADS)
        size = fields.first(*HEAD) or hidden // heads
        return State(1, heads * size, 0, size)
    if fields.family == "recurrent_gemma":
        # RG-LRU: one number a channel, kept in 32 bits (RecurrentGemmaRglru).
        width = fields.first("lru_width") or hidden
        return State(fields.above("conv1d_width", default=4), width, 0, 1, 4)
    kernel = fields.above("mamba_d_conv", "conv_kernel", default=4)
    if fields.family in ("jamba", "mamba", "falcon_mamba"):
        size = fields.above("mamba_d_state", "state_size", default=16)
        return State(kernel, _inner(fields, hidden), 0, size)
    return _mamba2(fields, hidden, kernel)


def _inner(fields: Fields, hidden: int) -> int:
    """The width inside: intermediate_size in Mamba itself, else expand times the hidden size."""
    told = fields.first("intermediate_size") if fields.family != "jamba" else 0
    return told or int(fields.ratio("mamba_expand", fields.ratio("expand", 2)) * hidden)


def _mamba2(fields: Fields, hidden: int, kernel: int) -> State:
    heads = fields.first("mamba_n_heads", "mamba_num_heads", "n_mamba_heads") or (
        fields.first("num_heads") if fields.family == "mamba2" else 0
    )
    size = fields.first("mamba_d_head", "mamba_head_dim", "mamba_headdim")
    if fields.family == "mamba2":
        size = fields.first("head_dim")
    inner = fields.first("mamba_d_ssm") or heads * size
    if not inner and (heads or fields.family == "zamba2"):
        inner = int(fields.ratio("mamba_expand", 2) * hidden)
    if not inner:
        raise FleetError(
            f"{fields.name}: the states of {fields.family or 'its'} layers are not known here"
        )
    return State(
        kernel,
        inner,
        fields.above("mamba_n_groups", "n_groups", "mamba_ngroups", default=1),
        fields.above("mamba_d_state", "ssm_state_size", "state_size", default=128),
        4 if fields.family == "nemotron_h" else 0,
        kept=3,
    )
