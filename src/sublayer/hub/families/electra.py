"""ELECTRA (Clark et al. 2020, https://arxiv.org/abs/2003.10555): BERT, its embeddings of another width than the stream.

What is pretrained is a discriminator: it says of each token whether it has been replaced, one score a token.
"""

from __future__ import annotations

from typing import Any

from sublayer import config
from sublayer.hub.families import bert
from sublayer.hub.families.heads import encoder_family, head_rules, read_head, transform_rules
from sublayer.hub.family import Settings
from sublayer.hub.rules import Rule, affine

DISCRIMINATOR = "ForPreTraining"
REPLACED = ("replaced",)


def _read(settings: Settings, task: str, tree: dict[str, Any]) -> None:
    if task == "ForMaskedLM":
        raise settings.refusal("architectures", "supported: the discriminator, and what is fine-tuned from it")
    # Of the head for multiple choice.
    settings.skip("summary_type", "summary_use_proj", "summary_activation", "summary_last_dropout")
    bert.require_bert(settings)
    width = settings.need("embedding_size")
    tree["embedding"]["width"] = None if width == tree["dim"] else width
    if task == DISCRIMINATOR:
        activation = tree["encoder"]["block"]["feed_forward"]["activation"]
        tree["head"] = config.Tagging(labels=REPLACED, activation=activation)
    else:
        dropout = bert.labels_dropout(settings)
        tree["head"] = read_head(settings, task, None, text={"activation": "gelu", **dropout}, word=dropout)


def _write(tree: config.EncoderOnly, frame: dict[str, Any]) -> dict[str, Any]:
    width = tree.dim if tree.embedding.width is None else tree.embedding.width
    said = {"architectures": [f"Electra{DISCRIMINATOR}"]} if _discriminates(tree.head) else {}
    return {**said, **bert.write_bert(tree, frame), "embedding_size": width}


def _discriminates(head: config.Head) -> bool:
    return isinstance(head, config.Tagging) and head.activation is not None


def _rules(tree: config.EncoderOnly, prefix: str) -> list[Rule]:
    found = bert.encoder_rules(tree, prefix)
    if _discriminates(tree.head):
        found += transform_rules(tree.head, "discriminator_predictions.dense")
        return found + affine("head.labels", "discriminator_predictions.dense_prediction")
    return found + head_rules(tree.head, None, transform="classifier.dense", labels="classifier.out_proj")


ELECTRA = encoder_family(
    "electra",
    "Electra",
    "electra",
    bert.KEYS,
    bert.FORM,
    _read,
    _rules,
    defaults={"embedding_size": 128, "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024},
    write=_write,
    others=(DISCRIMINATOR,),
    older=bert.OLD_NAMES,
    ignored=(bert.OLD_BUFFERS,),
    apart=(r"(discriminator|generator)_predictions\..*", r"generator_lm_head\..*"),
)
