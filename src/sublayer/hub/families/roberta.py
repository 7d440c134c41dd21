"""RoBERTa (Liu et al. 2019, https://arxiv.org/abs/1907.11692) and XLM-R: BERT, whose positions are numbered from
one past the padding token's number, as in fairseq.

The rows of the table before the first position belong to nobody; they are kept as they are. transformers numbers
positions by counting the tokens that are not padding, which is the same where padding stands at the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from sublayer import config
from sublayer.hub.families.bert import (
    DEFAULTS,
    OLD_BUFFERS,
    base_names,
    encoder_rules,
    head_dropout,
    read_frame,
    read_norm,
    write_frame,
)
from sublayer.hub.families.heads import (
    BASE,
    head_rules,
    prefix_of,
    read_head,
    read_task,
    settle_pooler,
    task_of,
)
from sublayer.hub.family import Family, Settings, Tree
from sublayer.hub.rules import Rule, affine


def _read(values: Mapping[str, Any], *, name: str, stem: str) -> Tree:
    settings = Settings(values, name, {**DEFAULTS, "vocab_size": 50_265, "pad_token_id": 1})
    task = read_task(settings, stem)
    offset = settings.need("pad_token_id") + 1
    frame = read_frame(settings, offset=offset)
    masked = config.MaskedLanguage(activation="gelu", norm=read_norm(settings))
    head = read_head(settings, task, masked, activation="tanh", dropout=head_dropout)
    tree = config.EncoderOnly(**frame, head=head, pooler=task == BASE)
    settings.finish()
    return tree


def _write(tree: Tree, *, name: str, stem: str) -> dict[str, Any] | None:
    frame = write_frame(tree, name)
    if frame is None:
        return None
    assert isinstance(tree, config.EncoderOnly)
    position = tree.encoder.position
    if not isinstance(position, config.Learned) or position.offset == 0:
        return None  # BERT says better what such a model is
    return {"architectures": [stem + task_of(tree.head)], **frame, "pad_token_id": position.offset - 1}


def _rules(tree: Tree) -> list[Rule]:
    assert isinstance(tree, config.EncoderOnly)
    prefix = prefix_of(tree, "roberta")
    found = encoder_rules(tree, prefix)
    if tree.pooler:
        found += affine("pooler", f"{prefix}pooler.dense")
    masked = ("lm_head.dense", "lm_head.layer_norm", "lm_head.bias")
    return found + head_rules(tree.head, masked, transform="classifier.dense", labels="classifier.out_proj")


def _ties(tree: Tree) -> dict[str, str]:
    return {
        "lm_head.decoder.weight": f"{prefix_of(tree, 'roberta')}embeddings.word_embeddings.weight",
        "lm_head.decoder.bias": "lm_head.bias",
    }


def _family(name: str, stem: str) -> Family:
    return Family(
        name=name,
        read=partial(_read, name=name, stem=stem),
        write=partial(_write, name=name, stem=stem),
        rules=_rules,
        ties=_ties,
        settle=settle_pooler,
        older=base_names("roberta"),
        ignored=(OLD_BUFFERS,),
        apart=(r"(roberta\.)?pooler\.dense\.(weight|bias)", r"lm_head\..*"),
        masked=(f"{stem}ForMaskedLM", "lm_head.dense.weight"),
    )


ROBERTA = _family("roberta", "Roberta")
XLM_ROBERTA = _family("xlm-roberta", "XLMRoberta")
