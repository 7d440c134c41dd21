"""A family of checkpoints: one table for its config, one for its tensors, both reversible.

A family is a file in `hub/families/`. It knows the config of another library (a `config.json` as transformers writes
it) and the names of its tensors, and refuses by name what it cannot express: nothing is approximated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sublayer import config
from sublayer.config.foreign import MODEL, require
from sublayer.errors import CheckpointError
from sublayer.hub.rules import Rule

Tree = config.Transformer


@dataclass(frozen=True)
class Family:
    """One kind of checkpoint.

    name: `model_type` in its config.json.
    read: its config (with `architectures`, which says which head) -> our tree.
    write: our tree -> its config, or None where the family has no words for one of its parts. It need not look for
        what would be lost: who exports reads the config again and compares the trees.
    rules: every tensor of a model with this tree; what is tied stands once, as its library stores it.
    ties: the other names under which a checkpoint may hold a tied tensor, each with the name that the rules know.
    older: spellings of names in older checkpoints: patterns (as of `re.sub`), each with today's spelling. They are
        tried one after the other, and only where a checkpoint lacks a name of today.
    ignored: patterns of tensors' whole names that carry nothing and may stand in a checkpoint (old buffers).
    apart: patterns of those that another model would use (its heads, its pooler): they may be left out, and whoever
        reads is told which were.
    masked: the class of the model with a head of masked language, and a tensor that only this one has: where a config
        is silent about its architecture, the tensors say it.
    settle: the tree that `read` gave and the names of a checkpoint's tensors -> the tree, where only the names say
        which of two it is (a pooler that is there or not).
    fixed: tensors that a checkpoint holds though they follow from its config (tables of positions), in float64: they
        are written, and compared where they stand.
    """

    name: str
    read: Callable[[Mapping[str, Any]], Tree]
    write: Callable[[Tree], dict[str, Any] | None]
    rules: Callable[[Tree], Sequence[Rule]]
    ties: Callable[[Tree], Mapping[str, str]] = lambda _: {}
    older: tuple[tuple[str, str], ...] = ()
    ignored: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()
    masked: tuple[str, str] | None = None
    settle: Callable[[Tree, set[str]], Tree] | None = None
    fixed: Callable[[Tree], Mapping[str, Tensor]] = lambda _: {}


class Settings:
    """Another library's config, read key by key, so that in the end every key has been looked at.

    Keys that only say how a model was trained, generates text or is run are passed over; any other that nobody has
    asked for is a feature that we do not know, and is refused by name.

    Args:
        defaults: what the other library takes where a key is missing; one that is null is null.
    """

    def __init__(self, values: Mapping[str, Any], family: str, defaults: Mapping[str, Any] | None = None) -> None:
        self.values, self.family, self.defaults = values, family, defaults or {}
        self._seen: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) is not None

    def get(self, key: str, default: Any = None) -> Any:
        """The value; the library's default where it is missing; `default` where that says nothing, or it is null."""
        self._seen.add(key)
        value = self.values[key] if key in self.values else self.defaults.get(key)
        if value is None:
            return default
        assert key in MODEL, f"config/foreign.py does not say of which type {key} is"
        require(value, key, MODEL[key], f"this {self.family} config")
        return value

    def skip(self, *keys: str) -> None:
        """Note that these keys are known, and that nothing that they may say changes what is computed."""
        self._seen.update(keys)

    def need(self, key: str) -> Any:
        """The value.

        Raises:
            CheckpointError: it is missing.
        """
        value = self.get(key)
        if value is None:
            raise CheckpointError(f"this {self.family} config has no '{key}'", "Get the whole config.json.")
        return value

    def one_of(self, key: str, known: Mapping[Any, Any], default: Any) -> Any:
        """What `known` says for the value.

        Raises:
            CheckpointError: the value is not known.
        """
        value = self.get(key, default)
        if value not in known:
            raise self.refusal(key, f"supported: {', '.join(map(str, known))}", value)
        return known[value]

    def only(self, key: str, *allowed: Any) -> None:
        """Refuse a config in which `key` is set to anything but `allowed` (or is missing or null)."""
        value = self.get(key, allowed[0])
        if value not in allowed:
            raise self.refusal(key, f"supported: {', '.join(map(repr, allowed))}", value)

    def only_class(self, *names: str) -> None:
        """Refuse a config of another class than these, of which the first is the one that is named."""
        for found in self.get("architectures", ()):
            if found not in names:
                raise self.refusal("architectures", f"supported: {names[0]}", found)

    def refusal(self, key: str, remedy: str, value: Any = None) -> CheckpointError:
        """What to raise where `key` has a value that cannot be expressed (its own, where `value` is left out)."""
        given = self.values.get(key) if value is None else value
        return CheckpointError(
            f"this {self.family} checkpoint has {key} = {given!r}, which sublayer does not support",
            remedy[0].upper() + remedy[1:] + ".",
        )

    def finish(self) -> None:
        """Raise where there is a key that nobody has asked for, and that is not known to be harmless."""
        left = [
            key
            for key, value in self.values.items()
            if key not in self._seen and key not in HARMLESS and value not in (None, False, [], {})
        ]
        if left:
            found = ", ".join(f"{key} = {self.values[key]!r}" for key in left)
            raise CheckpointError(
                f"this {self.family} checkpoint has settings that sublayer does not know: {found}",
                "Take a checkpoint without them.",
            )


HARMLESS = frozenset(
    """
    _attn_implementation _attn_implementation_autoset _commit_hash _name_or_path _num_labels add_cross_attention
    architectures attn_implementation auto_map bad_words_ids begin_suppress_tokens bos_token_id cache_implementation
    chunk_size_feed_forward classifier_dropout_prob cross_attention_hidden_size decoder_start_token_id
    diversity_penalty do_sample dtype early_stopping encoder_no_repeat_ngram_size eos_token_id
    exponential_decay_length_penalty finetuning_task forced_bos_token_id forced_eos_token_id gradient_checkpointing
    id2label initializer_cutoff_factor initializer_factor initializer_range is_decoder is_encoder_decoder label2id
    length_penalty max_length min_length model_type name_or_path no_repeat_ngram_size num_beam_groups num_beams
    num_labels num_return_sequences output_attentions output_hidden_states output_past output_scores pad_token_id
    prefix pretraining_tp problem_type remove_invalid_values repetition_penalty return_dict return_dict_in_generate
    save_step sep_token_id static_position_embeddings suppress_tokens task_specific_params temperature
    tf_legacy_loss tie_encoder_decoder tokenizer_class top_k top_p torch_dtype torchscript transformers.js_config
    transformers_version typical_p unk_token_id use_bfloat16 use_cache
    """.split()  # noqa: SIM905  # A list of so many words would be a page.
)
"""Keys that do not change what a model computes when it is used."""
