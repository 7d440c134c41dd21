"""Mixtures of experts in Llama's form: Mixtral (https://arxiv.org/abs/2401.04088) and Qwen3-MoE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sublayer import config
from sublayer.hub.families.llama import (
    MISTRAL_DEFAULTS,
    attention_rules,
    gated_rules,
    llama_like,
    norm_rules,
    read_attention,
    read_block,
    read_gated,
    read_norm,
    read_plain_rotary,
)
from sublayer.hub.families.parts import ACTIVATIONS, LayerRules, decoder_only
from sublayer.hub.families.qwen import QWEN3_DEFAULTS
from sublayer.hub.family import Settings, Tree
from sublayer.hub.rules import Rule, same, stacked, stacked_joined

MIXTRAL_DEFAULTS = MISTRAL_DEFAULTS | {
    "rms_norm_eps": 1e-5,
    "sliding_window": None,
    "rope_theta": 1_000_000.0,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
}
QWEN3_MOE_DEFAULTS = QWEN3_DEFAULTS | {
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_hidden_layers": 24,
    "num_key_value_heads": 4,
    "head_dim": None,
    "moe_intermediate_size": 768,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "decoder_sparse_step": 1,
}


def _experts_rules(
    part: config.MixtureOfExperts, where: str, router: str, gate_up: Sequence[str], down: str
) -> list[Rule]:
    """[F, D], [F, D] and [D, F] for each expert are two tensors of ours, [E, 2 F, D] and [E, D, F]."""
    experts = [f"{where}.experts.{expert}" for expert in range(part.experts)]
    halves = [[f"{expert}.{name}.weight" for name in gate_up] for expert in experts]
    return [
        same("feed_forward.router.weight", f"{where}.{router}.weight"),
        stacked_joined("feed_forward.gate_up", halves, [part.hidden, part.hidden]),
        stacked("feed_forward.down", [f"{expert}.{down}.weight" for expert in experts]),
    ]


def _layer_rules(where: str, router: str, gate_up: Sequence[str], down: str) -> LayerRules:
    def rules(block: config.Block, dim: int) -> list[Rule]:
        part = block.feed_forward
        found = [*attention_rules(block.attention, dim), *norm_rules(block)]
        if isinstance(part, config.MixtureOfExperts):
            return [*found, *_experts_rules(part, where, router, gate_up, down)]
        return [*found, *gated_rules(part)]

    return rules


def _pass_over_the_routers_training(settings: Settings) -> None:
    settings.skip("output_router_logits", "router_aux_loss_coef", "router_jitter_noise")


def _experts(tree: config.DecoderOnly) -> config.MixtureOfExperts | None:
    """The experts of the first layer that has some."""
    parts = (block.feed_forward for block in tree.decoder.blocks)
    return next((part for part in parts if isinstance(part, config.MixtureOfExperts)), None)


def _window(tree: config.DecoderOnly) -> int | None:
    return tree.decoder.blocks[0].attention.window  # all layers have it here, or none


# --- Mixtral -----------------------------------------------------------------------------------------------------


def _read_mixtral(settings: Settings) -> Tree:
    _pass_over_the_routers_training(settings)
    attention = read_attention(settings, bias=False, window=settings.get("sliding_window"))
    part = config.MixtureOfExperts(
        experts=settings.need("num_local_experts"),
        active=settings.need("num_experts_per_tok"),
        hidden=settings.need("intermediate_size"),
        activation=settings.one_of("hidden_act", ACTIVATIONS, "silu"),
    )
    block = read_block(settings, attention, part)
    return decoder_only(settings, [block] * settings.need("num_hidden_layers"), read_plain_rotary(settings))


def _write_mixtral(tree: config.DecoderOnly, frame: dict[str, Any]) -> dict[str, Any] | None:
    part = _experts(tree)
    if part is None:
        return None
    experts = {"num_local_experts": part.experts, "num_experts_per_tok": part.active}
    return frame | {"sliding_window": _window(tree), **experts}


MIXTRAL = llama_like(
    "mixtral",
    "MixtralForCausalLM",
    MIXTRAL_DEFAULTS,
    _read_mixtral,
    _write_mixtral,
    _layer_rules("block_sparse_moe", "gate", ("w1", "w3"), "w2"),
)

# --- Qwen3-MoE ---------------------------------------------------------------------------------------------------


def _read_qwen3_moe(settings: Settings) -> Tree:
    _pass_over_the_routers_training(settings)
    settings.skip("max_window_layers")  # without effect: a window is for all layers
    window = settings.get("sliding_window") if settings.get("use_sliding_window", False) else None
    part = config.MixtureOfExperts(
        experts=settings.get("num_local_experts") or settings.need("num_experts"),
        active=settings.need("num_experts_per_tok"),
        hidden=settings.need("moe_intermediate_size"),
        activation=settings.one_of("hidden_act", ACTIVATIONS, "silu"),
        normalize=settings.get("norm_topk_prob", False),
    )
    sparse = read_block(settings, read_attention(settings, query_key_norm=read_norm(settings), window=window), part)
    dense = sparse.model_copy(update={"feed_forward": read_gated(settings)})
    step, without = settings.need("decoder_sparse_step"), settings.get("mlp_only_layers", [])
    settings.skip("num_experts")
    blocks = [
        sparse if layer not in without and (layer + 1) % step == 0 else dense
        for layer in range(settings.need("num_hidden_layers"))
    ]
    return decoder_only(settings, blocks, read_plain_rotary(settings))


def _write_qwen3_moe(tree: config.DecoderOnly, frame: dict[str, Any]) -> dict[str, Any] | None:
    part, window = _experts(tree), _window(tree)
    if part is None:
        return None
    dense = {i: block.feed_forward for i, block in enumerate(tree.decoder.blocks) if block.feed_forward != part}
    return frame | {
        "intermediate_size": next((other.hidden for other in dense.values()), frame["intermediate_size"]),
        "moe_intermediate_size": part.hidden,
        "num_experts": part.experts,
        "num_experts_per_tok": part.active,
        "norm_topk_prob": part.normalize,
        "decoder_sparse_step": 1,
        "mlp_only_layers": list(dense),
        "sliding_window": window,
        "use_sliding_window": window is not None,
    }


QWEN3_MOE = llama_like(
    "qwen3_moe",
    "Qwen3MoeForCausalLM",
    QWEN3_MOE_DEFAULTS,
    _read_qwen3_moe,
    _write_qwen3_moe,
    _layer_rules("mlp", "gate", ("gate_proj", "up_proj"), "down_proj"),
)
