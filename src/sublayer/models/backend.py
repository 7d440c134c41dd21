"""The step contract: what search asks of a model, and all that it asks.

`start` makes a state, `step` feeds one token a row (or several) and gives the logits of what follows. Whoever fulfils
this (the modules of a model, functions or a program that compute the same, a recurrent network) is a decoder backend,
and can be searched.

What `start` is given is the sentence to translate, for an encoder-decoder; for a decoder-only model it is the prompt
without its last token, which is then the first that `step` is fed. `capacity` counts the tokens that `step` will be
fed at most, in both cases.
"""

from __future__ import annotations

from typing import Any, Protocol, Self, TypeVar, runtime_checkable

import torch
from torch import Tensor


class State(Protocol):
    """What a model remembers between steps. Rows belong to sentences: row b * num_beams + r is hypothesis r of b.

    length: tokens fed, padding included, the same for all rows. reorder(rows): row i goes on from what row rows[i] was.
    keep(sentences): go on with these only; one may be named several times, and goes on in as many ways. join(other): go
    on with the sentences of another state of this model too, after one's own, whatever their lengths; as many rows a
    sentence. replace(sentences, other): the same, but its sentences take the places of these, which are over.
    truncate(length): forget the tokens from there on. expand(num_beams): a row a sentence becomes as many,
    which begin alike.
    """

    @property
    def length(self) -> int: ...

    def reorder(self, rows: Tensor) -> None: ...

    def keep(self, sentences: Tensor) -> None: ...

    def join(self, other: Self) -> None: ...

    def replace(self, sentences: Tensor, other: Self) -> None: ...

    def truncate(self, length: int) -> None: ...

    def expand(self, num_beams: int) -> None: ...


S = TypeVar("S", bound=State)


class DecoderBackend(Protocol[S]):
    """What decodes one step after another."""

    def start(
        self, source: Tensor, source_lengths: Tensor | None = None, *, num_beams: int = 1, capacity: int | None = None
    ) -> S: ...

    def step(self, tokens: Tensor, state: S) -> Tensor: ...


class Sizes(Protocol):
    """What a generator asks of a model's configuration. max_length: prompt and text together, in tokens."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def max_length(self) -> int: ...


class LanguageModel(DecoderBackend[S], Protocol[S]):
    """A decoder-only model behind the step contract: eager, compiled or native."""

    @property
    def config(self) -> Sizes: ...

    @property
    def device(self) -> torch.device: ...

    def eval(self) -> Any: ...


@runtime_checkable
class Ranks(Protocol):
    """A backend that can say what is most probable without giving all logits."""

    def best(self, tokens: Tensor, state: Any, count: int) -> tuple[Tensor, Tensor] | None:
        """Feed a token a row, as `step` does, and return what may follow; None, and nothing fed, where it must step.

        Shape: tokens [R, 1] int64 -> log-probabilities [R, count], largest first, and their tokens [R, count].
        """
        ...


@runtime_checkable
class Reads(Protocol):
    """A backend that can be fed tokens without computing logits of them."""

    def read(self, tokens: Tensor, state: Any) -> None:
        """Feed tokens. Shape: [R, n] int64."""
        ...


@runtime_checkable
class Forks(Protocol):
    """A state of which another can be made that goes on from the same beginning, as those of attention can."""

    def fork(self, length: int, capacity: int) -> Self:
        """Another state, of the first `length` tokens, with room for `capacity` more; this one stays as it is."""
        ...


def read(model: DecoderBackend[S], tokens: Tensor, state: S) -> None:
    """Feed tokens whose logits nobody needs. Shape: [R, n] int64."""
    if isinstance(model, Reads):
        model.read(tokens, state)
    else:
        model.step(tokens, state)


def replace_by_joining(state: S, count: int, sentences: Tensor, other: S) -> None:
    """`State.replace` by `join` and `keep`. count: sentences of the state."""
    order = torch.arange(count, device=sentences.device)
    order[sentences] = count + torch.arange(len(sentences), device=sentences.device)
    state.join(other)
    state.keep(order)
