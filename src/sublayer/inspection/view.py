"""What a look into a model is, as a value: tokens, maps, candidates, the lens; and the compact form it travels in.

The page, the notebook and the HTML file draw one and the same form, `View.plain`: JSON of bounded precision in which
the attention weights are bytes. A weight w is the byte round(255 sqrt(w)): small weights, which are most and which a
picture must tell apart, keep more digits than large ones. What comes back is off by less than 0.004 sqrt(w) + 0.000004.

Shapes: L layers, H heads, S rows (who attends), T columns (what is attended to).
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt

from sublayer.config.part import Part

FORMAT = 1
LONGEST = 20_000
"""Characters of a text that is looked at."""

MapName: TypeAlias = Literal["encoder", "decoder", "cross"]


class Head(Part):
    """One head: which attention, which layer, which head of it, both counted from 0."""

    map: MapName
    layer: NonNegativeInt
    head: NonNegativeInt


class Question(Part):
    """What is asked of a model.

    text: what it reads: a sentence, a prompt. target: a translation to read along, instead of the model's own.
    forced: tokens that its own text begins with; from there on it goes on by itself, greedily.
    tokens: how many it may add to a prompt, after those that are forced; a translation ends by itself.
    silenced: heads that are switched off. chat: take the text for a turn of a conversation.
    lens_from: the first position that the lens shows; left out, as many of the last ones as are cheap.
    """

    text: str = Field(max_length=LONGEST)
    target: str | None = Field(default=None, max_length=LONGEST)
    forced: tuple[NonNegativeInt, ...] = Field(default=(), max_length=4096)
    tokens: int = Field(default=16, ge=0, le=256)
    silenced: tuple[Head, ...] = Field(default=(), max_length=4096)
    chat: bool = False
    lens_from: NonNegativeInt | None = None


@dataclass(frozen=True)
class Token:
    """One token as a reader sees it.

    text: its characters, without the sign for a space. glued: it goes on the word before it. kind: "text"; "special"
    for what a tokenizer puts around texts; "unknown" for characters that the vocabulary does not have.
    """

    id: int
    text: str
    glued: bool = False
    kind: Literal["text", "special", "unknown"] = "text"


@dataclass(frozen=True, eq=False)
class Map:
    """The attention of all heads of one kind.

    weights: uint8 [L, H, S, T], quantised as above. rows, columns: names of sequences. causal: nothing is above the
    diagonal.
    """

    name: MapName
    title: str
    rows: str
    columns: str
    causal: bool
    weights: NDArray[np.uint8]

    def plain(self) -> dict[str, Any]:
        layers, heads, rows, columns = self.weights.shape
        # Of a causal square, the triangle: row i has i + 1 columns.
        kept = self.weights[:, :, *np.tril_indices(rows)] if self.causal else self.weights
        return {**vars(self), "shape": [layers, heads, rows, columns], "weights": packed(kept)}


@dataclass(frozen=True)
class Candidate:
    """A token that may come, or a word of the lens."""

    id: int
    text: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """What the model thinks stands after (or, where it fills masks, at) a position.

    at: the position, a row of the maps. candidates: the most probable, best first. chosen: what stands there, and
    rank: its place among all tokens, from 0; None where nothing is there yet.
    """

    at: int
    candidates: tuple[Candidate, ...]
    chosen: Candidate | None = None
    rank: int | None = None


@dataclass(frozen=True)
class Lens:
    """What the model would have said, had it stopped after a layer.

    first: the first position; layers: names of the rows; cells: [layer][position][best first].
    what: what the cells hold: "tokens" of the vocabulary or the head's "labels".
    """

    first: int
    layers: tuple[str, ...]
    cells: tuple[tuple[tuple[Candidate, ...], ...], ...]
    what: Literal["tokens", "labels"] = "tokens"


@dataclass(frozen=True)
class Written:
    """A text that the model made (or was given to read along). by: how it was searched.

    log_probability: natural log of P(text, end | source or prompt) under the model as it is looked at.
    """

    text: str
    complete: bool
    by: str
    log_probability: float
    type: Literal["text"] = "text"


@dataclass(frozen=True)
class Labelled:
    """A classifier's labels with their probabilities, the most probable first."""

    labels: tuple[tuple[str, float], ...]
    type: Literal["labels"] = "labels"


