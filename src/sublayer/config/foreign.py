"""Of which type each setting of another library's files is: one table, which every reading goes through.

JSON knows types, and so do we: true is no number, "1" is none either, 3.0 is no size. A setting of another type, or
outside the stated limits, is refused by name. A key that stands in no table cannot be read at all (`require`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, TypeAdapter, ValidationError

from sublayer.config.part import LARGEST_COUNT, MOST_LAYERS, Count, Layers, Size
from sublayer.errors import CheckpointError

Number = Annotated[float, Field(ge=-1e30, le=1e30)]


class Content(BaseModel):
    """A token with its settings, of which only the spelling must be there."""

    content: str


class Named(BaseModel):
    """One of several chat templates."""

    name: str
    template: str


def _number_of_token(key: str) -> str:
    if not (key.isascii() and key.isdigit() and int(key) <= LARGEST_COUNT):
        raise ValueError("no number of a token")
    return key


TYPES: Mapping[str, tuple[str, Any]] = {
    "size": (f"a whole number from 1 to {LARGEST_COUNT}", Size),
    "count": (f"a whole number from 0 to {LARGEST_COUNT}", Count),
    "layers": (f"a whole number from 1 to {MOST_LAYERS}", Layers),
    "length": ("a number above 0", Annotated[float, Field(gt=0)]),
    "number": ("a finite number", Number),
    "positive": ("a finite number above 0", Annotated[Number, Field(gt=0)]),
    "flag": ("true or false", bool),
    "word": ("a string", str),
    "words": ("a list of strings", Sequence[str]),
    "counts": ("a list of whole numbers", Sequence[Count]),
    "numbers": ("a list of finite numbers", Sequence[Number]),
    "flags": ("a list of 0 and 1", Sequence[Literal[0, 1]]),
    "table": ("a table", Mapping[Any, Any]),
    "token": ("the number of a token", Count),
    "tokens": ("the number of a token, or a list of such", Count | Sequence[Count]),
    "token words": ("a list of lists of tokens' numbers", Sequence[Sequence[Count]]),
    "special": ("a string, or a table with a string 'content'", str | Content),
    "specials": ("a list or a table of tokens", Sequence[str | Content] | dict[str, str | Content]),
    "chat": ("a template, or a list of named ones", str | Sequence[Named]),
    "added": (
        "a table of tokens by their numbers",
        dict[Annotated[str, AfterValidator(_number_of_token)], Content],
    ),
    "anything": ("anything", Any),
}
"""What a type is called, and what pydantic takes for it, strictly."""


@cache
def _validator(kind: str) -> TypeAdapter[Any]:
    return TypeAdapter(TYPES[kind][1])


def _table(**keys: str) -> Mapping[str, str]:
    return {key: kind.replace("_", " ") for kind, names in keys.items() for key in names.split()}


MODEL = _table(
    layers="""
    num_hidden_layers n_layer n_layers num_layers num_decoder_layers encoder_layers decoder_layers num_experts
    num_local_experts
    """,
    size="""
    vocab_size decoder_vocab_size d_model hidden_size n_embd dim d_ff d_kv head_dim hidden_dim intermediate_size
    moe_intermediate_size n_inner ffn_hidden_size encoder_ffn_dim decoder_ffn_dim embedding_size
    encoder_attention_heads decoder_attention_heads num_attention_heads num_key_value_heads num_kv_heads num_heads
    n_head n_heads num_experts_per_tok decoder_sparse_step
    max_position_embeddings n_positions original_max_position_embeddings
    relative_attention_num_buckets relative_attention_max_distance sliding_window sliding_window_size
    global_attn_every_n_layers no_rope_layer_interval sliding_window_pattern _sliding_window_pattern
    num_ln_in_parallel_attn word_embedding_dimension embedding_dimension
    """,
    count="pad_token_id local_attention max_window_layers type_vocab_size num_labels _num_labels",
    length="max_seq_length",
    number="""
    activation_dropout attention_dropout attention_probs_dropout_prob attn_pdrop classifier_dropout dropout
    dropout_rate embd_pdrop embedding_dropout hidden_dropout hidden_dropout_prob mlp_dropout resid_pdrop
    seq_classif_dropout mscale mscale_all_dim
    """,
    positive="""
    attention_factor attn_logit_softcapping beta_fast beta_slow factor final_logit_softcapping high_freq_factor
    layer_norm_eps layer_norm_epsilon low_freq_factor norm_eps partial_rotary_factor query_pre_attn_scalar
    rms_norm_eps rope_local_base_freq rope_theta global_rope_theta local_rope_theta rotary_emb_base rotary_pct
    """,
    flag="""
    add_cross_attention add_final_layer_norm alibi attention_bias bias classifier_bias decoder_bias
    do_blenderbot_90_layernorm do_lower_case include_prompt is_decoder is_encoder_decoder mlp_bias multi_query
    new_decoder_architecture norm_bias norm_topk_prob normalize_before normalize_embedding parallel_attn
    reorder_and_upcast_attn scale_attn_by_inverse_layer_idx scale_attn_weights scale_decoder_outputs scale_embedding
    share_encoder_decoder_embeddings static_position_embeddings tie_word_embeddings truncate
    use_bidirectional_attention use_parallel_residual use_sliding_window
    pooling_mode_cls_token pooling_mode_mean_tokens pooling_mode_max_tokens pooling_mode_lasttoken
    pooling_mode_mean_sqrt_len_tokens pooling_mode_weightedmean_tokens
    """,
    word="""
    activation activation_function classifier_activation classifier_pooling feed_forward_proj hidden_act
    hidden_activation pooling_mode position_embedding_type problem_type rope_type type
    """,
    words="architectures layer_types",
    counts="mlp_only_layers",
    flags="no_rope_layers",
    table="id2label rope_parameters rope_scaling",
)
"""Settings of config.json, of its tables of rotary scaling, and of sentence-transformers' modules."""

