"""What the readers and writers of decoder families share: activations, the frame of the tree, windows by layer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sublayer import config
from sublayer.hub.canonical import stack_of
from sublayer.hub.families.heads import norm_rules
from sublayer.hub.families.rope import write_rotary
from sublayer.hub.family import Family, Settings, Tree
from sublayer.hub.keys import Key, defaults_of, read_keys, write_keys
from sublayer.hub.rules import Rule, affine, numbered, permuted, same

ACTIVATIONS: Mapping[str, config.Activation] = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "swish": "silu",
    "silu": "silu",
    "tanh": "tanh",
}
ACTIVATION_NAMES: Mapping[config.Activation, str] = {ours: theirs for theirs, ours in ACTIVATIONS.items()}
"""Of several names for one the last."""
OLD_ACTIVATION_NAMES: Mapping[config.Activation, str] = {**ACTIVATION_NAMES, "gelu_tanh": "gelu_new"}
"""As the libraries of GPT-2 and T5 spell them."""


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


def usual_block(tree: Mapping[str, Any]) -> config.Block:
    """The block of all layers, of a tree as plain data."""
    return config.Block.model_validate(tree["decoder"]["block"])


def put_blocks(tree: dict[str, Any], blocks: Sequence[config.Block]) -> None:
    """Let these be the layers of a tree as plain data."""
    tree["decoder"] = stack_of(list(blocks), tree["decoder"]["position"])


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


def put_windows(
    settings: Settings,
    tree: dict[str, Any],
    window: int | None,
    otherwise: Sequence[bool],
    nearby: config.Rotary | None = None,
) -> None:
    """Let some layers of a tree as plain data have a window; as `read_windows` and `with_windows`."""
    put_blocks(tree, with_windows(usual_block(tree), read_windows(settings, window, otherwise), nearby))


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
        layers = (layer(block, tree.dim) for block in tree.decoder.blocks)
        return [*found, *numbered("decoder.layers.{}.", self.layers + ".{}.", layers)]

    def ties(self, tree: Tree) -> dict[str, str]:
        """A checkpoint may hold the projection even where it is the embedding."""
        assert isinstance(tree, config.DecoderOnly)
        return {f"{self.output}.weight": f"{self.embedding}.weight"} if tree.tied else {}


def decoder_family(
    name: str,
    architecture: str,
    keys: Sequence[Key],
    form: Mapping[str, Any],
    parts: Collection[type],
    names: Names,
    layer: LayerRules,
    *,
    defaults: Mapping[str, Any] | None = None,
    rotary: Callable[[Settings], config.Rotary] | None = None,
    read: Callable[[Settings, dict[str, Any]], None] = lambda settings, tree: None,
    write: Callable[[config.DecoderOnly, dict[str, Any]], dict[str, Any] | None] = lambda tree, frame: frame,
    **more: Any,
) -> Family:
    """A family of language models; one with another head is refused by name.

    Args:
        name: `model_type`. architecture: the class that stands in `architectures`; a config without any is taken for
            it.
        keys, form: its settings, and the tree without them (`hub/keys.py`). defaults: of its library, beside the keys'.
        parts: classes that its norm, feed-forward network and positions are of. rotary: reads its rotary positions.
        read: adds what no key says to the tree, as plain data. write: the tree and what its keys say -> the settings;
            None where there are no words for it.
        names, layer: of the tensors beside the layers, and of those in a layer. more: as in `Family`.
    """

    def read_tree(values: Mapping[str, Any]) -> Tree:
        settings = Settings(values, name, {**defaults_of(keys), **(defaults or {})})
        settings.only_class(architecture)
        settings.only("is_encoder_decoder", False)
        settings.only("add_cross_attention", False)
        tree = read_keys(settings, keys, form)
        if rotary is not None:
            tree["decoder"]["position"] = rotary(settings)
        read(settings, tree)
        settings.finish()
        return config.DecoderOnly.model_validate(tree)

    def write_tree(tree: Tree) -> dict[str, Any] | None:
        if not isinstance(tree, config.DecoderOnly):
            return None
        block, position = tree.decoder.blocks[0], tree.decoder.position
        turned = write_rotary(position) if rotary is not None and isinstance(position, config.Rotary) else {}
        if turned is None or not {type(block.norm), type(block.feed_forward), type(position)}.issuperset(parts):
            return None
        found = write(tree, {**write_keys(tree, keys), **turned})
        return None if found is None else {"architectures": [architecture], "model_type": name, **found}

    return Family(name, read_tree, write_tree, lambda tree: names.rules(tree, layer), names.ties, **more)


def fused_rules(attention: config.Attention, dim: int, theirs: str) -> list[Rule]:
    """Queries, keys and values, where one matrix of theirs holds each group's queries, then its key, then its value.

    Ours has all queries, all keys, all values; H heads in G groups, r = H / G queries a group, each head of width d.
    """
    groups, width = attention.key_value_heads, attention.width(dim)
    queries = attention.heads // groups
    firsts = [group * (queries + 2) for group in range(groups)]
    heads = [first + query for first in firsts for query in range(queries)]
    heads += [first + queries for first in firsts] + [first + queries + 1 for first in firsts]
    order = [head * width + row for head in heads for row in range(width)]
    kinds = ("weight", "bias") if attention.bias else ("weight",)
    return [permuted(f"self_attention.qkv.{kind}", f"{theirs}.{kind}", order) for kind in kinds]
