"""A tokenizer as the ecosystem's files, such that `transformers.AutoTokenizer` gives the same ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sublayer.errors import InputError
from sublayer.files import write_json, write_text
from sublayer.text.specials import ROLES, described
from sublayer.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend


def export(
    tokenizer: Tokenizer,
    folder: Path,
    *,
    max_length: int | None = None,
    token_type_ids: bool = True,
    side: Literal["left", "right"] = "right",
) -> None:
    """Writes tokenizer.json, tokenizer_config.json, special_tokens_map.json, and chat_template.jinja if there is one.

    Several chat templates stand in tokenizer_config.json by their names.

    `transformers` then puts around texts what `encode_with_special_tokens` does; give it another template first
    (`Tokenizer.replace`) where the model was trained with affixes that its caller put.

    Args:
        max_length: the longest text that the model takes, in tokens.
        token_type_ids: whether the model reads kinds of tokens; one that does not refuses them.
        side: on which side shorter texts are filled up; of a model that goes on from texts, the left.

    Raises:
        InputError: the tokenizer has pieces outside its vocabulary (Marian's, `Tokenizer`'s `size`), which the format
            cannot say.
        StorageError: the disk refused.
    """
    if tokenizer.vocab_size < tokenizer.backend.get_vocab_size(with_added_tokens=True):
        raise InputError(
            "this tokenizer cuts text into pieces that its vocabulary does not have, and tokenizer.json cannot say so",
            "Take the original's files (source.spm, target.spm, vocab.json) along instead.",
        )
    roles = tokenizer.specials.roles
    named: dict[str, Any] = {
        key: tokenizer.token(roles[field]) for key, field in ROLES.items() if roles.get(field) is not None
    }
    taken = set(named.values())
    others = (*tokenizer.specials.extra, *(identifier for _, identifier in tokenizer.specials.languages))
    extra = [token for token in map(tokenizer.token, others) if token not in taken]
    if extra:
        named["additional_special_tokens"] = extra
    folder.mkdir(parents=True, exist_ok=True)
    backend = _finding_masks(tokenizer)
    write_text(folder / "tokenizer.json", backend.to_str(pretty=True))
    write_json(folder / "special_tokens_map.json", named)
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **named,
        "added_tokens_decoder": _added(backend),
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", *(["token_type_ids"] if token_type_ids else []), "attention_mask"],
        "padding_side": side,
    }
    if max_length is not None:
        config["model_max_length"] = max_length
    if isinstance(tokenizer.chat_template, str):
        config["chat_template"] = tokenizer.chat_template
        write_text(folder / "chat_template.jinja", tokenizer.chat_template)
    elif tokenizer.chat_template is not None:
        config["chat_template"] = [
            {"name": name, "template": source} for name, source in tokenizer.chat_template.items()
        ]
    write_json(folder / "tokenizer_config.json", config)


def _finding_masks(tokenizer: Tokenizer) -> Backend:
    """The backend as other libraries read masks with it: a mask is looked for in the text with its first space put on.

    They otherwise cut the text at the mask first and put a space before each part, so that "a <mask>." would get a
    space before its full stop that no text of the training has.
    """
    from tokenizers import Tokenizer as Backend

    mask = tokenizer.specials.mask
    if mask is None or "Prepend" not in json.dumps(described(tokenizer.backend.normalizer)):
        return tokenizer.backend
    plain = json.loads(tokenizer.backend.to_str())
    for added in plain["added_tokens"]:
        if added["id"] == mask:
            added["normalized"] = True
    return Backend.from_str(json.dumps(plain))


def _added(backend: Backend) -> dict[str, dict[str, Any]]:
    flags = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    return {
        str(identifier): {flag: getattr(token, flag) for flag in flags}
        for identifier, token in sorted(backend.get_added_tokens_decoder().items())
    }