GENERATION = _table(
    flag="do_sample renormalize_logits remove_invalid_values",
    positive="repetition_penalty encoder_repetition_penalty",
    number="temperature length_penalty top_p min_p typical_p epsilon_cutoff eta_cutoff diversity_penalty",
    size="num_beams num_beam_groups num_return_sequences",
    count="""
    max_length max_new_tokens min_length min_new_tokens no_repeat_ngram_size encoder_no_repeat_ngram_size top_k
    """,
    token="decoder_start_token_id",
    tokens="forced_bos_token_id forced_eos_token_id eos_token_id suppress_tokens begin_suppress_tokens",
    token_words="bad_words_ids",
)
"""Settings of generation_config.json, and of a config.json of before there was one."""

TOKENIZER = _table(
    word="tokenizer_class src_lang tgt_lang",
    flag="""
    do_lower_case strip_accents tokenize_chinese_chars add_bos_token add_eos_token add_prefix_space separate_vocabs
    legacy
    """,
    special="pad_token bos_token eos_token unk_token mask_token sep_token cls_token",
    specials="additional_special_tokens extra_special_tokens",
    added="added_tokens_decoder",
    chat="chat_template",
)
"""Settings of tokenizer_config.json and special_tokens_map.json."""

GGUF = _table(
    word="tokenizer.ggml.model tokenizer.ggml.pre tokenizer.chat_template general.architecture",
    words="tokenizer.ggml.tokens tokenizer.ggml.merges",
    counts="tokenizer.ggml.token_type",
    numbers="tokenizer.ggml.scores tokenizer.ggml.precompiled_charsmap",
    flag="""
    tokenizer.ggml.add_bos_token tokenizer.ggml.add_eos_token tokenizer.ggml.add_space_prefix
    tokenizer.ggml.remove_extra_whitespaces
    """,
    token="""
    tokenizer.ggml.padding_token_id tokenizer.ggml.bos_token_id tokenizer.ggml.eos_token_id
    tokenizer.ggml.unknown_token_id tokenizer.ggml.mask_token_id tokenizer.ggml.seperator_token_id
    tokenizer.ggml.cls_token_id tokenizer.ggml.eot_token_id tokenizer.ggml.eom_token_id
    """,
)
"""Settings of a GGUF file that are not its architecture's; those become a config.json's (`hub/gguf.py`)."""

ADAPTER = _table(
    size="r",
    positive="lora_alpha",
    number="lora_dropout",
    flag="use_rslora use_dora fan_in_fan_out inference_mode",
    word="peft_type task_type base_model_name_or_path bias",
)
"""Settings of PEFT's adapter_config.json."""


def require(value: Any, key: str, kind: str, where: str) -> None:
    """Raise a `CheckpointError` where `value`, that of `key`, is not of the type `kind` (a key of `TYPES`)."""
    try:
        _validator(kind).validate_python(value, strict=True)
    except ValidationError:
        given = repr(value)
        given = given if len(given) <= 60 else given[:57] + "..."
        raise CheckpointError(
            f"{where} has {key} = {given}, and it should be {TYPES[kind][0]}", "Mend it, or fetch it again."
        ) from None


def require_all(values: Mapping[str, Any], table: Mapping[str, str], where: str) -> None:
    """Raise where one of `values` is of another type than `table` says; null, and what it does not name, may stand."""
    for key, value in values.items():
        if value is not None and key in table:
            require(value, key, table[key], where)
