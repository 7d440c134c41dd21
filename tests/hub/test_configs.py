"""config.json: its defaults are the library's, older spellings say the same, known models have their known sizes."""

from __future__ import annotations

from typing import Any

import pytest
import transformers
from decoder_rows import OWN_BASES, ROWS
from encoder_rows import ROWS as ENCODERS
from parity import Row
from seq2seq_rows import ROWS as SEQ2SEQ

from sublayer.errors import CheckpointError
from sublayer.hub.canonical import canonical
from sublayer.hub.families import FAMILIES
from sublayer.hub.importing import find_family, read_tree
from sublayer.models import build_model
from sublayer.models.empty import without_memory

DECODERS = sorted({row.architecture for row in ROWS})


def tree_of(values: dict[str, Any]) -> dict[str, Any]:
    return canonical(read_tree(find_family(values, "config.json"), values))


def written(row: Row) -> dict[str, Any]:
    """The config of a row as `transformers` writes it, nothing left out."""
    kind = getattr(transformers, row.architecture)
    return kind.config_class(**dict(row.settings)).to_dict() | {"architectures": [row.architecture]}


@pytest.mark.parametrize("architecture", DECODERS)
def test_what_a_config_leaves_out_is_the_librarys_default(architecture: str) -> None:
    values = written(Row("", architecture, {}))
    bare = {key: values[key] for key in ("model_type", "architectures")}
    assert tree_of(bare) == tree_of(values)


def as_before(values: dict[str, Any]) -> dict[str, Any]:
    """The config as versions before 5 wrote it: rotary positions in keys of their own, no kinds of layers."""
    old = {key: value for key, value in values.items() if key not in ("rope_parameters", "dtype")}
    table: dict[str, Any] = dict(values.get("rope_parameters") or {})
    nearby = table.pop("sliding_attention", None)
    table = dict(table.pop("full_attention", table))
    base, fraction = table.pop("rope_theta", None), table.pop("partial_rotary_factor", None)
    names = (
        ("rotary_emb_base", "rotary_pct")
        if values["model_type"] == "gpt_neox"
        else (
            "rope_theta",
            "partial_rotary_factor",
        )
    )
    old |= {name: value for name, value in zip(names, (base, fraction), strict=True) if value is not None}
    kind = table.pop("rope_type", "default")
    if base is not None:
        old["rope_scaling"] = None if kind == "default" else table | {"type": kind}
    if nearby is not None and values["model_type"] == "gemma3_text":
        old["rope_local_base_freq"] = nearby["rope_theta"]
    return old


@pytest.mark.parametrize("row", [row for row in ROWS if row.name != OWN_BASES], ids=lambda row: row.name)
def test_older_spellings(row: Row) -> None:
    values = written(row)
    assert tree_of(as_before(values)) == tree_of(values)


PATTERNS = {
    "Qwen2ForCausalLM": {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 20},
    "Qwen3ForCausalLM": {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 3},
    "Gemma2ForCausalLM": {},
    "Gemma3ForCausalLM": {"sliding_window_pattern": 4},
    "Olmo3ForCausalLM": {"sliding_window": 7},
    "SmolLM3ForCausalLM": {"use_sliding_window": True, "sliding_window": 7, "no_rope_layer_interval": 3},
}


@pytest.mark.parametrize("architecture", PATTERNS)
def test_kinds_of_layers_by_their_pattern(architecture: str) -> None:
    """As configs said it before they listed every layer."""
    values = written(Row("", architecture, PATTERNS[architecture]))
    lists = ("layer_types", "no_rope_layers")
    old = {key: value for key, value in values.items() if key not in lists} | PATTERNS[architecture]
    assert tree_of(old) == tree_of(values)


# --- known models ------------------------------------------------------------------------------------------------

