"""ELECTRA (Clark et al. 2020, https://arxiv.org/abs/2003.10555): BERT, its embeddings of another width than the stream.

What is pretrained is a discriminator: it says of each token whether it has been replaced, one score a token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sublayer import config
from sublayer.hub.families.bert import (
    DEFAULTS,
    OLD_BUFFERS,
    OLD_NAMES,
    base_names,
    encoder_rules,
    head_dropout,
    read_frame,
    write_frame,
)
from sublayer.hub.families.heads import head_rules, prefix_of, read_head, read_task, task_of, transform_rules
from sublayer.hub.families.parts import ACTIVATIONS
from sublayer.hub.family import Family, Settings, Tree
from sublayer.hub.rules import Rule, affine

DISCRIMINATOR = "ForPreTraining"
REPLACED = ("replaced",)


def _read(values: Mapping[str, Any]) -> Tree:
    settings = Settings(
        values,
        "electra",
        {**DEFAULTS, "embedding_size": 128, "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024},
    )
    task = read_task(settings, "Electra", DISCRIMINATOR)
    if task == "ForMaskedLM":
        raise settings.refusal("architectures", "supported: the discriminator, and what is fine-tuned from it")
    # Of the head for multiple choice.
    settings.skip("summary_type", "summary_use_proj", "summary_activation", "summary_last_dropout")
    width, dim = settings.need("embedding_size"), settings.need("hidden_size")
    frame = read_frame(settings, width=None if width == dim else width)
    if task == DISCRIMINATOR:
        activation = settings.one_of("hidden_act", ACTIVATIONS, "gelu")
        head: config.Head = config.Tagging(labels=REPLACED, activation=activation)
    else:
        head = read_head(settings, task, None, activation="gelu", dropout=head_dropout)
    tree = config.EncoderOnly(**frame, head=head)
    settings.finish()
    return tree


def _write(tree: Tree) -> dict[str, Any] | None:
    frame = write_frame(tree, "electra")
    if frame is None:
        return None
    assert isinstance(tree, config.EncoderOnly)
    width = tree.dim if tree.embedding.width is None else tree.embedding.width
    return {"architectures": ["Electra" + _task_of(tree.head)], **frame, "embedding_size": width}


def _task_of(head: config.Head) -> str:
    discriminates = isinstance(head, config.Tagging) and head.activation is not None
    return DISCRIMINATOR if discriminates else task_of(head)


def _rules(tree: Tree) -> list[Rule]:
    assert isinstance(tree, config.EncoderOnly)
    found = encoder_rules(tree, prefix_of(tree, "electra"))
    if _task_of(tree.head) == DISCRIMINATOR:
        found += transform_rules(tree.head, "discriminator_predictions.dense")
        return found + affine("head.labels", "discriminator_predictions.dense_prediction")
    return found + head_rules(tree.head, None, transform="classifier.dense", labels="classifier.out_proj")


ELECTRA = Family(
    name="electra",
    read=_read,
    write=_write,
    rules=_rules,
    older=(*OLD_NAMES, *base_names("electra")),
    ignored=(OLD_BUFFERS,),
    apart=(r"(discriminator|generator)_predictions\..*", r"generator_lm_head\..*"),
)
