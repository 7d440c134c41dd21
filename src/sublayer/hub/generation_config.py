"""generation_config.json: how a model is used unless a call says otherwise, read and written.

Every key is kept in a `config.Decoding` or a `config.Generation`, known to have no effect on a text, or refused by its
name. The defaults of keys that are missing are those of `transformers` 5
(https://huggingface.co/docs/transformers/main_classes/text_generation).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sublayer import config
from sublayer.errors import CheckpointError
from sublayer.hub.tokens import SpecialTokens
from sublayer.text import PairAffixes, Tokenizer

WHERE = "generation_config.json"

FILTERS: Mapping[str, Any] = {
    name: field.default for name, field in config.Sampling.model_fields.items() if name != "type"
}
"""The settings of sampling, which both libraries call the same, and what they are where they do nothing."""

KEPT: Mapping[str, Any] = {
    **FILTERS,
    "max_length": None,
    "max_new_tokens": None,
    "min_length": 0,
    "min_new_tokens": None,
    "stop_strings": None,
    "early_stopping": False,
    "do_sample": False,
    "num_beams": 1,
    "top_k": 50,
    "min_p": None,
    "repetition_penalty": 1.0,
    "length_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "renormalize_logits": False,
}
"""Settings that decide a text, and what they are where they are missing."""

TOKENS = frozenset(
    """
    pad_token_id bos_token_id eos_token_id decoder_start_token_id forced_bos_token_id forced_eos_token_id bad_words_ids
    suppress_tokens
    """.split()  # noqa: SIM905
)
"""What `SpecialTokens` reads."""

OFF: Mapping[str, tuple[Any, ...]] = {
    "encoder_no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1.0,),
    "epsilon_cutoff": (0.0,),
    "eta_cutoff": (0.0,),
    "top_h": (),
    "exponential_decay_length_penalty": (),
    "begin_suppress_tokens": ([],),
    "sequence_bias": ({}, []),
    "token_healing": (False,),
    "guidance_scale": (1.0,),
    "watermarking_config": (),
    "penalty_alpha": (0.0,),
    "dola_layers": (),
    "diversity_penalty": (0.0,),
    "num_beam_groups": (1,),
    "constraints": ([],),
    "force_words_ids": ([],),
    "max_time": (),
}
"""Settings of what is said that sublayer does not have, and the values that switch them off, beside null."""

WITHOUT_EFFECT = frozenset(
    """
    _commit_hash _from_model_config _name_or_path _original_object_hash assistant_confidence_threshold
    assistant_early_exit assistant_ensemble_weight assistant_lookbehind cache_config cache_implementation compile_config
    continuous_batching_config disable_compile is_assistant low_memory max_cache_len max_matching_ngram_size
    num_assistant_tokens num_assistant_tokens_schedule num_return_sequences output_attentions output_hidden_states
    output_logits output_scores prefill_chunk_size prompt_lookup_num_tokens remove_invalid_values
    return_dict_in_generate speculation_type target_lookbehind transformers.js_config transformers_version use_cache
    use_mtp
    """.split()  # noqa: SIM905
)
"""Settings of speed, of memory, and of what is returned beside the text."""


def stated_settings(settings: Mapping[str, Any], generation: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint says: its generation_config.json, or, of an older one without any, its config.json.

    Values of null are left out.

    Raises:
        CheckpointError: a setting that has an effect is unknown, or one that sublayer does not have is switched on.
    """
    if generation:
        given = {key: value for key, value in generation.items() if value is not None}
        unknown = given.keys() - KEPT.keys() - TOKENS - OFF.keys() - WITHOUT_EFFECT
        odd = [f"{key} = {given[key]!r}" for key in given if key in unknown]
        if odd:
            raise CheckpointError(
                f"this checkpoint's {WHERE} has settings that sublayer does not know: {', '.join(odd)}",
                f"Remove them from {WHERE} if they may be left out.",
            )
    else:
        known = KEPT.keys() | OFF.keys()
        given = {key: value for key, value in settings.items() if key in known and value is not None}
    for key, off in OFF.items():
        if key in given and given[key] not in off:
            raise CheckpointError(
                f"this checkpoint generates with {key} = {given[key]!r}, which sublayer does not support",
                f"Remove it from {WHERE if generation else 'config.json'} if it may be left out.",
            )
    return given