# What their cards say they have, and their sizes as their config.json files give them. Keys left out are defaults.
KNOWN: dict[str, tuple[int, str, dict[str, Any]]] = {
    "gpt2": (124_439_808, "GPT2LMHeadModel", {}),
    "pythia-70m": (
        70_426_624,
        "GPTNeoXForCausalLM",
        {"hidden_size": 512, "intermediate_size": 2048, "layers": 6, "heads": 8, "vocab_size": 50_304},
    ),
    "Llama-3.2-1B": (
        1_235_814_400,
        "LlamaForCausalLM",
        {
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "layers": 16,
            "heads": 32,
            "groups": 8,
            "vocab_size": 128_256,
            "tie_word_embeddings": True,
            "max_position_embeddings": 131_072,
            "rope_theta": 500_000.0,
            "rope_scaling": {
                "factor": 32.0,
                "high_freq_factor": 4.0,
                "low_freq_factor": 1.0,
                "original_max_position_embeddings": 8192,
                "rope_type": "llama3",
            },
        },
    ),
    "SmolLM2-135M": (
        134_515_008,
        "LlamaForCausalLM",
        {
            "hidden_size": 576,
            "intermediate_size": 1536,
            "layers": 30,
            "heads": 9,
            "groups": 3,
            "vocab_size": 49_152,
            "tie_word_embeddings": True,
        },
    ),
    "SmolLM3-3B": (3_075_098_624, "SmolLM3ForCausalLM", {"intermediate_size": 11_008}),
    "Mistral-7B-v0.1": (7_241_732_096, "MistralForCausalLM", {}),
    "Mixtral-8x7B-v0.1": (46_702_792_704, "MixtralForCausalLM", {}),
    "Qwen2.5-0.5B": (
        494_032_768,
        "Qwen2ForCausalLM",
        {
            "hidden_size": 896,
            "intermediate_size": 4864,
            "layers": 24,
            "heads": 14,
            "groups": 2,
            "tie_word_embeddings": True,
            "use_mrope": False,
        },
    ),
    "Qwen3-0.6B": (
        596_049_920,
        "Qwen3ForCausalLM",
        {
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "layers": 28,
            "heads": 16,
            "groups": 8,
            "tie_word_embeddings": True,
        },
    ),
    "Qwen3-30B-A3B": (30_532_122_624, "Qwen3MoeForCausalLM", {"layers": 48, "head_dim": 128, "norm_topk_prob": True}),
    "gemma-2b": (
        2_506_172_416,
        "GemmaForCausalLM",
        {"hidden_size": 2048, "intermediate_size": 16_384, "layers": 18, "heads": 8, "groups": 1, "hidden_act": "gelu"},
    ),
    "gemma-2-2b": (2_614_341_888, "Gemma2ForCausalLM", {"cache_implementation": "hybrid"}),
    "gemma-3-1b": (
        999_885_952,
        "Gemma3ForCausalLM",
        {
            "hidden_size": 1152,
            "intermediate_size": 6912,
            "heads": 4,
            "groups": 1,
            "vocab_size": 262_144,
            "sliding_window": 512,
            "sliding_window_pattern": 6,
        },
    ),
    "Phi-3-mini-4k": (3_821_079_552, "Phi3ForCausalLM", {"sliding_window": 2047}),
    "OLMo-2-0425-1B": (
        1_484_916_736,
        "Olmo2ForCausalLM",
        {"hidden_size": 2048, "intermediate_size": 8192, "layers": 16, "heads": 16, "vocab_size": 100_352},
    ),
    "Olmo-3-1025-7B": (7_298_011_136, "Olmo3ForCausalLM", {"vocab_size": 100_278, "max_position_embeddings": 65_536}),
    "GLM-4-9B-0414": (9_400_279_040, "Glm4ForCausalLM", {"rms_norm_eps": 1e-5, "partial_rotary_factor": 0.5}),
    "falcon-7b": (6_921_720_704, "FalconForCausalLM", {}),
}
LONG = {"layers": "num_hidden_layers", "heads": "num_attention_heads", "groups": "num_key_value_heads"}


