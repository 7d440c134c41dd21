"""What a task is: all that anybody asks about what a model is trained to do, as one value.

A file of this folder holds one task: how its text is read, what stands around it, what a model is shown, what it is
asked, how it is evaluated, and what is said of it. Whoever trains, evaluates or describes a model asks the task and
knows no other way of telling one from another.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from sublayer import config
from sublayer.data.batch import AnyBatch
from sublayer.data.examples.interface import Examples
from sublayer.data.ragged import Ragged, encode_texts
from sublayer.data.report import Report
from sublayer.data.tables.documents import DOCUMENTS, Document
from sublayer.data.tables.table import Reader, Rows, Table
from sublayer.data.vocabulary import MASK
from sublayer.errors import ConfigError
from sublayer.tasks.objective import Objective, shown
from sublayer.text import Slot, Specials, Template, Tokenizer

C = TypeVar("C", bound=config.TaskSettings)
T = TypeVar("T", bound=Table[Any])
E = TypeVar("E", bound=Examples[AnyBatch])


@dataclass(frozen=True)
class Encoding:
    """How text becomes examples.

    max_length: tokens of a row. labels: in the order of the model's head. decoding: what an encoder-decoder's texts
    begin with. positions: those of a model that is evaluated on the examples, which then leave no row out: one that is
    longer is cut there. Unset in training, where rows over `max_length` are left out.
    """

    tokenizer: Tokenizer
    max_length: int
    labels: Sequence[str] = ()
    decoding: config.Decoding = field(default_factory=config.Decoding)
    positions: int | None = None

    @classmethod
    def of(cls, recipe: config.Recipe, tokenizer: Tokenizer, *, evaluation: bool) -> Encoding:
        """As a recipe says it whose labels are filled in; to train on the examples, or to evaluate a model."""
        positions = recipe.model.max_length if evaluation else None
        return cls(tokenizer, recipe.data.max_length, head_labels(recipe.model), recipe.decoding, positions)


@dataclass(frozen=True)
class Material(Generic[T, E]):
    """What a model is evaluated on, while it is trained or afterwards.

    recipe: with the labels filled in. table: the text as it was read. examples: the same, as the task shows it to a
    model. training: what is trained on; None where nothing is.
    """

    recipe: config.Recipe
    table: T
    examples: E
    tokenizer: Tokenizer
    training: E | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """Those of the model's head, in its order."""
        return head_labels(self.recipe.model)


@dataclass(frozen=True)
class Measured:
    """scores: by the keys of `config.MEASURES`. count: of how many `noun`. noted: what was done to some of them."""

    scores: dict[str, float]
    count: int
    noun: str
    noted: Sequence[str] = ()

    def __str__(self) -> str:
        return f"{shown(self.scores)} ({'; '.join([f'{self.count:,} {self.noun}', *self.noted])})"


@dataclass(frozen=True)
class Scoring:
    """How `sublayer evaluate` is to score a model, where it is asked otherwise than the recipe has it.

    beam, length_penalty, tokenize: of translations; unset means the model's own. write: whether what was asked and
    answered is wanted too. progress: given the number of rows, what is told each time how many have just been done.
    """

    beam: int | None = None
    length_penalty: float | None = None
    tokenize: str | None = None
    write: bool = False
    progress: Callable[[int], Callable[[int], None]] = lambda count: lambda done: None

    def refuse(self, *names: str) -> None:
        """
        Raises:
            ConfigError: one of these is asked for, of a model that has nothing of the kind.
        """
        for name in names:
            if getattr(self, name) not in (None, False):
                option = f"--{name.replace('_', '-')}" if name != "write" else "--out"
                raise ConfigError(f"{option} says nothing about what this model does", f"Leave {option} away.")


