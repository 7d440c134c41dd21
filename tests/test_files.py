"""Files and folders written aside: what is the user's stays, what is ours goes, whatever ends the process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from sublayer import files
from sublayer.errors import StorageError
from sublayer.files import ASIDE, OWNER, clear_leftovers, remove_parts, replacing, working_folder, write_text
from sublayer.hub.tensors import write_tensors
from sublayer.locks import LockedError, locked

posix = pytest.mark.skipif(os.name != "posix", reason="signals and links as POSIX has them")


def state(folder: Path) -> dict[str, str]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def write_folder(path: Path, **contents: str) -> None:
    with replacing(path, ("config.json", "weights*")) as aside:
        aside.mkdir()
        for name, text in contents.items():
            (aside / name.replace("_", ".")).write_text(text)


def users_own(path: Path) -> dict[str, str]:
    """What a user might have in and beside a model folder `path`, with names like those of temporary files."""
    own = {
        "model/notes.txt": "mine",
        "model/figures/deep/a.svg": "mine",
        "model/.hidden": "mine",
        "model.old/thesis.tex": "mine",
        ".draft.new": "mine",
        ".model.1.new": "mine",
        ".thesis.new/chapter.tex": "mine",
        ".sublayer-notes/a.txt": "mine",
        ".sublayer-plan": "mine",
    }
    for name, text in own.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    return own


def test_a_folder_is_replaced_and_what_is_not_its_part_stays(tmp_path: Path) -> None:
    write_folder(tmp_path / "model", config_json="1", weights_1="1", weights_2="1")
    own = users_own(tmp_path)
    write_folder(tmp_path / "model", config_json="2", weights_1="2")
    assert state(tmp_path) == own | {"model/config.json": "2", "model/weights.1": "2"}


@posix
def test_links_and_other_things_of_the_users_stay(tmp_path: Path) -> None:
    write_folder(tmp_path / "model", config_json="1")
    (tmp_path / "model" / "link").symlink_to("nowhere")
    (tmp_path / "model" / "folder").mkdir(mode=0o750)
    os.mkfifo(tmp_path / "model" / "pipe")
    write_folder(tmp_path / "model", config_json="2")
    assert (tmp_path / "model" / "link").readlink() == Path("nowhere")
    assert stat.S_IMODE((tmp_path / "model" / "folder").stat().st_mode) == 0o750
    assert (tmp_path / "model" / "pipe").is_fifo()


@posix
def test_a_link_is_followed(tmp_path: Path) -> None:
    write_folder(tmp_path / "real", config_json="1")
    (tmp_path / "link").symlink_to("real")
    write_text(tmp_path / "file", "1")
    (tmp_path / "name").symlink_to("file")
    write_folder(tmp_path / "link", config_json="2")
    write_text(tmp_path / "name", "2")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "name").is_symlink()
    assert (tmp_path / "real" / "config.json").read_text() == (tmp_path / "file").read_text() == "2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link", "name", "real"]


@posix
def test_a_device_and_a_pipe_are_written_to_and_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE)
    write_text(tmp_path / "pipe", "through")
    assert reader.communicate(timeout=60)[0] == b"through"
    assert (tmp_path / "pipe").is_fifo()
    write_text(Path("/dev/null"), "gone")
    assert Path("/dev/null").is_char_device()


def test_a_fault_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    write_folder(tmp_path / "model", config_json="1")
    own = users_own(tmp_path)
    before = state(tmp_path)

    def fail() -> None:
        with replacing(tmp_path / "model") as aside:
            aside.mkdir()
            (aside / "config.json").write_text("2")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert state(tmp_path) == before
    assert own.items() <= before.items()


def test_another_process_may_put_a_folder_there_at_the_same_moment(tmp_path: Path) -> None:
    """Two writers whose renames fall between each other's: one of them stands there, whole, with the user's files."""
    for _ in range(3):
        write_folder(tmp_path / "model", config_json="0")
        users_own(tmp_path)
        with replacing(tmp_path / "model") as one:
            one.mkdir()
            (one / "config.json").write_text("1")
            write_folder(tmp_path / "model", config_json="2")
        assert (tmp_path / "model" / "config.json").read_text() == "1"
        assert (tmp_path / "model" / "notes.txt").read_text() == "mine"


def test_a_folder_that_appears_between_the_two_renames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "model", config_json="0")
    own = users_own(tmp_path)
    real, seen = Path.rename, list[Path]()

    def rename(self: Path, goal: Path) -> Path:
        if Path(goal) == tmp_path / "model" and not seen:
            seen.append(self)
            goal.mkdir()
            (goal / "config.json").write_text("another")
        return real(self, goal)

    monkeypatch.setattr(Path, "rename", rename)
    write_folder(tmp_path / "model", config_json="1")
    assert seen
    assert state(tmp_path) == own | {"model/config.json": "1"}


def writing(folder: str, moment: str) -> None:
    """Die while the folder "model" is written: before its files, before the renames, or between them."""

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    real = Path.rename
    if moment == "between":

        def rename(self: Path, goal: Path) -> Path:
            return die() or self if goal.name == "model" and goal.parent == Path(folder) else real(self, goal)

        Path.rename = rename  # type: ignore[method-assign]
    if moment == "flush":
        files._flush = die
    with replacing(Path(folder) / "model", ("config.json",)) as aside:
        aside.mkdir()
        (aside / "config.json").write_text("2")
        if moment == "files":
            die()


@posix
@pytest.mark.parametrize("moment", ["files", "flush", "between"])
def test_what_a_killed_process_left_is_cleared_and_nothing_else(tmp_path: Path, moment: str) -> None:
    write_folder(tmp_path / "model", config_json="1")
    own = users_own(tmp_path)
    before = state(tmp_path)
    process = multiprocessing.get_context("fork").Process(target=writing, args=(str(tmp_path), moment))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert list(tmp_path.glob(f"{ASIDE}*/{OWNER}"))
    clear_leftovers(tmp_path)
    assert state(tmp_path) == before
    assert own.items() <= before.items()


def test_what_is_being_written_is_not_cleared(tmp_path: Path) -> None:
    with working_folder(tmp_path) as work:
        (work / "half").write_text("half")
        clear_leftovers(tmp_path)
        with working_folder(tmp_path) as other:
            assert other != work
        assert (work / "half").read_text() == "half"
    assert list(tmp_path.iterdir()) == []


def test_parts_are_removed_and_the_folder_if_it_is_empty(tmp_path: Path) -> None:
    for name in ("one", "other"):
        write_folder(tmp_path / name, config_json="1", weights_1="1")
    (tmp_path / "other" / "notes.txt").write_text("mine")
    for name in ("one", "other", "missing"):
        remove_parts(tmp_path / name, ("config.json", "weights*"))
    assert state(tmp_path) == {"other/notes.txt": "mine"}
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


@posix
def test_everybody_may_read_what_the_umask_lets_them(tmp_path: Path) -> None:
    for umask, file, folder in ((0o022, 0o644, 0o755), (0o027, 0o640, 0o750), (0o077, 0o600, 0o700)):
        before = os.umask(umask)
        try:
            with replacing(tmp_path / f"{umask}") as aside:
                aside.mkdir()
                write_tensors(aside / "weights", {"x": torch.zeros(2)})
                write_text(aside / "text", "text")
        finally:
            os.umask(before)
        found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / f"{umask}").iterdir()}
        assert found == {"weights": file, "text": file}
        assert stat.S_IMODE((tmp_path / f"{umask}").stat().st_mode) == folder


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("caf\udce9", r"the name .*caf\\xe9 cannot be a file's: it is not UTF-8, or holds a NUL\. Choose another"),
        ("a\0b", r"the name .*a\\x00b cannot be a file's"),
        ("x" * 256, r"the name x{40}… has 256 bytes, and a file's has 255 at most\. Choose a shorter"),
        ("ü" * 128, r"has 256 bytes"),
    ],
)
def test_names_that_cannot_be(tmp_path: Path, name: str, says: str) -> None:
    with pytest.raises(StorageError, match=says):
        write_text(tmp_path / name, "text")


def test_the_longest_name(tmp_path: Path) -> None:
    write_text(tmp_path / ("x" * 255), "text")
    write_folder(tmp_path / ("y" * 255), config_json="1")
    write_folder(tmp_path / ("y" * 255), config_json="2")
    assert (tmp_path / ("y" * 255) / "config.json").read_text() == "2"


def a_file(folder: Path) -> Path:
    (folder / "file").write_text("mine")
    return folder / "file"


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (lambda folder: write_text(folder, "text"), "a folder stands there.*Something else stands there"),
        (lambda folder: write_text(a_file(folder) / "below", "text"), "Something else stands there"),
        (lambda folder: write_folder(a_file(folder), config_json="1"), "a file stands there.*Something else"),
    ],
)
def test_the_remedy_is_for_what_went_wrong(tmp_path: Path, write: Callable[[Path], None], says: str) -> None:
    with pytest.raises(StorageError, match=says):
        write(tmp_path)


def test_a_lock_is_held_once_and_its_file_goes(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path), pytest.raises(LockedError), locked(path):
        raise AssertionError
    assert not path.exists()
    path.touch()  # as a killed process leaves it
    with locked(path):
        pass
    assert not path.exists()


@posix
def test_a_dead_process_holds_no_lock(tmp_path: Path) -> None:
    script = "import sys, pathlib, time; from sublayer.locks import locked\n"
    script += "with locked(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", script, tmp_path / "lock"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(LockedError), locked(tmp_path / "lock"):
        pass
    process.kill()
    process.communicate()
    with locked(tmp_path / "lock"):
        pass


def test_a_home_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUBLAYER_CACHE", "~nosuch/cache")
    with pytest.raises(StorageError, match=r"SUBLAYER_CACHE=~nosuch/cache: there is no such home folder\. Set"):
        files.cache_folder()
    with suppress(KeyError):
        monkeypatch.delenv("SUBLAYER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "~nosuch")
    with pytest.raises(StorageError, match="XDG_CACHE_HOME=~nosuch"):
        files.cache_folder()