@pytest.mark.parametrize("name", KNOWN)
def test_known_models_have_their_known_sizes(name: str) -> None:
    count, architecture, sizes = KNOWN[name]
    kind = getattr(transformers, architecture).config_class.model_type
    values = {LONG.get(key, key): value for key, value in sizes.items()}
    values |= {"model_type": kind, "architectures": [architecture]}
    with without_memory():
        model = build_model(read_tree(find_family(values, name), values))
    assert sum(parameter.numel() for parameter in model.parameters()) == count


# --- refused by name ---------------------------------------------------------------------------------------------

TABLES: dict[str, Any] = {
    "full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500_000.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 500_000.0},
}


@pytest.mark.parametrize(
    ("family", "changes", "said"),
    [
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx = True"),
        ("gpt2", {"add_cross_attention": True}, "add_cross_attention = True"),
        ("gpt2", {"reorder_and_upcast_attn": True}, "reorder_and_upcast_attn = True"),
        ("gpt2", {"architectures": ["GPT2ForSequenceClassification"]}, "GPT2ForSequenceClassification"),
        ("gpt_neox", {"hidden_act": "gelu_fast"}, "hidden_act = 'gelu_fast'"),
        ("gpt_neox", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "'dynamic'"),
        ("mistral", {"layer_types": ["full_attention"]}, "layer_types"),
        ("qwen2", {"layer_types": ["chunked_attention"] * 32}, "layer_types"),
        ("qwen3", {"layer_types": ["full_attention"]}, "one for each layer"),
        ("gemma", {"use_bidirectional_attention": True}, "use_bidirectional_attention = True"),
        ("gemma2", {"sliding_window_size": 7}, "sliding_window_size = 7"),
        ("gemma3_text", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping = 50.0"),
        ("gemma3", {}, "also reads images"),
        ("phi3", {"rope_scaling": {"type": "longrope"}}, "'longrope'"),
        ("phi3", {"rope_scaling": {"type": "su"}}, "'su'"),
        ("phi3", {"rope_scaling": {"type": "yarn", "factor": 2.0}}, "'yarn'"),
        ("gemma3_text", {"rope_parameters": TABLES, "rope_scaling": TABLES["full_attention"]}, "rope_scaling = {"),
        ("olmo3", {"rope_parameters": TABLES, "rope_scaling": TABLES["full_attention"]}, "rope_scaling = {"),
        ("olmo3", {"rope_parameters": TABLES["full_attention"]}, "a table for full_attention and one for"),
        ("olmo3", {"rope_theta": 77.0}, "rope_theta = 77.0"),
        ("olmo3", {"sliding_window": None}, "has no 'sliding_window'"),
        ("olmo3", {"layer_types": ["full_attention"]}, "one for each layer"),
        ("olmo3", {"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5"),
        ("olmo3", {"architectures": ["Olmo3ForSequenceClassification"]}, "Olmo3ForSequenceClassification"),
        ("glm4", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "'dynamic'"),
        ("glm4", {"layer_types": ["sliding_attention"]}, "layer_types"),
        ("falcon", {"alibi": True}, "alibi = True"),
        ("falcon", {"multi_query": False, "num_kv_heads": 1}, "num_kv_heads = 1"),
        ("falcon", {"new_decoder_architecture": True, "parallel_attn": False}, "parallel_attn = False"),
        ("smollm3", {"no_rope_layers": [1, 0]}, "no_rope_layers"),
        ("llama", {"rope_scaling": {"type": "yarn", "factor": 2.0, "truncate": False}}, "truncate = False"),
        ("deepseek_v3", {}, "model_type = 'deepseek_v3', which sublayer does not know"),
    ],
)
def test_refused_by_name(family: str, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        tree_of({"model_type": family} | changes)
    assert said in str(caught.value)


def test_every_family_has_a_row() -> None:
    rows = [*ROWS, *ENCODERS, *SEQ2SEQ]
    tried = {getattr(transformers, row.architecture).config_class.model_type for row in rows}
    assert tried == {family.name for family in FAMILIES}
