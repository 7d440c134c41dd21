"""The tree of the text: where it comes from, and what is held out.

The path of a plain file, of JSON lines or of Parquet may have * and ? for many files, which are read in the order of
their names. Files whose names end in .gz or .zst are unpacked while they are read.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from sublayer.config.filter import Filter
from sublayer.config.part import Part, Seed

__all__ = [
    "Chat", "Conll", "Data", "GivenSplit", "Jsonl", "LabelledJsonl", "LabelledTsv", "LineAligned", "Mixed", "Mixture",
    "NamedCorpus", "ParallelText", "Parquet", "PlainText", "RandomSplit", "SeveralCorpora", "Source", "Split",
    "TailSplit", "TextJsonl", "TextParquet", "Tsv",
]  # fmt: skip

Fraction = Annotated[float, Field(gt=0.0, lt=1.0)]

# --- two texts a row ---------------------------------------------------------------------------------------------


class NamedCorpus(Part):
    """A corpus that sublayer knows (`sublayer data list`).

    part: the part that its makers keep apart for training, validation or the test; unset means the whole.
    """

    type: Literal["corpus"] = "corpus"
    name: str
    part: Literal["train", "validation", "test"] | None = None


class LineAligned(Part):
    """Two plain files; line n of one is the translation of line n of the other."""

    type: Literal["lines"] = "lines"
    source: str
    target: str


class Tsv(Part):
    """One file of tab-separated columns, counted from 0."""

    type: Literal["tsv"] = "tsv"
    path: str
    source_column: NonNegativeInt = 0
    target_column: NonNegativeInt = 1


class Jsonl(Part):
    """One JSON object a line."""

    type: Literal["jsonl"] = "jsonl"
    path: str
    source_field: str = "source"
    target_field: str = "target"


class Parquet(Part):
    """Two columns of text in Parquet files, which the extra `data` reads."""

    type: Literal["parquet"] = "parquet"
    path: str
    source_column: str = "source"
    target_column: str = "target"


ParallelText = Annotated[NamedCorpus | LineAligned | Tsv | Jsonl | Parquet, Field(discriminator="type")]

# --- one text a row ----------------------------------------------------------------------------------------------


class PlainText(Part):
    """Documents in a plain file, or in the .txt files of a folder (in the order of their names).

    document: what one document is: a "line", what stands between "blank-lines", a whole "file", or an article under
    its heading, as in "wikitext".
    """

    type: Literal["text"] = "text"
    path: str
    document: Literal["line", "blank-lines", "file", "wikitext"] = "line"


class TextJsonl(Part):
    """One JSON object a line, with a document in one of its fields."""

    type: Literal["text-jsonl"] = "text-jsonl"
    path: str
    text_field: str = "text"


class TextParquet(Part):
    """A column of documents in Parquet files, which the extra `data` reads."""

    type: Literal["text-parquet"] = "text-parquet"
    path: str
    text_column: str = "text"


class SeveralCorpora(Part):
    """The texts of several named corpora, one corpus after the other.

    Of labelled text the labels are left out, of pairs all but the source sentences, each once.
    """

    type: Literal["corpora"] = "corpora"
    corpora: Annotated[tuple[NamedCorpus, ...], Field(min_length=1)]


class LabelledTsv(Part):
    """One file of tab-separated columns, counted from 0: a text, perhaps a second one that belongs to it, a label.

    second_column: unset means one text. header: whether the first line names the columns.
    """

    type: Literal["labelled-tsv"] = "labelled-tsv"
    path: str
    text_column: NonNegativeInt = 0
    second_column: NonNegativeInt | None = None
    label_column: NonNegativeInt = 1
    header: bool = False


class LabelledJsonl(Part):
    """One JSON object a line: a text, perhaps a second one that belongs to it, a label (a string or a whole number)."""

    type: Literal["labelled-jsonl"] = "labelled-jsonl"
    path: str
    text_field: str = "text"
    second_field: str | None = None
    label_field: str = "label"


class Conll(Part):
    """A word and its tag a line, in columns between white space; a blank line ends a sentence.

    word_column, tag_column: counted from 0, or from the last as -1. Lines that begin with -DOCSTART- are left out.
    """

    type: Literal["conll"] = "conll"
    path: str
    word_column: int = 0
    tag_column: int = -1


class Chat(Part):
    """Conversations, one JSON object a line: {"messages": [{"role": "user", "content": "..."}, ...]}."""

    type: Literal["chat"] = "chat"
    path: str


AnySource = (
    NamedCorpus
    | SeveralCorpora
    | LineAligned
    | Tsv
    | Jsonl
    | Parquet
    | PlainText
    | TextJsonl
    | TextParquet
    | LabelledTsv
    | LabelledJsonl
    | Conll
    | Chat
)
Source = Annotated[AnySource, Field(discriminator="type")]

# --- several of them -----------------------------------------------------------------------------------------------


class Mixed(Part):
    """A text of a mixture. weight: how many rows of it are read for so many of the others."""

    source: Source
    weight: Annotated[int, Field(gt=0, le=10_000)] = 1


class Mixture(Part):
    """Several texts, of which training reads rows in proportion to their weights, each text over and over: of any
    number of rows from the first one on, as many as its share, but for less than one. It has to be prepared.
    """

    type: Literal["mixture"] = "mixture"
    parts: Annotated[tuple[Mixed, ...], Field(min_length=2, max_length=100)]


# --- what is held out --------------------------------------------------------------------------------------------


class RandomSplit(Part):
    """Hold out this many distinct source sentences, each with all its translations, for validation and for the test.

    Of text that is not parallel: distinct documents, texts or conversations.
    """

    type: Literal["random"] = "random"
    validation: PositiveInt = 500
    test: PositiveInt = 2000
    seed: Seed = 1


class GivenSplit(Part):
    """Validation and test text of your own.

    overlap: what becomes of training rows whose source stands in either: "drop" leaves them out, "keep" trains on them,
    as an official split is used whose scores are to be compared with the literature's.
    """

    type: Literal["given"] = "given"
    validation: Source
    test: Source
    overlap: Literal["drop", "keep"] = "drop"


class TailSplit(Part):
    """Hold out the end of the text: these parts of all its characters, first for validation and then, at the very end,
    for the test. Documents are cut where a part begins; rows of any other kind stay whole.

    Use it for one long text, whose sentences do not stand alone. Training rows with the same text as a held-out row
    are left out.
    """

    type: Literal["tail"] = "tail"
    validation: Fraction = 0.05
    test: Fraction = 0.05

    @model_validator(mode="after")
    def _leaves_text(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError(f"validation + test = {self.validation + self.test:g} leaves nothing to train on")
        return self


Split = Annotated[RandomSplit | GivenSplit | TailSplit, Field(discriminator="type")]


class Data(Part):
    """Where the text comes from, what is held out, what is left out of training, and how long a row may be.

    max_length: tokens of a row (of a pair: a side), start and end markers included. Longer pairs, labelled texts and
    conversations are counted, reported and left out of training; longer documents go on in the next row. No row is left
    out where a model is scored: one that is longer than model.max_length is cut there.
    shards: the folder that `sublayer data prepare` made of this recipe; the text is then read from there, a part at a
    time. Unset means that all text is read into memory when a run begins.
    """

    source: Annotated[AnySource | Mixture, Field(discriminator="type")]
    split: Split = RandomSplit()
    filter: Filter = Filter()
    source_language: str = "source"
    target_language: str = "target"
    max_length: PositiveInt = 128
    shards: str | None = None

    def every_source(self) -> dict[str, Source]:
        """All text that is read, by where the recipe says it."""
        source = self.source
        found: dict[str, Source] = {"data.source": source} if not isinstance(source, Mixture) else {}
        if isinstance(source, Mixture):
            found = {f"data.source.parts[{place}].source": part.source for place, part in enumerate(source.parts)}
        if isinstance(self.split, GivenSplit):
            found |= {"data.split.validation": self.split.validation, "data.split.test": self.split.test}
        return found
