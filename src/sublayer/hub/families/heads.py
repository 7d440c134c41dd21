"""What the readers and writers of encoder families share: which head a config names, and its labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from sublayer import config
from sublayer.hub.family import Family, Settings, Tree
from sublayer.hub.keys import Key, defaults_of, read_keys, write_keys
from sublayer.hub.rules import Rule, affine, affine_joined, same

T = TypeVar("T")

BASE, MASKED, TEXT, TOKEN = "Model", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification"
"""How transformers' classes end, by their head."""


def read_task(settings: Settings, stem: str, *others: str) -> str:
    """The end of the class that stands in `architectures`, which says the head; a config without any has none.

    Args:
        stem: what the family's classes begin with. others: ends that this family knows besides the usual four.

    Raises:
        CheckpointError: it is another class.
    """
    settings.skip("tie_word_embeddings")  # matters to the head of masked language alone, which asks for it again
    known = {stem + task: task for task in (BASE, MASKED, TEXT, TOKEN, *others)}
    named = settings.get("architectures") or [stem + BASE]
    if len(named) != 1 or named[0] not in known:
        raise settings.refusal("architectures", f"supported: {', '.join(known)}", named)
    return known[named[0]]


def task_of(head: config.Head) -> str:
    """The end of the class that has this head."""
    match head:
        case config.MaskedLanguage():
            return MASKED
        case config.Classification():
            return TEXT
        case config.Tagging():
            return TOKEN
        case config.NoHead() | config.SentenceEmbedding():
            return BASE


def encoder_family(
    name: str,
    stem: str,
    prefix: str,
    keys: Sequence[Key],
    form: Mapping[str, Any],
    read: Callable[[Settings, str, dict[str, Any]], None],
    rules: Callable[[config.EncoderOnly, str], list[Rule]],
    *,
    defaults: Mapping[str, Any] | None = None,
    write: Callable[[config.EncoderOnly, dict[str, Any]], dict[str, Any] | None] = lambda tree, frame: frame,
    ties: Callable[[config.EncoderOnly, str], Mapping[str, str]] = lambda tree, before: {},
    others: Sequence[str] = (),
    older: tuple[tuple[str, str], ...] = (),
    **more: Any,
) -> Family:
    """A family of encoders, each with the head that its class says.

    Args:
        name: `model_type`. stem: what its classes begin with; others: how they end besides the usual four.
        prefix: what stands before the encoder's names, with a dot, where there is a head beside it, and may stand there
            where there is none.
        keys, form: its settings, and the tree without them (`hub/keys.py`). defaults: of its library, beside the keys'.
        read: adds what no key says, given the task, to the tree as plain data: its head, say. write: the tree and what
            its keys say -> the settings but for the labels; None where there are no words for it.
        rules, ties: as in `Family`; both are given what stands before the encoder's names in this tree.
        older, more: as in `Family`.
    """

    def read_tree(values: Mapping[str, Any]) -> Tree:
        settings = Settings(values, name, {**defaults_of(keys), **(defaults or {})})
        task = read_task(settings, stem, *others)
        tree = read_keys(settings, keys, form)
        read(settings, task, tree)
        settings.finish()
        return config.EncoderOnly.model_validate(tree)

    def write_tree(tree: Tree) -> dict[str, Any] | None:
        if not isinstance(tree, config.EncoderOnly) or (found := write(tree, write_keys(tree, keys))) is None:
            return None
        said = {"architectures": [stem + task_of(tree.head)], "model_type": name}
        return {**said, **found, **write_labels(tree.head)}

    def placed(said: Callable[[config.EncoderOnly, str], T]) -> Callable[[Tree], T]:
        def of(tree: Tree) -> T:
            assert isinstance(tree, config.EncoderOnly)
            return said(tree, "" if task_of(tree.head) == BASE else f"{prefix}.")

        return of

    base = (rf"^{prefix}\.", "")
    return Family(name, read_tree, write_tree, placed(rules), placed(ties), older=(*older, base), **more)


def read_labels(settings: Settings) -> tuple[str, ...]:
    """The labels, by their numbers; transformers has two where a config is silent."""
    table: Mapping[str, str] | None = settings.get("id2label")
    if table is None:
        count = settings.get("num_labels") or settings.get("_num_labels") or 2
        return tuple(f"LABEL_{number}" for number in range(count))
    numbers = sorted(int(number) for number in table)
    if numbers != list(range(len(numbers))):
        raise settings.refusal("id2label", "its numbers have to be 0, 1, 2, …")
    count = settings.get("num_labels")
    if count is not None and count != len(numbers):
        raise settings.refusal("num_labels", f"id2label names {len(numbers)} labels: make one agree with the other")
    by_number = {int(number): str(label) for number, label in table.items()}
    return tuple(by_number[number] for number in numbers)


