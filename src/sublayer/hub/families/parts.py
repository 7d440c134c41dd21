"""What the readers and writers of decoder families share: activations, the frame of the tree, windows by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sublayer import config
from sublayer.hub.canonical import stack_of
from sublayer.hub.family import Settings

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


def causal_settings(values: Mapping[str, Any], name: str, architecture: str, defaults: Mapping[str, Any]) -> Settings:
    """The config of a causal language model; one with another head is refused by name.

    Args:
        architecture: the class that stands in `architectures`; a config without any is taken for it.
    """
    settings = Settings(values, name, defaults)
    for found in settings.get("architectures", ()):
        if found != architecture:
            raise settings.refusal("architectures", f"supported: {architecture}", found)
    settings.only("is_encoder_decoder", False)
    settings.only("add_cross_attention", False)
    return settings


def decoder_only(
    settings: Settings, blocks: Sequence[config.Block], position: config.Position, **others: Any
) -> config.DecoderOnly:
    """The tree around the blocks; `others` are fields of it that this config sets. Looks whether all keys are known.

    Raises:
        CheckpointError: a key is left that nobody has asked for.
    """
    tree = config.DecoderOnly(
        dim=settings.need("hidden_size"),
        vocab_size=settings.need("vocab_size"),
        max_length=settings.need("max_position_embeddings"),
        tied=settings.get("tie_word_embeddings", True),
        decoder=stack_of(list(blocks), position),
        **others,
    )
    settings.finish()
    return tree


def read_windows(settings: Settings, layers: int, otherwise: Sequence[bool]) -> list[int | None]:
    """The window of each layer, None where it sees everything.

    Args:
        otherwise: which layers have the window, where `layer_types` does not say.
    """
    window = settings.get("sliding_window")
    kinds = {"full_attention": False, "sliding_attention": True}
    found = settings.get("layer_types")
    if found is None:
        windowed = list(otherwise)
    else:
        strange = [kind for kind in found if kind not in kinds]
        if strange or len(found) != layers:
            raise settings.refusal("layer_types", f"supported: {' and '.join(kinds)}, one for each layer")
        windowed = [kinds[kind] for kind in found]
    if any(windowed) and window is None:
        raise settings.refusal("layer_types", "with 'sliding_attention' there must be a sliding_window")
    return [window if has else None for has in windowed]


def write_windows(blocks: Sequence[config.Block]) -> dict[str, Any]:
    """`sliding_window` and `layer_types`."""
    windows = [block.attention.window for block in blocks]
    return {
        "sliding_window": next((window for window in windows if window is not None), None),
        "layer_types": ["full_attention" if window is None else "sliding_attention" for window in windows],
    }
