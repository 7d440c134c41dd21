"""Folders of sentence-transformers: an encoder, and beside it what makes one vector of its output.

    modules.json                    which modules there are, in order, and where
    sentence_bert_config.json       the length that texts are cut to
    1_Pooling/config.json           how the tokens' vectors become one

Transformer, Pooling and Normalize are our `SentenceEmbedding` head; any other module is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from sublayer import config
from sublayer.errors import CheckpointError
from sublayer.files import write_json
from sublayer.hub.family import Settings, Tree
from sublayer.hub.sources import AGAIN
from sublayer.untrusted import read_json, read_object

POOLING: Mapping[str, config.Pooling] = {"cls": "class", "mean": "mean", "max": "max", "lasttoken": "last"}
FLAGS: Mapping[str, str] = {"cls": "cls_token", "mean": "mean_tokens", "max": "max_tokens", "lasttoken": "lasttoken"}
OTHER_FLAGS = ("mean_sqrt_len_tokens", "weightedmean_tokens")


@dataclass(frozen=True)
class SentenceFolder:
    """transformer: where the encoder's own files lie. head: what the other modules are."""

    transformer: Path
    head: config.SentenceEmbedding


def read_modules(folder: Path) -> SentenceFolder | None:
    """What modules.json says, or None where there is none.

    Raises:
        CheckpointError: a module or a setting of one is not supported, or a file is missing or damaged.
    """
    if not (folder / "modules.json").is_file():
        return None
    modules = _modules(folder / "modules.json")
    kinds = [kind for kind, _ in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise CheckpointError(
            f"{folder} is made of the modules {', '.join(kinds)}",
            "Supported: Transformer, Pooling, and after them Normalize or nothing.",
        )
    transformer, pooling = (folder / path for _, path in modules[:2])
    _refuse_prompts(folder)
    return SentenceFolder(
        transformer,
        config.SentenceEmbedding(
            pooling=_read_pooling(pooling / "config.json"),
            normalize="Normalize" in kinds,
            longest=_read_longest(transformer),
        ),
    )


def with_head(tree: Tree, head: config.SentenceEmbedding) -> Tree:
    """The encoder's tree with this head on it.

    Raises:
        CheckpointError: it is no encoder.
    """
    if not isinstance(tree, config.EncoderOnly):
        raise CheckpointError(
            f"this folder makes sentence embeddings with a {tree.kind} model", "Supported: encoder-only models."
        )
    # Their library cuts texts in any case, at the latest where the positions end.
    longest = tree.max_length if head.longest is None else min(head.longest, tree.max_length)
    return tree.model_copy(update={"head": head.model_copy(update={"longest": longest})})


def write_modules(folder: Path, head: config.SentenceEmbedding, dim: int) -> None:
    """The files beside the encoder's, from which `read_modules` reads the same head."""
    names = ["Transformer", "Pooling", *(["Normalize"] if head.normalize else [])]
    modules = [
        {
            "idx": number,
            "name": str(number),
            "path": f"{number}_{name}" if number else "",
            "type": f"sentence_transformers.models.{name}",
        }
        for number, name in enumerate(names)
    ]
    write_json(folder / "modules.json", modules)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": head.longest, "do_lower_case": False})
    how = next(name for name, pooling in POOLING.items() if pooling == head.pooling)
    flags = {f"pooling_mode_{FLAGS[name]}": name == how for name in POOLING}
    flags |= {f"pooling_mode_{name}": False for name in OTHER_FLAGS}
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": dim, **flags})


def _modules(path: Path) -> list[tuple[str, str]]:
    """The kind and the folder of each module."""
    try:
        found = cast("Sequence[Mapping[str, Any]]", read_json(path))
        modules = [(str(module["type"]).rpartition(".")[2], str(module["path"])) for module in found]
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged ({error})", AGAIN) from None
    for _, place in modules:
        if Path(place).is_absolute() or ".." in Path(place).parts:
            raise CheckpointError(f"{path} names a module outside its folder: {place}", AGAIN)
    return modules


def _read_pooling(path: Path) -> config.Pooling:
    settings = Settings(read_object(path), "Pooling")
    settings.skip("word_embedding_dimension", "embedding_dimension")
    settings.only("include_prompt", True)
    for name in OTHER_FLAGS:
        settings.only(f"pooling_mode_{name}", False)
    chosen = [name for name, flag in FLAGS.items() if settings.get(f"pooling_mode_{flag}", False)]
    if "pooling_mode" in settings:
        chosen = [settings.get("pooling_mode")]
    settings.finish()
    if len(chosen) != 1 or chosen[0] not in POOLING:
        raise CheckpointError(
            f"{path} asks for the poolings {', '.join(map(str, chosen)) or 'none'}",
            f"Supported: one of {', '.join(POOLING)}.",
        )
    return POOLING[chosen[0]]


def _read_longest(transformer: Path) -> int | None:
    """The length that texts are cut to: the folder's own, or else the tokenizer's."""
    named = sorted(transformer.glob("sentence_*_config.json"))
    own = Settings(read_object(named[0]), "Transformer") if named else Settings({}, "Transformer")
    tokenizer_file = transformer / "tokenizer_config.json"
    tokenizer = read_object(tokenizer_file) if tokenizer_file.is_file() else {}
    if own.get("do_lower_case", False) and not tokenizer.get("do_lower_case", False):
        raise own.refusal("do_lower_case", "supported: a tokenizer that does it itself")
    longest = own.get("max_seq_length", tokenizer.get("model_max_length"))
    own.skip("model_args", "tokenizer_args", "config_args", "cache_dir")
    own.finish()
    # Tokenizers without a limit of their own are written with an enormous one.
    return longest if isinstance(longest, int) and longest < 10**9 else None


def _refuse_prompts(folder: Path) -> None:
    """A prompt that is put before every text would have to be put there by whoever embeds."""
    path = folder / "config_sentence_transformers.json"
    name = read_object(path).get("default_prompt_name") if path.is_file() else None
    if name is not None:
        raise CheckpointError(
            f"{path} has default_prompt_name = {name!r}, which sublayer does not support",
            "Put the prompt before the texts yourself, and set default_prompt_name to null.",
        )
