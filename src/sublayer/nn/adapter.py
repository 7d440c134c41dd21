"""Low-rank adapters: a model learns a task in a few numbers, and its own weights stay as they are.

    y = x W^T + b + (alpha / r) dropout(x) A^T B^T

(LoRA, Hu et al. 2021, https://arxiv.org/abs/2106.09685, equation 3). A is random and B zero at the start, so that an
adapted model begins as the model it was; merged, it is a model like any other, of the same size and speed.

Dimensions: r the rank.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sublayer import config
from sublayer.errors import ConfigError
from sublayer.nn.experts import MixtureOfExperts
from sublayer.nn.linear import Linear
from sublayer.nn.tap import named_modules, put


class LowRank(Linear):
    """A linear map with an adapter. `down` is A [r, in], `up` is B [out, r]; weight and bias do not learn.

    Args:
        base: the map to adapt, whose weight and bias are taken over, not copied.
        c: the configuration.
    """

    def __init__(self, base: Linear, c: config.LowRank) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        self.scale, self.dropout = c.alpha / c.rank, c.dropout
        self.down, self.up = _factors(base.weight, c.rank)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the name in torch)
        """Shape: input [..., in] -> [..., out]."""
        read = F.dropout(input, self.dropout, self.training)
        return super().forward(input) + F.linear(F.linear(read, self.down), self.up) * self.scale

    def merged(self) -> Linear:
        """The plain map that computes the same: W + (alpha / r) B A."""
        plain = Linear(self.in_features, self.out_features, bias=self.bias is not None, device="meta")  # pyright: ignore[reportUnnecessaryComparison]
        plain.weight = _merged(self.weight, self)
        plain.bias = self.bias
        return plain


class LowRankExperts(nn.Module):
    """Adapters of the experts' matrices of one kind: `down` is A [E, r, in], `up` is B [E, out, r]."""

    def __init__(self, matrices: nn.Parameter, c: config.LowRank) -> None:
        super().__init__()
        self.scale, self.dropout = c.alpha / c.rank, c.dropout
        self.down, self.up = _factors(matrices, c.rank)

    def forward(self, tokens: Tensor, number: int) -> Tensor:
        """What is added to the product of one expert. Shape: [n, in] -> [n, out]."""
        read = F.dropout(tokens, self.dropout, self.training)
        return F.linear(F.linear(read, self.down[number]), self.up[number]) * self.scale


def _factors(weight: Tensor, rank: int) -> tuple[nn.Parameter, nn.Parameter]:
    """A and B of a fresh adapter, or of each expert's. Shape: weight [..., out, in] -> [..., r, in], [..., out, r]."""
    *experts, out, into = weight.shape
    down = nn.Parameter(weight.new_empty(*experts, rank, into))
    # As the authors' code has it: uniform, of variance 1 / (3 in).
    nn.init.uniform_(down, -(into**-0.5), into**-0.5)
    return down, nn.Parameter(weight.new_zeros(*experts, out, rank))


@torch.no_grad()
def _merged(weight: Tensor, beside: LowRank | LowRankExperts) -> nn.Parameter:
    """The matrix, or the matrix of each expert, that computes the same alone: W + (alpha / r) B A."""
    wide = torch.promote_types(weight.dtype, torch.float32)
    change = (beside.up.to(wide) @ beside.down.to(wide)) * beside.scale
    return nn.Parameter((weight.to(wide) + change).to(weight.dtype))


class AdaptedExperts(MixtureOfExperts):
    """A mixture with adapters beside some of its matrices, which stay as they are."""

    def __init__(self, base: MixtureOfExperts, chosen: Collection[str], c: config.LowRank) -> None:
        nn.Module.__init__(self)
        self.active, self.normalize, self.activation = base.active, base.normalize, base.activation
        self.router, self.gate_up, self.down = base.router, base.gate_up, base.down
        for matrices in MATRICES:
            if matrices in chosen:
                self.add_module(f"{matrices}_adapter", LowRankExperts(getattr(base, matrices), c))

    def linear(self, matrices: str, number: int, tokens: Tensor) -> Tensor:
        """Shape: [n, in] -> [n, out]."""
        plain, adapter = super().linear(matrices, number, tokens), self.adapter(matrices)
        return plain if adapter is None else plain + adapter(tokens, number)

    def adapter(self, matrices: str) -> LowRankExperts | None:
        """The adapters beside these matrices, if any."""
        return cast("LowRankExperts | None", self._modules.get(f"{matrices}_adapter"))

    def merged(self) -> MixtureOfExperts:
        """The plain mixture that computes the same."""
        plain = MixtureOfExperts.__new__(MixtureOfExperts)
        nn.Module.__init__(plain)
        plain.active, plain.normalize, plain.activation = self.active, self.normalize, self.activation
        plain.router = self.router
        for matrices in MATRICES:
            adapter, kept = self.adapter(matrices), getattr(self, matrices)
            setattr(plain, matrices, kept if adapter is None else _merged(kept, adapter))
        return plain