def read(
    tree: config.Model, settings: Mapping[str, Any], generation: Mapping[str, Any], tokenizer: Tokenizer
) -> dict[str, Any]:
    """How a model is used, as plain data: of a language model a `config.Generation`, of an encoder-decoder a
    `config.Decoding`, of an encoder nothing.

    Raises:
        CheckpointError: as `stated_settings`, or settings that exclude each other here.
        ConfigError: a value of the wrong type or out of range.
    """
    if not isinstance(tree, config.DecoderOnly | config.EncoderDecoder):
        return {}
    found = {**KEPT, **stated_settings(settings, generation)}
    tokens = SpecialTokens.read(settings, generation)
    ends = [end for end in tokens.end if end != tokenizer.specials.end]
    if isinstance(tree, config.DecoderOnly):
        # In a config.json of before there was another file, a length says nothing.
        return _read_generation(tree, found, tokens, ends, limited=bool(generation))
    return _read_decoding(tree, found, tokens, ends)


def _read_decoding(
    tree: config.EncoderDecoder, found: Mapping[str, Any], tokens: SpecialTokens, ends: list[int]
) -> dict[str, Any]:
    for key in ("do_sample", "stop_strings"):
        if found[key]:
            raise CheckpointError(
                f"this checkpoint has {key} = {found[key]!r}, which sublayer does not support for encoder-decoders",
                f"Remove it from {WHERE} if it may be left out.",
            )
    longest = found["max_new_tokens"]
    if longest is None and found["max_length"] is not None:
        longest = found["max_length"] - 1  # it counts the decoder's start token
    limits: dict[str, Any] = {}
    if longest is not None:
        # That is the only limit: no length of the source comes before it.
        longest = min(longest, tree.max_length)
        limits = {"max_tokens": longest, "max_extra": longest}
    plain = {
        "beam": found["num_beams"],
        "length_penalty": found["length_penalty"],
        "early_stopping": found["early_stopping"],
        **limits,
        "constraints": _constraints(found, tokens, counted=1),
        "start": tokens.start,
        "end_ids": ends,
    }
    if tokens.forced_last is not None and limits:
        plain["forced_end"] = tokens.forced_last
    return config.Decoding.parse(plain, WHERE).plain()


def _read_generation(
    tree: config.DecoderOnly, found: Mapping[str, Any], tokens: SpecialTokens, ends: list[int], *, limited: bool
) -> dict[str, Any]:
    """limited: `max_length` is one that the checkpoint means."""
    search: dict[str, Any] = {"type": "greedy"}
    # A temperature of 0 is greedy search by another name.
    if found["do_sample"] and found["temperature"] != 0:
        if found["num_beams"] != 1:
            raise CheckpointError(
                f"this checkpoint has do_sample = true with num_beams = {found['num_beams']!r}, which sublayer does "
                "not support",
                f"Set num_beams to 1 or do_sample to false in {WHERE}.",
            )
        search = {
            "type": "sampling",
            **{name: off if found[name] is None else found[name] for name, off in FILTERS.items()},
            "top_k": found["top_k"] or None,
        }
    elif found["num_beams"] != 1:
        search = {
            "type": "beam",
            "size": found["num_beams"],
            "length_penalty": found["length_penalty"],
            "early_stopping": found["early_stopping"],
        }
    plain: dict[str, Any] = {
        "search": search,
        "constraints": _constraints(found, tokens),
        "stop": [found["stop_strings"]] if isinstance(found["stop_strings"], str) else found["stop_strings"] or [],
        "end_ids": ends,
    }
    if found["max_new_tokens"] is not None:
        plain["max_tokens"] = found["max_new_tokens"]
    elif found["max_length"] is not None and limited:
        # It counts the prompt, as the context does; where that is shorter, it is the limit.
        plain["max_tokens"] = None
        plain["max_length"] = found["max_length"] if found["max_length"] < tree.max_length else None
    return config.Generation.parse(plain, WHERE).plain()


def _constraints(found: Mapping[str, Any], tokens: SpecialTokens, counted: int | None = None) -> dict[str, Any]:
    """counted: tokens that `min_length` counts before the first new one; None where that depends on the prompt."""
    shortest = found["min_new_tokens"]
    if shortest is None and counted is None and found["min_length"]:
        raise CheckpointError(
            f"this checkpoint has min_length = {found['min_length']!r}, which counts the prompt and is not supported",
            f"Set min_new_tokens in {WHERE} instead.",
        )
    if shortest is None:
        shortest = max(0, found["min_length"] - (counted or 0))
    return {
        "repetition_penalty": found["repetition_penalty"],
        "no_repeat_ngram": found["no_repeat_ngram_size"] or None,
        "min_length": shortest,
        "banned": tokens.banned,
        "forced": tokens.forced_first,
        "renormalize": found["renormalize_logits"],
    }


# --- out ---------------------------------------------------------------------------------------------------------