@dataclass(frozen=True)
class Tagged:
    """A tagger's label of each token, and how probable it is."""

    tags: tuple[tuple[str, float], ...]
    type: Literal["tags"] = "tags"


@dataclass(frozen=True)
class Vector:
    """A sentence's vector. likeness: its cosine with the one that all heads together give."""

    values: tuple[float, ...]
    likeness: float = 1.0
    type: Literal["vector"] = "vector"


@dataclass(frozen=True)
class Words:
    """Each position's most probable word; masks: the positions that were hidden."""

    masks: tuple[int, ...]
    type: Literal["words"] = "words"


@dataclass(frozen=True)
class Nothing:
    """An encoder without a head says nothing."""

    type: Literal["nothing"] = "nothing"


Output: TypeAlias = Written | Labelled | Tagged | Vector | Words | Nothing

Task = Literal["translate", "generate", "fill", "classify", "tag", "embed", "encode"]


@dataclass(frozen=True)
class About:
    """The model, in a few words.

    maps: name, title, layers and heads of each kind of attention. longest: tokens that one look may have.
    chat: whether it can be talked with. examples: texts to try.
    """

    name: str
    kind: str
    task: Task
    parameters: int
    vocabulary: int
    longest: int
    chat: bool
    maps: tuple[tuple[MapName, str, int, int], ...]
    examples: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, eq=False)
class View:
    """One look into a model.

    sequences: tokens by name: "source", "target" (as fed to the decoder) and "predicted" of an encoder-decoder;
    "text" of the others. made: where in "target" or "text" begins what the model wrote itself.
    """

    about: About
    question: Question
    sequences: Mapping[str, Sequence[Token]]
    maps: Sequence[Map]
    output: Output
    predictions: Sequence[Prediction] = ()
    lens: Lens | None = None
    made: int = 0
    seconds: float = field(default=0.0, compare=False)

    def plain(self) -> dict[str, Any]:
        """As JSON takes it; what the page's `data.js` reads."""
        return {
            "format": FORMAT,
            "about": self.about.plain(),
            "question": self.question.plain(),
            "sequences": {
                name: {
                    "ids": [token.id for token in tokens],
                    "texts": [token.text for token in tokens],
                    "glued": [place for place, token in enumerate(tokens) if token.glued],
                    "special": [place for place, token in enumerate(tokens) if token.kind == "special"],
                    "unknown": [place for place, token in enumerate(tokens) if token.kind == "unknown"],
                }
                for name, tokens in self.sequences.items()
            },
            "maps": [one.plain() for one in self.maps],
            "output": _plain(self.output),
            "predictions": _plain(self.predictions),
            "lens": _plain(self.lens),
            "made": self.made,
            "seconds": round(self.seconds, 3),
        }


def quantised(weights: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """round(255 sqrt(w)) of weights in [0, 1]; what rounding left outside is brought back."""
    return np.rint(np.sqrt(np.clip(weights, 0.0, 1.0)) * 255).astype(np.uint8)


def restored(bytes_: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The weights that bytes stand for, as the page restores them."""
    return (bytes_.astype(np.float64) / 255) ** 2


def packed(values: NDArray[np.uint8]) -> str:
    """Bytes in C order, deflated (zlib), in base64. Most weights are near nothing, so this is a third to a tenth."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(values).tobytes(), 3)).decode("ascii")


def _plain(value: Any) -> Any:
    """Values by their fields, candidates as lists, and numbers with five digits: more than a page shows."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, Candidate):
        return _plain((value.id, value.text, value.probability))
    if isinstance(value, (tuple, list)):
        return [_plain(one) for one in cast("Sequence[Any]", value)]
    return {name: _plain(one) for name, one in vars(value).items()} if is_dataclass(value) else value
