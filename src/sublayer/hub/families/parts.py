"""What the readers and writers of decoder families share: activations, the frame of the tree, windows by layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sublayer import config
from sublayer.hub.canonical import stack_of
from sublayer.hub.families.heads import norm_rules
from sublayer.hub.family import Family, Settings, Tree
from sublayer.hub.rules import Rule, affine, prefixed, same

ACTIVATIONS: Mapping[str, config.Activation] = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}
ACTIVATION_NAMES: Mapping[config.Activation, str] = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_tanh": "gelu_pytorch_tanh",
    "silu": "silu",
    "tanh": "tanh",
}
OLD_ACTIVATION_NAMES: Mapping[config.Activation, str] = {**ACTIVATION_NAMES, "gelu_tanh": "gelu_new"}
"""As the libraries of GPT-2 and T5 spell them."""


def decoder_only(
    settings: Settings,
    blocks: Sequence[config.Block],
    position: config.Position,
    *,
    dim_key: str = "hidden_size",
    length_key: str = "max_position_embeddings",
    **others: Any,
) -> config.DecoderOnly:
    """The tree around the blocks; `others` are fields of it that this config sets. Looks whether all keys are known.

    Raises:
        CheckpointError: a key is left that nobody has asked for.
    """
    tree = config.DecoderOnly(
        dim=settings.need(dim_key),
        vocab_size=settings.need("vocab_size"),
        max_length=settings.need(length_key),
        tied=settings.get("tie_word_embeddings", True),
        decoder=stack_of(list(blocks), position),
        **others,
    )
    settings.finish()
    return tree


def read_windows(settings: Settings, window: int | None, otherwise: Sequence[bool]) -> list[int | None]:
    """The window of each layer, None where it sees everything.

    Args:
        window: of the layers that `layer_types` calls "sliding_attention".
        otherwise: which layers have it, where there is no `layer_types`.
    """
    kinds = {"full_attention": False, "sliding_attention": True}
    found = settings.get("layer_types")
    if found is None:
        windowed = list(otherwise)
    else:
        if any(kind not in kinds for kind in found) or len(found) != len(otherwise):
            raise settings.refusal("layer_types", f"supported: {' and '.join(kinds)}, one for each layer")
        windowed = [kinds[kind] for kind in found]
    if window is None and found is not None and any(windowed):
        raise settings.refusal("layer_types", "with 'sliding_attention' there must be a sliding_window")
    return [window if has else None for has in windowed]


def write_windows(blocks: Sequence[config.Block], unused: int | None = None) -> dict[str, Any]:
    """`sliding_window` and `layer_types`; `unused` is the window that is written where no layer has one."""
    windows = [block.attention.window for block in blocks]
    return {
        "sliding_window": next((window for window in windows if window is not None), unused),
        "layer_types": ["full_attention" if window is None else "sliding_attention" for window in windows],
    }


def with_windows(
    block: config.Block, windows: Sequence[int | None], nearby: config.Rotary | None = None
) -> list[config.Block]:
    """The block once for each window; `nearby` are the positions of those layers that have one."""
    return [
        block.model_copy(
            update={
                "attention": block.attention.model_copy(update={"window": window}),
                "position": None if window is None else nearby,
            }
        )
        for window in windows
    ]


# --- tensors -----------------------------------------------------------------------------------------------------

LayerRules = Callable[[config.Block, int], Sequence[Rule]]
"""The tensors of a layer in a model of width D, without prefixes."""


@dataclass(frozen=True)
class Names:
    """What a decoder's tensors are called that stand beside its layers, and what stands before a layer's number.

    position: the table of positions, where there is one.
    """

    embedding: str
    norm: str
    output: str
    layers: str
    position: str = ""

    def rules(self, tree: Tree, layer: LayerRules) -> list[Rule]:
        assert isinstance(tree, config.DecoderOnly)
        found = [same("decoder.embedding.tokens.weight", f"{self.embedding}.weight")]
        if self.position:
            found.append(same("decoder.position.weight", f"{self.position}.weight"))
        found += norm_rules("decoder.norm", self.norm, tree.decoder.block.norm)
        if not tree.tied:
            found += affine("output", self.output, bias=tree.output_bias)
        for index, block in enumerate(tree.decoder.blocks):
            found += prefixed(f"decoder.layers.{index}.", f"{self.layers}.{index}.", layer(block, tree.dim))
        return found

    def ties(self, tree: Tree) -> dict[str, str]:
        """A checkpoint may hold the projection even where it is the embedding."""
        assert isinstance(tree, config.DecoderOnly)
        return {f"{self.output}.weight": f"{self.embedding}.weight"} if tree.tied else {}


def decoder_family(
    name: str,
    architecture: str,
    defaults: Mapping[str, Any],
    read: Callable[[Settings], Tree],
    write: Callable[[config.DecoderOnly], dict[str, Any] | None],
    names: Names,
    layer: LayerRules,
    **more: Any,
) -> Family:
    """A family of language models; one with another head is refused by name.

    Args:
        name: `model_type`. architecture: the class that stands in `architectures`; a config without any is taken for
            it. defaults: what its config has where a key is missing.
        read: the settings -> the tree. write: the tree -> the settings but for the class, the vocabulary and whether
            the projection is tied; None where there are no words for it.
        names, layer: of the tensors beside the layers, and of those in a layer. more: as in `Family`.
    """

    def read_tree(values: Mapping[str, Any]) -> Tree:
        settings = Settings(values, name, defaults)
        for found in settings.get("architectures", ()):
            if found != architecture:
                raise settings.refusal("architectures", f"supported: {architecture}", found)
        settings.only("is_encoder_decoder", False)
        settings.only("add_cross_attention", False)
        return read(settings)

    def write_tree(tree: Tree) -> dict[str, Any] | None:
        if not isinstance(tree, config.DecoderOnly) or (found := write(tree)) is None:
            return None
        said = {"architectures": [architecture], "model_type": name, "vocab_size": tree.vocab_size}
        return {**said, "tie_word_embeddings": tree.tied, **found}

    return Family(name, read_tree, write_tree, lambda tree: names.rules(tree, layer), names.ties, **more)


def fused_heads(attention: config.Attention, dim: int) -> list[int]:
    """Which row of theirs is row i of ours, where one matrix holds each group's queries, then its key, then its value.

    Ours has all queries, all keys, all values; H heads in G groups, r = H / G queries a group, each head of width d.
    """
    groups, width = attention.key_value_heads, attention.width(dim)
    queries = attention.heads // groups
    firsts = [group * (queries + 2) for group in range(groups)]
    heads = [first + query for first in firsts for query in range(queries)]
    heads += [first + queries for first in firsts] + [first + queries + 1 for first in firsts]
    return [head * width + row for head in heads for row in range(width)]
