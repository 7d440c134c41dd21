"""Canonical configurations: two trees that describe the same model become equal.

A head's width may be written or left to follow from the model's, a stack's usual block may be any of its layers',
dropout makes no difference to a model that is used: `canonical` settles all of it, so that trees can be compared by
value.
"""

from __future__ import annotations

from typing import Any, cast

from sublayer import config
from sublayer.config.difference import differences
from sublayer.hub.family import Tree


def canonical(tree: Tree | config.Recurrent) -> dict[str, Any]:
    """The tree as plain data in which the same model is always the same."""
    plain = cast("dict[str, Any]", _without_dropout(tree.plain()))
    stacks: dict[str, tuple[config.Stack, bool]] = {} if isinstance(tree, config.Recurrent) else tree.stacks
    for name, (stack, cross) in stacks.items():
        plain[name] = _stack(stack, tree.dim, cross=cross)
    return plain


def lost(one: Any, other: Any) -> list[str]:
    """Where two canonical trees differ: "path: this is lost, that would stand there"."""
    return [f"{path} = {a!r} would become {b!r}" for path, (a, b) in differences(one, other).items()]


def stack_of(blocks: list[config.Block], position: config.Position) -> config.Stack:
    """The stack with these blocks, from the first layer to the last: what most layers are is its `block`."""
    kinds = list(dict.fromkeys(blocks))
    usual = max(kinds, key=blocks.count)
    others = tuple(
        config.OtherLayers(layers=tuple(i for i, block in enumerate(blocks) if block == kind), block=kind)
        for kind in kinds
        if kind != usual
    )
    return config.Stack(layers=len(blocks), block=usual, others=others, position=position)


def _stack(stack: config.Stack, dim: int, *, cross: bool) -> dict[str, Any]:
    blocks = [_block(block, stack.position, dim, cross=cross) for block in stack.blocks]
    # Rotary positions act in each layer, and are said there; of the others the stack has one for all.
    rotary = isinstance(stack.position, config.Rotary)
    return {"blocks": blocks, "position": "in the blocks" if rotary else _without_dropout(stack.position.plain())}


def _block(block: config.Block, position: config.Position, dim: int, *, cross: bool) -> dict[str, Any]:
    own = block.position
    if own is None and isinstance(position, config.Rotary):
        own = position
    plain = block.model_copy(
        update={
            "attention": _attention(block.attention, dim),
            "cross_attention": _attention(block.cross, dim) if cross else None,
            "position": own,
        }
    ).plain()
    return cast("dict[str, Any]", _without_dropout(plain))


def _attention(attention: config.Attention, dim: int) -> config.Attention:
    width = attention.width(dim)
    return attention.model_copy(
        update={
            "kv_heads": attention.key_value_heads,
            "head_dim": width,
            "scale": width**-0.5 if attention.scale is None else attention.scale,
            "output_bias": attention.biased_output,
            # Without such a norm there is nothing that it could be over.
            "query_key_norm_over": "head" if attention.query_key_norm is None else attention.query_key_norm_over,
        }
    )


def _without_dropout(data: Any) -> Any:
    """Without what matters to training alone: dropouts, and what weights begin with."""
    if isinstance(data, dict):
        table = cast("dict[str, Any]", data)
        return {key: _without_dropout(value) for key, value in table.items() if key not in ("dropout", "initial_std")}
    if isinstance(data, list):
        return [_without_dropout(value) for value in cast("list[Any]", data)]
    return data
