"""What configs and files of the hub say beside the plain case: older spellings, special tokens, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import encoder_rows
import pytest
import seq2seq_rows
import torch
from parity import Row, altered, build_oracle, tensors_of
from safetensors.torch import save_file
from torch import Tensor

from sublayer import config
from sublayer.errors import CheckpointError
from sublayer.hub.exporting import export
from sublayer.hub.importing import find_family, import_folder, read_tree
from sublayer.hub.tokens import SpecialTokens

SEQ2SEQ = {row.name: row for row in seq2seq_rows.ROWS}
ENCODERS = {row.name: row for row in encoder_rows.ROWS}


def saved(row: Row, folder: Path) -> Path:
    build_oracle(row).save_pretrained(folder)
    return folder


def renamed(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Path:
    """The folder with other tensors."""
    tensors = change(tensors_of(folder))
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, folder / "model.safetensors")
    return folder


def same_weights(one: Any, other: Any) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def read(settings: dict[str, Any]) -> Any:
    return read_tree(find_family(settings, "config.json"), settings)


def refusal(settings: dict[str, Any]) -> str:
    with pytest.raises(CheckpointError) as caught:
        read(settings)
    return str(caught.value)


# --- older spellings ---------------------------------------------------------------------------------------------


def test_bert_as_it_was_first_published(tmp_path: Path) -> None:
    """Norms with gamma and beta, positions as a buffer, the second head and the pooler beside what is asked for."""
    folder = saved(ENCODERS["bert, masked"], tmp_path / "new")
    today = import_folder(folder).model

    def old(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        found = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
            for name, tensor in tensors.items()
        }
        return found | {
            "bert.embeddings.position_ids": torch.arange(20),
            "bert.pooler.dense.weight": torch.zeros(32, 32),
            "bert.pooler.dense.bias": torch.zeros(32),
            "cls.seq_relationship.weight": torch.zeros(2, 32),
            "cls.seq_relationship.bias": torch.zeros(2),
            "cls.predictions.decoder.weight": tensors["bert.embeddings.word_embeddings.weight"],
        }

    assert same_weights(import_folder(renamed(folder, old)).model, today)


def test_a_base_model_with_its_pooler_and_without(tmp_path: Path) -> None:
    for name in ("bert, base", "Roberta, base"):
        folder = saved(ENCODERS[name], tmp_path / name)
        whole = import_folder(folder).model
        assert whole.config.pooler
        renamed(folder, lambda tensors: {n: t for n, t in tensors.items() if not n.startswith("pooler")})
        bare = import_folder(folder)
        assert not bare.model.config.pooler
        export(tmp_path / f"{name} again", bare.model, family=bare.family.name)
        assert tensors_of(tmp_path / f"{name} again").keys() == tensors_of(folder).keys()


def test_a_base_model_under_the_names_of_one_with_a_head(tmp_path: Path) -> None:
    folder = saved(ENCODERS["Roberta, base"], tmp_path / "new")
    today = import_folder(folder).model
    prefixed = renamed(folder, lambda tensors: {f"roberta.{name}": tensor for name, tensor in tensors.items()})
    assert same_weights(import_folder(prefixed).model, today)


def test_a_classifier_without_its_pooler_is_refused(tmp_path: Path) -> None:
    folder = saved(ENCODERS["bert, text"], tmp_path / "new")
    renamed(folder, lambda tensors: {n: t for n, t in tensors.items() if "pooler" not in n})
    with pytest.raises(
        CheckpointError, match=r"missing: bert\.pooler\.dense\.weight; missing: bert\.pooler\.dense\.bias"
    ):
        import_folder(folder)


def test_bart_large_is_a_base_model(tmp_path: Path) -> None:
    """Without "model." before its names and without a bias on the logits, which is then none."""
    folder = saved(SEQ2SEQ["Bart, plain"], tmp_path / "new")

    def bare(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        found = {name.removeprefix("model."): t for name, t in tensors.items() if name != "final_logits_bias"}
        return found | {"encoder.embed_tokens.weight": found["shared.weight"], "encoder.version": torch.ones(1)}

    today = import_folder(folder).model
    base = import_folder(altered(renamed(folder, bare), tmp_path / "old", architectures=["BartModel"])).model
    assert today.config.output_bias
    assert not base.config.output_bias
    held = base.state_dict()
    assert all(torch.equal(held[name], tensor) for name, tensor in today.state_dict().items() if name in held)


def test_marian_with_tables_of_positions(tmp_path: Path) -> None:
    """Converted before transformers left them out; and the embeddings once more on either side."""
    folder = saved(SEQ2SEQ["marian, plain"], tmp_path / "new")
    today = import_folder(folder).model

    def old(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        tables = {f"model.{side}.embed_positions.weight": torch.zeros(30, 32) for side in ("encoder", "decoder")}
        shared = tensors["model.shared.weight"]
        twice = {f"model.{side}.embed_tokens.weight": shared for side in ("encoder", "decoder")}
        return tensors | tables | twice | {"lm_head.weight": shared}

    assert same_weights(import_folder(renamed(folder, old)).model, today)


def test_pegasus_with_other_positions_is_refused(tmp_path: Path) -> None:
    folder = saved(SEQ2SEQ["Pegasus, plain"], tmp_path / "new")
    renamed(folder, lambda tensors: {n: t + 1 if "decoder.embed_positions" in n else t for n, t in tensors.items()})
    with pytest.raises(
        CheckpointError, match=r"not what config\.json says: model\.decoder\.embed_positions\.weight\. "
    ):
        import_folder(folder)


def test_t5_with_a_bias_that_nobody_uses(tmp_path: Path) -> None:
    folder = saved(SEQ2SEQ["t5 1.0"], tmp_path / "new")
    today = import_folder(folder).model
    unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    old = renamed(
        folder, lambda tensors: tensors | {unused: torch.ones(8, 4), "lm_head.weight": tensors["shared.weight"]}
    )
    found = import_folder(old).model
    assert found.config.tied == "all"
    assert same_weights(found, today)


# --- configs as the hub has them ---------------------------------------------------------------------------------

OPUS_MT = {
    "_num_labels": 3,
    "activation_dropout": 0.0,
    "activation_function": "swish",
    "add_bias_logits": False,
    "add_final_layer_norm": False,
    "architectures": ["MarianMTModel"],
    "attention_dropout": 0.0,
    "bad_words_ids": [[58100]],
    "bos_token_id": 0,
    "classif_dropout": 0.0,
    "classifier_dropout": 0.0,
    "d_model": 512,
    "decoder_attention_heads": 8,
    "decoder_ffn_dim": 2048,
    "decoder_layerdrop": 0.0,
    "decoder_layers": 6,
    "decoder_start_token_id": 58100,
    "decoder_vocab_size": 58101,
    "dropout": 0.1,
    "encoder_attention_heads": 8,
    "encoder_ffn_dim": 2048,
    "encoder_layerdrop": 0.0,
    "encoder_layers": 6,
    "eos_token_id": 0,
    "forced_eos_token_id": 0,
    "id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"},
    "init_std": 0.02,
    "is_encoder_decoder": True,
    "label2id": {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2},
    "max_length": 512,
    "max_position_embeddings": 512,
    "model_type": "marian",
    "normalize_before": False,
    "normalize_embedding": False,
    "num_beams": 4,
    "num_hidden_layers": 6,
    "pad_token_id": 58100,
    "scale_embedding": True,
    "share_encoder_decoder_embeddings": True,
    "static_position_embeddings": True,
    "transformers_version": "4.22.0.dev0",
    "use_cache": True,
    "vocab_size": 58101,
}
FLAN_T5 = {
    "architectures": ["T5ForConditionalGeneration"],
    "d_ff": 1024,
    "d_kv": 64,
    "d_model": 512,
    "decoder_start_token_id": 0,
    "dropout_rate": 0.1,
    "eos_token_id": 1,
    "feed_forward_proj": "gated-gelu",
    "initializer_factor": 1.0,
    "is_encoder_decoder": True,
    "layer_norm_epsilon": 1e-06,
    "model_type": "t5",
    "n_positions": 512,
    "num_decoder_layers": 8,
    "num_heads": 6,
    "num_layers": 8,
    "output_past": True,
    "pad_token_id": 0,
    "relative_attention_max_distance": 128,
    "relative_attention_num_buckets": 32,
    "tie_word_embeddings": False,
    "transformers_version": "4.23.1",
    "use_cache": True,
    "vocab_size": 32128,
}
MODERNBERT = {
    "architectures": ["ModernBertForMaskedLM"],
    "attention_bias": False,
    "classifier_pooling": "mean",
    "global_attn_every_n_layers": 3,
    "global_rope_theta": 160000.0,
    "hidden_activation": "gelu",
    "hidden_size": 768,
    "intermediate_size": 1152,
    "layer_norm_eps": 1e-05,
    "local_attention": 128,
    "local_rope_theta": 10000.0,
    "max_position_embeddings": 8192,
    "model_type": "modernbert",
    "num_attention_heads": 12,
    "num_hidden_layers": 22,
    "position_embedding_type": "absolute",
    "reference_compile": None,
    "vocab_size": 50368,
}


def test_opus_mt() -> None:
    tree = read(OPUS_MT)
    assert (tree.embedding.scale, tree.encoder.block.norm_placement, tree.output_bias) == (True, "post", True)
    assert tree.decoder.block.feed_forward.activation == "silu"
    tokens = SpecialTokens.read(OPUS_MT, {})
    assert tokens == SpecialTokens(start=58100, beginning=0, end=(0,), padding=58100, forced_last=0, banned=(58100,))
    assert SpecialTokens.read({}, tokens.write()) == tokens


def test_flan_t5() -> None:
    tree = read(FLAN_T5)
    assert (tree.tied, tree.output_scale, tree.dim) == ("embeddings", 1.0, 512)
    assert tree.encoder.block.attention.width(512) == 64
    assert tree.encoder.block.feed_forward == config.Gated(hidden=1024, activation="gelu_tanh", dropout=0.1)


def test_modernbert() -> None:
    tree = read(MODERNBERT)
    layers = tree.encoder.blocks
    assert [layer for layer, block in enumerate(layers) if block.attention.window is None] == [
        0,
        3,
        6,
        9,
        12,
        15,
        18,
        21,
    ]
    assert layers[1].attention.window == 65
    assert layers[1].position == config.Rotary(base=10_000.0)
    assert tree.encoder.position == config.Rotary(base=160_000.0)
    assert [block.attention_norm for block in layers[:3]] == [False, True, True]


@pytest.mark.parametrize(
    ("settings", "changes", "named"),
    [
        ("bert", {"position_embedding_type": "relative_key"}, "position_embedding_type = 'relative_key'"),
        ("bert", {"is_decoder": True}, "is_decoder = True"),
        ("bert", {"add_cross_attention": True}, "add_cross_attention = True"),
        ("bert", {"architectures": ["BertForNextSentencePrediction"]}, "BertForNextSentencePrediction"),
        ("bert", {"hidden_act": "gelu_fast"}, "hidden_act = 'gelu_fast'"),
        ("bert", {"architectures": ["BertForMaskedLM"], "tie_word_embeddings": False}, "tie_word_embeddings = False"),
        ("bert", {"some_new_thing": 3}, "some_new_thing = 3"),
        ("bert", {"hidden_size": 30}, "dim = 30 is not a multiple"),
        ("bert", {"architectures": ["BertForTokenClassification"], "id2label": {"0": "a", "2": "b"}}, "id2label"),
        ("electra", {"architectures": ["ElectraForMaskedLM"]}, "ElectraForMaskedLM"),
        ("modernbert", {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "rope_scaling"),
        ("modernbert", {"layer_types": ["full_attention"]}, "layer_types = ['full_attention']"),
        ("modernbert", {"classifier_activation": "mish"}, "classifier_activation = 'mish'"),
        ("marian", {"share_encoder_decoder_embeddings": False}, "share_encoder_decoder_embeddings = False"),
        ("marian", {"decoder_vocab_size": 700}, "decoder_vocab_size = 700"),
        ("marian", {"tie_word_embeddings": False}, "tie_word_embeddings = False"),
        ("marian", {"normalize_before": True}, "normalize_before = True"),
        ("marian", {"static_position_embeddings": False}, "static_position_embeddings = False"),
        ("bart", {"normalize_embedding": False}, "normalize_embedding = False"),
        ("bart", {"architectures": ["BartForSequenceClassification"]}, "BartForSequenceClassification"),
        ("mbart", {"add_final_layer_norm": False}, "add_final_layer_norm = False"),
        ("t5", {"feed_forward_proj": "gated-mish"}, "feed_forward_proj = 'gated-mish'"),
        ("t5", {"feed_forward_proj": "double-gelu"}, "feed_forward_proj = 'double-gelu'"),
        ("t5", {"architectures": ["T5EncoderModel"]}, "T5EncoderModel"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(settings: str, changes: dict[str, Any], named: str) -> None:
    base = {"marian": OPUS_MT, "t5": FLAN_T5, "modernbert": MODERNBERT}.get(settings, {"model_type": settings})
    read(base)
    message = refusal(base | changes)
    assert named in message
    assert len(message) < 400


# --- special tokens ----------------------------------------------------------------------------------------------


def test_special_tokens_there_and_back() -> None:
    """generation_config.json counts first, config.json where that says nothing."""
    settings = {"eos_token_id": 2, "pad_token_id": 1, "decoder_start_token_id": 2}
    generation = {"eos_token_id": [2, 9], "forced_bos_token_id": 7, "suppress_tokens": [4], "bad_words_ids": [[1], [4]]}
    tokens = SpecialTokens.read(settings, generation)
    assert tokens == SpecialTokens(start=2, end=(2, 9), padding=1, forced_first=(7,), banned=(1, 4))
    assert SpecialTokens.read({}, tokens.write()) == tokens
    assert SpecialTokens.read({}, {}) == SpecialTokens()


def test_banned_words_of_several_tokens_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"bad_words_ids = \[\[3, 4\]\]"):
        SpecialTokens.read({}, {"bad_words_ids": [[3, 4]]})