MATRICES = ("gate_up", "down")
"""The matrices of a mixture's experts, by the names of their parameters."""


def adapt(model: nn.Module, c: config.LowRank, whole: Collection[str] = ()) -> list[str]:
    """Put an adapter beside every linear map that the targets name, and let nothing else learn; their names.

    The matrices of a mixture's experts are linear maps too ("decoder.layers.0.feed_forward.gate_up"): each expert gets
    an adapter of its own.

    Args:
        whole: names of parameters that learn as they are, such as those of a head that is new: their maps get no
            adapter, for there is nothing in them to keep.

    Raises:
        ConfigError: a pattern names no linear map, or the matrix of an embedding (which a map that is tied is).
    """
    maps: dict[str, nn.Module] = {
        name: module
        for name, module in named_modules(model)
        if isinstance(module, Linear) and f"{name}.weight" not in whole
    }
    experts = _experts(model)
    maps |= experts
    chosen: list[str] = []
    for pattern in c.targets:
        found = [name for name in maps if fnmatchcase(name, pattern)]
        # A model without cross-attention is no reason to refuse the usual patterns.
        if not found and pattern not in config.LowRank().targets:
            raise ConfigError(f"adapter.targets: '{pattern}' names no linear map", f"There are {kinds(maps)}.")
        chosen += [name for name in found if name not in chosen]
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    tied = [name for name in chosen if name not in experts and id(maps[name].weight) in tables]
    if tied or not chosen:
        what = f"'{tied[0]}' is tied to an embedding" if tied else "the patterns name no linear map"
        raise ConfigError(f"adapter.targets: {what}", "Name maps inside the blocks.")
    model.requires_grad_(False)
    for name in whole:
        model.get_parameter(name).requires_grad_(True)
    for name in chosen:
        if name not in experts:
            put(model, name, LowRank(cast("Linear", maps[name]), c))
    for owner in dict.fromkeys(name.rpartition(".")[0] for name in chosen if name in experts):
        mixture = cast("MixtureOfExperts", model.get_submodule(owner))
        put(model, owner, AdaptedExperts(mixture, [each for each in MATRICES if f"{owner}.{each}" in chosen], c))
    return chosen


def left_out(model: nn.Module) -> list[str]:
    """The linear maps of an adapted model that have no adapter, by name, experts included."""
    adapted = {name.removesuffix("_adapter") for name, _ in _adapted(model)}
    maps = [name for name, module in named_modules(model) if isinstance(module, Linear)]
    return [name for name in (*maps, *_experts(model)) if name not in adapted]


def kinds(names: Iterable[str]) -> str:
    """Names of maps, the layers of a stack as one: "decoder.*.self_attention.qkv, …"."""
    return ", ".join(dict.fromkeys(re.sub(r"\.\d+\.", ".*.", name) for name in names))


def _experts(model: nn.Module) -> dict[str, nn.Module]:
    """The mixture that each kind of experts' matrices belongs to, by the name of the matrices."""
    return {
        f"{name}.{matrices}": module
        for name, module in named_modules(model)
        if isinstance(module, MixtureOfExperts)
        for matrices in MATRICES
    }


def adapters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The numbers of the adapters, by name: "decoder.layers.0.self_attention.qkv.down", ..."""
    return {f"{name}.{part}": getattr(module, part) for name, module in _adapted(model) for part in ("down", "up")}


@torch.no_grad()
def load_adapters(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give the adapters of a model their numbers.

    Raises:
        ConfigError: they are not those of this model; names what is missing, unexpected or misshapen.
    """
    own = adapters(model)
    wrong = [f"missing: {name}" for name in own if name not in tensors]
    wrong += [f"unexpected: {name}" for name in tensors if name not in own]
    wrong += [f"misshapen: {name}" for name in own if name in tensors and own[name].shape != tensors[name].shape]
    if wrong:
        raise ConfigError(
            f"the adapters do not fit the model: {'; '.join(wrong)}", "Take the model that they were made for."
        )
    for name, parameter in own.items():
        parameter.copy_(tensors[name])


def merge(model: nn.Module) -> None:
    """Make the model a plain one again, which computes what the adapted one did; everything may learn again."""
    for name, module in list(named_modules(model)):
        if isinstance(module, LowRank | AdaptedExperts):
            put(model, name, module.merged())
    model.requires_grad_(True)


def _adapted(model: nn.Module) -> Iterator[tuple[str, LowRank | LowRankExperts]]:
    for name, module in named_modules(model):
        if isinstance(module, LowRank | LowRankExperts):
            yield name, module