@dataclass(frozen=True)
class Scored:
    """lines: the scores, by name, in this order. remarks: what they mean. warnings: what was done to the text.
    rows: what was asked and answered, as JSON holds it."""

    lines: Mapping[str, str]
    remarks: Sequence[str] = ()
    warnings: Sequence[str] = ()
    rows: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Task(ABC, Generic[C, T, E]):
    """A task with its settings in a recipe, the table that its text is, and the examples that a model is shown.

    kind: of these settings. reader: of the text. command: what uses a model that has learned it, with {model} for the
    model's folder. python: the same in Python, where a call on `model` says it.
    """

    settings: C

    kind: ClassVar[type[config.TaskSettings]]
    reader: ClassVar[Reader[Any]]
    command: ClassVar[str]
    python: ClassVar[str] = ""

    @classmethod
    def name(cls) -> str:
        """As a recipe calls it."""
        return str(cls.kind.model_fields["type"].default)

    @classmethod
    def without_recipe(cls, room: int) -> dict[str, Any]:
        """The settings, as plain data, where a model is evaluated whose recipe nobody knows.

        Args:
            room: tokens of a row.
        """
        return {"type": cls.name()}

    # --- text ----------------------------------------------------------------------------------------------------

    def read(self, source: Any, folder: Path) -> T:
        """The text of a source, which is one of `settings.sources`; relative paths start at `folder`."""
        if isinstance(source, config.Mixture):
            raise ConfigError("a mixture of texts is not read into memory", "Prepare it: sublayer data prepare.")
        return self.reader.read(source, folder)

    def read_plain(self, path: Path) -> T:
        """What `Table.plain_rows` gives, from a file of JSON lines: the form in which text is held out."""
        return self.reader.read_plain(path)

    # --- tokenizer -----------------------------------------------------------------------------------------------

    def extra_tokens(self) -> tuple[str, ...]:
        """The special tokens that the task needs beside those that every tokenizer has."""
        return ()

    def with_template(self, plain: Tokenizer, specials: Specials) -> Tokenizer:
        """A tokenizer trained here, with what the task wants around texts; an encoder reads `<s> text </s>`.

        Args:
            specials: those of `plain`, the extra ones among them.
        """
        return plain.replace(template=start_end_template(plain.start_id, plain.end_id), specials=specials)

    def adopt(self, tokenizer: Tokenizer) -> Tokenizer:
        """The tokenizer of a model to begin with."""
        return tokenizer

    def train_tokenizer(
        self, recipe: config.TokenizerRecipe, training: Table[Any], known: Sequence[str] = ()
    ) -> Tokenizer:
        """A tokenizer trained on the text, which puts around texts what the task wants there.

        Args:
            known: words that are known besides those of the text.
        """
        extra = self.extra_tokens()
        # In a vocabulary of subwords every byte stands anyway, and no piece spans lines.
        ends = not isinstance(recipe, config.Subwords)
        plain = Tokenizer.train(training.spelled(ends=ends), recipe, extra, known)
        mask = plain.special_id(MASK)
        others = tuple(found for token in extra if (found := plain.special_id(token)) is not None and found != mask)
        return self.with_template(plain, Specials.of({**plain.specials.roles, "mask": mask}, others))

    # --- what a model is shown, and asked ------------------------------------------------------------------------

    def labels(self, table: T) -> tuple[str, ...]:
        """The labels that the text has, for a head that names none.

        Raises:
            DataError: there is only one.
        """
        return ()

    @abstractmethod
    def examples(self, table: T, how: Encoding) -> E:
        """The text as the task shows it to a model.

        Raises:
            DataError: nothing fits, or a label is unknown. ConfigError: the tokenizer lacks a special token.
        """

    def around(self, how: Encoding) -> tuple[int, ...] | None:
        """How many tokens stand around each text of a row, where a row that is then too long is left out; None where
        the text goes on in the next row."""
        return None

    def of_ids(self, columns: Sequence[Ragged], report: Report, how: Encoding) -> E:
        """As `examples`, of text that is ids already, without special tokens, a column after the other; rows that are
        too long are not among it.

        Raises:
            ConfigError: the task's text is always read into memory.
        """
        raise ConfigError(f"task '{self.name()}' reads no prepared text", "Leave data.shards away.")

    @abstractmethod
    def objective(self, material: Material[T, E]) -> Objective[Any]:
        """What is asked of a model.

        Raises:
            ConfigError: the model's head means something else than the task does.
        """

    # --- how a model is evaluated -----------------------------------------------------------------------------------

    def measure(self, model: Any, recipe: config.Recipe, table: T, tokenizer: Tokenizer) -> Measured:
        """What the training was watched with, on all rows of `table`; nothing is changed in the model.

        Raises:
            DataError: a row has a label that the model does not know.
        """
        examples = self.examples(table, Encoding.of(recipe, tokenizer, evaluation=True))
        found = self.objective(Material(recipe, table, examples, tokenizer)).evaluate(model)
        report = examples.report
        return Measured(found, report.kept, report.noun, tuple(map(str, report.noted)))

    def score(self, loaded: Any, recipe: config.Recipe, table: T, how: Scoring) -> Scored:
        """What `sublayer evaluate` says of a model.

        Args:
            loaded: as `hub.folder.ready` made it.

        Raises:
            ConfigError: `how` asks for what this task has not. DataError: as in `measure`.
        """
        how.refuse("beam", "length_penalty", "tokenize", "write")
        return measured_lines(self, loaded, recipe, table)

    # --- what is said of it --------------------------------------------------------------------------------------

    @abstractmethod
    def does(self, recipe: config.Recipe) -> str:
        """What a model does that was trained by `recipe`, in a sentence without its end."""

    def languages(self, recipe: config.Recipe) -> str:
        """From which language to which, where that is a part of what the model is."""
        return ""

    def held_out(self) -> str:
        """How what was held out is used."""
        return "What was held out stands in `test.jsonl`."


class DocumentTask(Task[C, Rows[Document], E]):
    """One that learns from documents, by their ids alone."""

    reader: ClassVar = DOCUMENTS

    def examples(self, table: Rows[Document], how: Encoding) -> E:
        return self.of_ids([encode_texts(table.texts(), how.tokenizer)], table.report, how)


def measured_lines(task: Task[C, T, E], loaded: Any, recipe: config.Recipe, table: T) -> Scored:
    """What `Task.measure` finds, a line a measure."""
    started = time.perf_counter()
    found = task.measure(loaded.model, recipe, table, loaded.tokenizer)
    lines = {found.noun: f"{found.count:,} ({time.perf_counter() - started:.1f} s)"}
    lines |= {(measure := config.MEASURES[name]).title: measure.shown(value) for name, value in found.scores.items()}
    return Scored(lines, warnings=found.noted)


AnyTask = Task[Any, Any, Any]
"""A task as a recipe asks for it: of what kind its text and its batches are, it alone knows."""


def head_labels(model: config.Model) -> tuple[str, ...]:
    """The labels of the model's head; none where it has no such head."""
    head = getattr(model, "head", None)
    return head.labels if isinstance(head, config.Classification | config.Tagging) else ()


def start_end_template(start: int, end: int) -> Template:
    """`start text end`, and `start text end second end` with the second text's part of type 1."""
    first = (Slot(start), Slot(text=0), Slot(end))
    return Template(first, (*first, Slot(text=1, type=1), Slot(end, type=1)))


def start_template(start: int) -> Template:
    """`start text`: what a language model goes on from."""
    return Template.around((start,), ())
