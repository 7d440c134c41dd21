"""Mixtures of experts in Llama's form: Mixtral (https://arxiv.org/abs/2401.04088) and Qwen3-MoE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sublayer import config
from sublayer.hub.families import llama
from sublayer.hub.families.parts import LayerRules, put_blocks, usual_block
from sublayer.hub.families.qwen import QWEN3_DEFAULTS
from sublayer.hub.family import Settings
from sublayer.hub.keys import Key
from sublayer.hub.rules import Rule, same, stacked, stacked_joined

MIXTRAL_DEFAULTS = llama.MISTRAL_DEFAULTS | {
    "rms_norm_eps": 1e-5,
    "sliding_window": None,
    "rope_theta": 1_000_000.0,
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


ACTIVE = Key("num_experts_per_tok", "decoder.block.feed_forward.active", 2)


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
        found = [*llama.attention_rules(block.attention, dim), *llama.norm_rules(block)]
        if isinstance(part, config.MixtureOfExperts):
            return [*found, *_experts_rules(part, where, router, gate_up, down)]
        return [*found, *llama.gated_rules(part)]

    return rules


def _pass_over_the_routers_training(settings: Settings, tree: dict[str, Any]) -> None:
    settings.skip("output_router_logits", "router_aux_loss_coef", "router_jitter_noise")


def _experts(tree: config.DecoderOnly) -> config.MixtureOfExperts | None:
    """The experts of the first layer that has some."""
    parts = (block.feed_forward for block in tree.decoder.blocks)
    return next((part for part in parts if isinstance(part, config.MixtureOfExperts)), None)


# --- Mixtral -----------------------------------------------------------------------------------------------------


def _write_mixtral(tree: config.DecoderOnly, frame: dict[str, Any]) -> dict[str, Any] | None:
    return None if _experts(tree) is None else frame


MIXTRAL = llama.llama_like(
    "mixtral",
    "MixtralForCausalLM",
    (*llama.KEYS, llama.WINDOW, Key("num_local_experts", "decoder.block.feed_forward.experts", 8), ACTIVE),
    MIXTRAL_DEFAULTS,
    {"feed_forward": {"type": "mixture-of-experts"}},
    _write_mixtral,
    layer=_layer_rules("block_sparse_moe", "gate", ("w1", "w3"), "w2"),
    read=_pass_over_the_routers_training,
)

# --- Qwen3-MoE ---------------------------------------------------------------------------------------------------


def _read_qwen3_moe(settings: Settings, tree: dict[str, Any]) -> None:
    _pass_over_the_routers_training(settings, tree)
    llama.norm_queries_and_keys(settings, tree)
    settings.skip("max_window_layers")  # without effect: a window is for all layers
    dense = usual_block(tree)
    window = settings.get("sliding_window") if settings.get("use_sliding_window", False) else None
    dense = dense.model_copy(update={"attention": dense.attention.model_copy(update={"window": window})})
    part = config.MixtureOfExperts(
        experts=settings.get("num_local_experts") or settings.need("num_experts"),
        active=settings.need("num_experts_per_tok"),
        hidden=settings.need("moe_intermediate_size"),
        activation=dense.feed_forward.activation,
        normalize=settings.get("norm_topk_prob", False),
    )
    sparse = dense.model_copy(update={"feed_forward": part})
    step, without = settings.need("decoder_sparse_step"), settings.get("mlp_only_layers", [])
    settings.skip("num_experts")
    layers = range(tree["decoder"]["layers"])
    put_blocks(tree, [sparse if i not in without and (i + 1) % step == 0 else dense for i in layers])


def _write_qwen3_moe(tree: config.DecoderOnly, frame: dict[str, Any]) -> dict[str, Any] | None:
    part, window = _experts(tree), tree.decoder.blocks[0].attention.window  # all layers have it here, or none
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


QWEN3_MOE = llama.llama_like(
    "qwen3_moe",
    "Qwen3MoeForCausalLM",
    (*llama.KEYS, llama.BIAS),
    QWEN3_MOE_DEFAULTS,
    write=_write_qwen3_moe,
    layer=_layer_rules("mlp", "gate", ("gate_proj", "up_proj"), "down_proj"),
    read=_read_qwen3_moe,
)
