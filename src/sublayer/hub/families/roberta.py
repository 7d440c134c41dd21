"""RoBERTa (Liu et al. 2019, https://arxiv.org/abs/1907.11692) and XLM-R: BERT, whose positions are numbered from
one past the padding token's number, as in fairseq.

The rows of the table before the first position belong to nobody; they are kept as they are. transformers numbers
positions by counting the tokens that are not padding, which is the same where padding stands at the end.
"""

from __future__ import annotations

from typing import Any

from sublayer import config
from sublayer.hub.families import bert
from sublayer.hub.families.heads import BASE, encoder_family, head_rules, projection_ties, read_head, settle_pooler
from sublayer.hub.family import Family, Settings
from sublayer.hub.rules import Rule


def _read(settings: Settings, task: str, tree: dict[str, Any]) -> None:
    bert.require_bert(settings)
    offset = settings.need("pad_token_id") + 1
    tree["max_length"] -= offset
    tree["encoder"]["position"]["offset"] = offset
    masked = config.MaskedLanguage(activation="gelu", norm=bert.read_norm(settings))
    dropout = bert.labels_dropout(settings)
    tree["head"] = read_head(settings, task, masked, text={"activation": "tanh", **dropout}, word=dropout)
    tree["pooler"] = task == BASE


def _write(tree: config.EncoderOnly, frame: dict[str, Any]) -> dict[str, Any] | None:
    position = tree.encoder.position
    if not isinstance(position, config.Learned) or position.offset == 0:
        return None  # BERT says better what such a model is
    return bert.write_bert(tree, frame) | {"pad_token_id": position.offset - 1}


def _rules(tree: config.EncoderOnly, prefix: str) -> list[Rule]:
    masked = ("lm_head.dense", "lm_head.layer_norm", "lm_head.bias")
    head = head_rules(tree.head, masked, transform="classifier.dense", labels="classifier.out_proj")
    return bert.encoder_rules(tree, prefix) + head


def _family(name: str, stem: str) -> Family:
    return encoder_family(
        name,
        stem,
        "roberta",
        bert.KEYS,
        bert.FORM,
        _read,
        _rules,
        defaults={"vocab_size": 50_265, "pad_token_id": 1},
        write=_write,
        ties=projection_ties("lm_head.decoder", "lm_head.bias"),
        settle=settle_pooler,
        ignored=(bert.OLD_BUFFERS,),
        apart=(r"(roberta\.)?pooler\.dense\.(weight|bias)", r"lm_head\..*"),
        masked=(f"{stem}ForMaskedLM", "lm_head.dense.weight"),
    )


ROBERTA = _family("roberta", "Roberta")
XLM_ROBERTA = _family("xlm-roberta", "XLMRoberta")