PROBLEMS: Mapping[str, config.Problem] = {
    "single_label_classification": "single-label",
    "multi_label_classification": "multi-label",
    "regression": "regression",
}
"""What transformers calls the meaning of a text's scores (`problem_type`)."""


def write_labels(head: config.Head) -> dict[str, Any]:
    """`id2label` and its inverse, where the head has labels, and `problem_type`, where it is not the usual one."""
    named = {ours: theirs for theirs, ours in PROBLEMS.items()}
    said = head.problem if isinstance(head, config.Classification) else "single-label"
    labels: Sequence[str] = head.labels if isinstance(head, config.Classification | config.Tagging) else ()
    if not labels:
        return {}
    return {
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "label2id": {label: number for number, label in enumerate(labels)},
        **({} if said == "single-label" else {"problem_type": named[said]}),
    }


def read_head(
    settings: Settings,
    task: str,
    masked: config.MaskedLanguage | None,
    *,
    text: Mapping[str, Any],
    word: Mapping[str, Any],
) -> config.Head:
    """The head that `task` names.

    Args:
        masked: that of masked language; None in a family without it. text, word: of the heads that give labels to a
            text and to each word, all but the labels and what they mean.
    """
    match task:
        case "ForMaskedLM":
            assert masked is not None, "the family has no such head"
            settings.only("tie_word_embeddings", masked.tied)
            return masked
        case "ForSequenceClassification":
            problem = settings.one_of("problem_type", PROBLEMS, "single_label_classification")
            return config.Classification(labels=read_labels(settings), problem=problem, **text)
        case "ForTokenClassification":
            return config.Tagging(labels=read_labels(settings), **word)
        case _:
            return config.NoHead()


def head_rules(
    head: config.Head,
    masked: tuple[str, str, str] | None,
    *,
    transform: str = "",
    norm: str = "",
    labels: str = "classifier",
) -> list[Rule]:
    """The tensors of a head.

    Args:
        masked: of masked language the map and the norm before the projection, and the projection's bias. transform,
            norm: the layer before labels. labels: the map to a text's labels; that to a token's is the "classifier".
    """
    match head:
        case config.MaskedLanguage() if masked is not None:
            bias = [same("output.bias", masked[2])] if head.output_bias else []
            return [*transform_rules(head, *masked[:2]), *bias]
        case config.Classification() | config.Tagging():
            last = labels if isinstance(head, config.Classification) else "classifier"
            return [*transform_rules(head, transform, norm), *affine("head.labels", last)]
        case _:
            return []


def projection_ties(projection: str, bias: str = "") -> Callable[[config.EncoderOnly, str], Mapping[str, str]]:
    """What a checkpoint holds twice beside a masked-language head: the projection's matrix, and its bias if `bias` is
    the other name of it."""

    def ties(_: config.EncoderOnly, prefix: str) -> Mapping[str, str]:
        weight = {f"{projection}.weight": f"{prefix}embeddings.word_embeddings.weight"}
        return weight | {f"{projection}.bias": bias} if bias else weight

    return ties


def transform_rules(head: config.Head, theirs: str, norm: str = "") -> list[Rule]:
    """The layer between the encoder and what is read off it: the tensors of its map and, where it has one, its norm."""
    assert isinstance(head, config.MaskedLanguage | config.Classification | config.Tagging)
    if head.activation is None:
        return []
    found = affine("head.transform.map", theirs, bias=head.bias)
    return found if head.norm is None else [*found, *norm_rules("head.transform.norm", norm, head.norm)]


def norm_rules(ours: str, theirs: str, norm: config.Norm) -> list[Rule]:
    """Weight and, where it has one, bias of a norm."""
    return affine(ours, theirs, bias=isinstance(norm, config.LayerNorm) and norm.bias)


def apart_rules(
    block: config.Block, dim: int, qkv: Sequence[str], output: str, norm: str, up: str, down: str, last_norm: str
) -> list[Rule]:
    """A layer of self-attention and a position-wise network, [D, D] of queries, keys and values each, ours [3 D, D]."""
    placed = "outer" if block.norm_placement == "post" else "before"
    return [
        *affine_joined("self_attention.qkv", qkv, [dim] * 3),
        *affine("self_attention.output", output),
        *norm_rules(f"self_attention_sublayer.{placed}", norm, block.norm),
        *affine("feed_forward.up", up),
        *affine("feed_forward.down", down),
        *norm_rules(f"feed_forward_sublayer.{placed}", last_norm, block.norm),
    ]


def settle_pooler(tree: Tree, names: set[str]) -> Tree:
    """A base model has a pooler if there are tensors for one: no config says it."""
    assert isinstance(tree, config.EncoderOnly)
    if task_of(tree.head) != BASE:
        return tree
    return tree.model_copy(update={"pooler": any(name.endswith("pooler.dense.weight") for name in names)})
