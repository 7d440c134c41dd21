"""Models to adapt and adapters on them, in a moment: large random weights, no training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from checkpoints import llama_tree, tiny_tokenizer
from sublayer import config
from sublayer.hub.adapted import Adapted, Base, weights_sum
from sublayer.hub.folder import ModelBundle, ModelCard, read, write
from sublayer.models import Model, build_model
from sublayer.nn.adapter import adapt
from sublayer.text import Tokenizer

C = config.LowRank(rank=3, alpha=5.0)
CHAT = (
    "{% for message in messages %}{{ '<s>' + message['role'] + ': ' + message['content'] + '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s>assistant: ' }}{% endif %}"
)
DECODING = {"max_tokens": 7, "stop": ["zz"]}
ORIGIN = {"family": "llama", "tokens": {"eos_token_id": 2}}


def conversing() -> Tokenizer:
    made = tiny_tokenizer()
    return Tokenizer(made.backend, made.specials, chat_template=CHAT)


def redrawn(model: nn.Module, seed: int, std: float = 0.3) -> None:
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=std)


def write_base(
    folder: Path,
    tree: config.Model | None = None,
    *,
    seed: int = 1,
    dtype: torch.dtype | None = None,
    fresh: bool = False,
) -> Path:
    """A model folder of ours; a small Llama that converses, unless another tree is wanted.

    fresh: with the weights that a training begins with, from which it learns soon; else with large random ones.
    """
    model = build_model(llama_tree(tiny_tokenizer().vocab_size) if tree is None else tree)
    if not fresh:
        redrawn(model, seed)
    bundle = ModelBundle(model.to(dtype or torch.float32), conversing(), DECODING if tree is None else {}, ORIGIN)
    write(folder, bundle, ModelCard("# the base\n", "the base\n"))
    return folder


def write_adapters(folder: Path, base: Path, c: config.LowRank = C, *, path: str | None = None, seed: int = 2) -> Model:
    """Adapters of large random numbers on the model in `base`; the adapted model that they were taken from."""
    bundle = read(base)
    model = bundle.model
    adapt(model, c)
    learned = {name: p for name, p in model.named_parameters() if p.requires_grad}
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in learned.values():
            parameter.normal_(std=0.3)
    adapted = Adapted(c, Base(path or str(base.resolve()), weights_sum(base)), learned)
    card = ModelCard("# the adapters\n", "# of the adapters\n")
    write(folder, ModelBundle(model, bundle.tokenizer, bundle.decoding, bundle.imported, adapted), card)
    return model


def by_hand(base: Model, tensors: Mapping[str, Tensor], c: config.LowRank = C) -> Model:
    """The base in float64 with W + (alpha / r) B A for every W that has an A, written out."""
    model = base.double()
    with torch.no_grad():
        for name in [name.removesuffix(".down") for name in tensors if name.endswith(".down")]:
            if f"{name}.up" in tensors:
                up, down = tensors[f"{name}.up"].double(), tensors[f"{name}.down"].double()
                model.get_parameter(f"{name}.weight").add_(up @ down, alpha=c.alpha / c.rank)
    return model
