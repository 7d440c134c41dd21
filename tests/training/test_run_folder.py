"""The folder of a run: one process at a time, the user's own files in it, and what a resumed run is compared by."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from small_run import processes, sublayer, write
from sublayer.files import ASIDE
from sublayer.locks import locked
from sublayer.training.checkpoint import listed
from sublayer.training.run import LOCK


def state(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe, and beside it a run that was interrupted at step 6, with checkpoints at 4 and 6. Not to be changed."""
    folder = tmp_path_factory.mktemp("stopped")
    recipe = write(folder, training={"steps": 12})
    outcome = processes().run("train", recipe, "--out", folder / "run", signal_at_step={"step": 6, "signal": 2})
    assert outcome.code == 130, outcome.err
    return folder


@pytest.fixture
def run(stopped: Path, tmp_path: Path) -> Path:
    """The run of `stopped`, to be changed."""
    return Path(shutil.copytree(stopped / "run", tmp_path / "run"))


@pytest.mark.parametrize("option", ["--resume", "--overwrite"])
def test_a_second_process_is_refused(stopped: Path, run: Path, option: str) -> None:
    before = state(run)
    again = ("train", stopped / "recipe.toml", "--out", run, option)
    with locked(run / LOCK):
        outcome = processes().run(*again)
    assert outcome.code == 2
    assert outcome.complaints == [
        f"sublayer: another process is training in {run}. Wait until it has ended, end it, or choose another --out."
    ]
    assert state(run) == before
    (run / LOCK).touch()  # as a process that was killed leaves it
    assert processes().run(*again).code == 0
    assert not (run / LOCK).exists()


def test_a_second_process_is_refused_where_no_run_stands_yet(stopped: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    with locked(tmp_path / "new" / LOCK):
        outcome = processes().run("train", stopped / "recipe.toml", "--out", tmp_path / "new")
    assert outcome.code == 2
    assert "another process is training" in outcome.err
    assert list((tmp_path / "new").iterdir()) == []


OWN = (
    "notes.txt",
    ".draft.new",
    ".thesis.new/chapter.tex",
    "model.old/weights",
    "model/notes.txt",
    "model/.hidden",
    "unfinished/notes.txt",
    "checkpoints/notes.txt",
    "checkpoints/step-000004/notes.txt",
    "tensorboard/notes.txt",
)


def test_the_users_own_files_stay(stopped: Path, run: Path) -> None:
    """Through the end of the run, a resumption of what has ended, and a run in its place."""
    for name in OWN:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(name)
    for option in ("--resume", "--resume", "--overwrite"):
        outcome = sublayer("train", stopped / "recipe.toml", "--out", run, option)
        assert outcome.code == 0, outcome.err
        assert {name: (run / name).read_text() for name in OWN} == {name: name for name in OWN}
        assert (run / "model" / "config.json").is_file()
        assert not (run / "unfinished" / "config.json").exists()
        assert [path.name for path in listed(run / "checkpoints")] == ["step-000008", "step-000012"]


def test_everybody_may_read_a_run(stopped: Path, run: Path) -> None:
    assert sublayer("train", stopped / "recipe.toml", "--out", run, "--resume").code == 0
    closed = [path for path in run.rglob("*") if not path.stat().st_mode & 0o004]
    assert closed == []


def test_a_checkpoint_too_many_is_pruned(stopped: Path, run: Path) -> None:
    """As a process leaves it that was killed after a checkpoint was written and before the oldest was removed."""
    shutil.copytree(run / "checkpoints" / "step-000004", run / "checkpoints" / "step-000002")
    (run / "checkpoints" / "step-000002" / "state.json").unlink()
    assert sublayer("train", stopped / "recipe.toml", "--out", run, "--resume").code == 0
    shutil.copytree(run / "checkpoints" / "step-000008", run / "checkpoints" / "step-000004")
    assert sublayer("train", stopped / "recipe.toml", "--out", run, "--resume").code == 0
    assert [path.name for path in listed(run / "checkpoints")] == ["step-000008", "step-000012"]
    assert not list(run.rglob(f"{ASIDE}*"))


@pytest.mark.parametrize("name", ["x" * 256, "caf\udce9"])
def test_a_name_that_cannot_be_is_refused_before_the_training(stopped: Path, tmp_path: Path, name: str) -> None:
    outcome = sublayer("train", stopped / "recipe.toml", "--out", tmp_path / name)
    assert outcome.code == 2
    assert outcome.err.startswith("sublayer: the name ")
    assert list(tmp_path.iterdir()) == []
