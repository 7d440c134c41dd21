"""Equivalent models: rewrite what another library cannot express as something that it can.

Each of these gives a model that computes the same function as the one it was given, up to the rounding of sums in
another order, or None where it has nothing to change. They are tried where no family can express a model as it is.

    halves       sinusoids that interleave sines and cosines become the same with all sines first
    tabulated    sinusoids become a learned table that holds them
    unshifted    a learned table begins with the first token's row, without the unused ones before it
    biased       where there is no bias, there is one of zeros
    typed        where there are no kinds of token, there is one whose vector is zero
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from sublayer import config
from sublayer.config.part import Part as Node
from sublayer.hub.family import Tree
from sublayer.hub.weights import settle, untied
from sublayer.models import Transformer, build_model
from sublayer.nn.part import NotProvided, Part, under
from sublayer.nn.positions import Position

State = Mapping[str, Tensor]


def equivalents(model: Transformer) -> Iterator[Transformer]:
    """The model, then the same said in ever more other ways."""
    yield model
    for step in (halves, tabulated, unshifted, biased, typed):
        other = step(model)
        if other is not None:
            model = other
            yield model


def _rebuilt(tree: Tree, state: State, like: Transformer) -> Transformer:
    """A model of this tree with these weights, where and in what type `like` is."""
    parameter = next(like.parameters())
    with torch.device("meta"):
        model = build_model(tree).to(parameter.dtype)
    _, ties = untied(model)
    model.load_state_dict(state, strict=True, assign=True)
    settle(model, ties, parameter.device)
    return model.eval()


def _with_positions(tree: Tree, change: Callable[[config.Position], config.Position]) -> Tree:
    """The tree with the positions of every stack changed."""
    stacks = {
        name: stack.model_copy(update={"position": change(stack.position)}) for name, (stack, _) in tree.stacks.items()
    }
    return tree.model_copy(update=stacks)


# --- positions ---------------------------------------------------------------------------------------------------


def halves(model: Transformer) -> Transformer | None:
    """Sinusoids with all sines first, in an encoder-decoder.

    Nothing in a model knows which dimension of the residual stream is which: reorder them in all that reads from the
    stream and in all that writes to it, and the model is the same. In the order 0, 2, 4, …, 1, 3, 5, … interleaved
    sinusoids are sinusoids in halves.
    """
    tree = model.config
    if not isinstance(tree, config.EncoderDecoder) or tree.embedding.width is not None:
        return None
    found = [stack.position for stack in (tree.encoder, tree.decoder)]
    layouts = {position.layout for position in found if isinstance(position, config.Sinusoidal)}
    if layouts != {"interleaved"}:
        return None

    def turned(position: config.Position) -> config.Position:
        sinusoidal = isinstance(position, config.Sinusoidal)
        return position.model_copy(update={"layout": "halves"}) if sinusoidal else position

    try:
        axes = _stream_axes(model)
    except NotProvided:
        return None  # a part that no family knows either; what the nearest would lose is said by the export
    order = torch.cat((torch.arange(0, tree.dim, 2), torch.arange(1, tree.dim, 2)))
    state = dict(model.state_dict())
    for name, axis in axes.items():
        state[name] = state[name].index_select(axis, order.to(state[name].device))
    return _rebuilt(_with_positions(tree, turned), state, model)


def _stream_axes(model: Transformer) -> dict[str, int]:
    """For every parameter that reads from the residual stream or writes to it, which of its axes is the stream's.

    Raises:
        NotProvided: a part does not say it.
    """
    axes: dict[str, int] = {"output.weight": 1}

    def ask(module: nn.Module, path: str) -> None:
        if isinstance(module, Part):
            axes.update(under(path, module.stream_axes()))
            return
        for name, inner in module.named_children():
            ask(inner, f"{path}.{name}" if path else name)

    ask(model, "")
    held = model.state_dict()
    return {name: axis for name, axis in axes.items() if name in held}


def tabulated(model: Transformer) -> Transformer | None:
    """Sinusoids as a learned table, in a model of one stack: those of encoder-decoders have families of their own."""
    tree = model.config
    if isinstance(tree, config.EncoderDecoder):
        return None
    [(name, (stack, _))] = tree.stacks.items()
    if not isinstance(stack.position, config.Sinusoidal):
        return None
    table = cast("Position", model.get_submodule(f"{name}.position")).lower(tree.max_length).added
    assert table is not None, "sinusoids are added"
    state = {**model.state_dict(), f"{name}.position.weight": table.to(next(model.parameters()))}
    return _rebuilt(_with_positions(tree, lambda _: config.Learned()), state, model)


def unshifted(model: Transformer) -> Transformer | None:
    """Learned tables without the rows that fairseq keeps before the first token's."""
    shifted = {
        name: stack.position.offset
        for name, (stack, _) in model.config.stacks.items()
        if isinstance(stack.position, config.Learned) and stack.position.offset
    }
    if not shifted:
        return None
    state = dict(model.state_dict())
    for name, offset in shifted.items():
        state[f"{name}.position.weight"] = state[f"{name}.position.weight"][offset:].clone()

    def from_the_first(position: config.Position) -> config.Position:
        return config.Learned() if isinstance(position, config.Learned) else position

    return _rebuilt(_with_positions(model.config, from_the_first), state, model)


# --- what is missing, as zeros ------------------------------------------------------------------------------------


def biased(model: Transformer) -> Transformer | None:
    """A bias of zeros wherever there is none in a block, in a norm, or after the projection to the vocabulary."""
    tree = _all_biased(model.config)
    return None if tree == model.config else _filled(tree, model)


def typed(model: Transformer) -> Transformer | None:
    """One kind of token, whose vector is zero, in an encoder that knows none."""
    tree = model.config
    if not isinstance(tree, config.EncoderOnly) or tree.embedding.token_types:
        return None
    return _filled(tree.model_copy(update={"embedding": tree.embedding.model_copy(update={"token_types": 1})}), model)


def _filled(tree: Tree, model: Transformer) -> Transformer:
    """A model of this tree with the weights of `model`; what that has not is zero."""
    with torch.device("meta"):
        wanted = build_model(tree).state_dict()
    state = model.state_dict()
    like = next(model.parameters())
    zeros = {name: like.new_zeros(tensor.shape) for name, tensor in wanted.items() if name not in state}
    return _rebuilt(tree, {**state, **zeros}, model)


def _all_biased(part: Any) -> Any:
    """The same part of a tree with every `bias` true."""
    if isinstance(part, tuple):
        return tuple(_all_biased(each) for each in cast("tuple[Any, ...]", part))
    if not isinstance(part, Node):
        return part
    changed = {name: _all_biased(getattr(part, name)) for name in type(part).model_fields}
    changed |= {name: True for name in ("bias", "output_bias") if changed.get(name) is False}
    return part.model_copy(update=changed)