def write(tree: config.Model, decoding: Mapping[str, Any], tokenizer: Tokenizer) -> dict[str, Any]:
    """What generation_config.json says of a model that is used like this; empty for an encoder.

    Raises:
        CheckpointError: a setting that generation_config.json cannot say.
    """
    match tree:
        case config.EncoderDecoder():
            found = _write_decoding(tree, config.Decoding.parse(decoding, "decoding"), tokenizer)
        case config.DecoderOnly():
            found = _write_generation(tree, config.Generation.parse(decoding, "decoding"), tokenizer)
        case _:
            found = {}
    return {key: value for key, value in found.items() if value is not None}


def _write_decoding(tree: config.EncoderDecoder, c: config.Decoding, tokenizer: Tokenizer) -> dict[str, Any]:
    affixes = PairAffixes.of(tokenizer, c)
    if len(affixes.forced) > 1:
        raise CheckpointError(
            f"decoding.constraints.forced has {len(affixes.forced)} tokens, and {WHERE} can force one",
            "Force one token at most.",
        )
    longest = tree.max_length if c.max_tokens is None else min(c.max_tokens, tree.max_length)
    return {
        "decoder_start_token_id": affixes.start,
        "bos_token_id": affixes.start if tokenizer.specials.start is None else tokenizer.specials.start,
        "eos_token_id": _one_or_all([affixes.end, *c.end_ids]),
        "pad_token_id": affixes.pad,
        "forced_bos_token_id": affixes.forced[0] if affixes.forced else None,
        "forced_eos_token_id": c.forced_end,
        **_beams(c.beam, c.length_penalty, c.early_stopping),
        **_write_constraints(c.constraints, tree.vocab_size, counted=1),
        "max_length": longest + 1,
    }


def _write_generation(tree: config.DecoderOnly, c: config.Generation, tokenizer: Tokenizer) -> dict[str, Any]:
    if c.constraints.forced:
        raise CheckpointError(
            f"decoding.constraints.forced cannot be said in {WHERE} for a model that goes on from a prompt",
            "Leave it out, or put the tokens into the prompt.",
        )
    roles = tokenizer.specials
    ends = [*([] if roles.end is None else [roles.end]), *c.end_ids]
    limit = {"max_length": min(c.max_length or tree.max_length, tree.max_length)}
    # More than the context holds is as many as it has room for, which no max_new_tokens says.
    if c.max_tokens is not None and c.max_tokens < tree.max_length:
        limit = {"max_new_tokens": c.max_tokens}
    found: dict[str, Any] = {
        "bos_token_id": roles.start,
        "eos_token_id": _one_or_all(ends) if ends else None,
        "pad_token_id": tokenizer.padding_id,
        **_write_constraints(c.constraints, tree.vocab_size),
        **limit,
        "stop_strings": list(c.stop) or None,
    }
    match c.search:
        case config.Greedy():
            found["do_sample"] = False
        case config.Beam():
            found |= _beams(c.search.size, c.search.length_penalty, c.search.early_stopping)
        case config.Sampling():
            asked = {name: getattr(c.search, name) for name in FILTERS}
            usual = {name: asked[name] for name in ("temperature", "top_p")}
            found |= {"do_sample": True, **usual, "top_k": c.search.top_k or 0}
            found |= {name: value for name, value in asked.items() if value != FILTERS[name]}
    return found


def _beams(size: int, length_penalty: float, early_stopping: bool) -> dict[str, Any]:
    found = {"num_beams": size, "do_sample": False}
    return found if size == 1 else found | {"length_penalty": length_penalty, "early_stopping": early_stopping}


def _write_constraints(c: config.Constraints, vocab_size: int, counted: int | None = None) -> dict[str, Any]:
    suppressed = [] if c.allowed is None else sorted(set(range(vocab_size)) - set(c.allowed))
    return {
        "repetition_penalty": None if c.repetition_penalty == 1.0 else c.repetition_penalty,
        "no_repeat_ngram_size": c.no_repeat_ngram,
        "min_new_tokens" if counted is None else "min_length": c.min_length + (counted or 0) if c.min_length else None,
        "bad_words_ids": [[token] for token in c.banned] or None,
        "suppress_tokens": suppressed or None,
        "renormalize_logits": c.renormalize or None,
    }


def inexpressible(tree: config.Model, decoding: Mapping[str, Any]) -> list[str]:
    """What no generation_config.json says of how a model is used here, as a recipe spells it."""
    if not isinstance(tree, config.EncoderDecoder):
        return []
    c = config.Decoding.parse(decoding, "decoding")
    longest = tree.max_length if c.max_tokens is None else min(c.max_tokens, tree.max_length)
    if c.max_extra >= longest:
        return []
    return [f"decoding.max_ratio = {c.max_ratio:g}, decoding.max_extra = {c.max_extra}"]


def _one_or_all(ends: Sequence[int]) -> int | list[int]:
    found = list(dict.fromkeys(ends))
    return found[0] if len(found) == 1 else found
