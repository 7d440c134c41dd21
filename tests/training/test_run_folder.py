"""The folder of a run: one process at a time, the user's own files in it, and what a resumed run is compared by."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path

import pytest
import tomli_w
import torch

from small_run import pairs, processes, sublayer, write
from sublayer.config.load import load_recipe
from sublayer.files import ASIDE
from sublayer.locks import locked
from sublayer.training.checkpoint import listed
from sublayer.training.conditions import FILE
from sublayer.training.progress import Reporter
from sublayer.training.run import train
from sublayer.training.run_folder import LOCK


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


# --- exact resume -------------------------------------------------------------------------------------------------


def test_a_run_goes_on_with_the_threads_that_it_began_with(stopped: Path, run: Path) -> None:
    used: list[int] = []

    class Said(Reporter):
        def say(self, text: str) -> None:
            used.append(torch.get_num_threads())

    before = torch.get_num_threads()
    described = json.loads((run / FILE).read_text())
    assert described["threads"] == 1
    (run / FILE).write_text(json.dumps(described | {"threads": 2}))
    loaded = load_recipe(str(stopped / "recipe.toml"))
    train(loaded, run, resume=True, overwrite=False, device=torch.device("cpu"), reporter=Said())
    assert set(used[1:]) == {2}
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("text.tgt", "the training text or the tokenizer"),
        ("valid.tgt", "the validation text"),
        ("test.tgt", "the test text"),
    ],
)
def test_changed_text_is_noticed(tmp_path: Path, name: str, part: str) -> None:
    given = {"type": "lines", "source": "text.src", "target": "text.tgt"}
    split = {
        "type": "given",
        **{
            key: given | {"source": f"{file}.src", "target": f"{file}.tgt"}
            for key, file in (("validation", "valid"), ("test", "test"))
        },
    }
    recipe = write(tmp_path, training={"steps": 4})
    text = tomllib.loads(recipe.read_text())
    text["data"]["split"] = split
    recipe.write_text(tomli_w.dumps(text))
    rows = pairs(120, 5, seed=7)
    for file, some in (("valid", rows[:10]), ("test", rows[10:20])):
        (tmp_path / f"{file}.src").write_text("".join(f"{one}\n" for one, _ in some))
        (tmp_path / f"{file}.tgt").write_text("".join(f"{other}\n" for _, other in some))
    assert sublayer("train", recipe, "--out", tmp_path / "run").code == 0
    changed = (tmp_path / name).read_text().splitlines()
    changed[0] += " ba"
    (tmp_path / name).write_text("".join(f"{line}\n" for line in changed))
    before = state(tmp_path / "run")
    outcome = sublayer("train", recipe, "--out", tmp_path / "run", "--resume")
    assert outcome.code == 2
    assert f"{part} is not what {tmp_path / 'run'} began with" in outcome.err
    assert state(tmp_path / "run") == before


def test_an_edited_recipe_is_noticed(run: Path) -> None:
    """Also where it is the one in the run's folder that is given and edited, so that the two agree."""
    path = run / "recipe.toml"
    text = path.read_text()
    path.write_text(text.replace("learning_rate = 0.005", "learning_rate = 0.004"))
    before = state(run)
    outcome = sublayer("train", path, "--out", run, "--resume")
    assert outcome.code == 2
    assert "was edited since the run began: training.optimizer.learning_rate was 0.005, is 0.004" in outcome.err
    assert state(run) == before
    # How long it is may be another.
    path.write_text(text.replace("steps = 12", "steps = 14"))
    assert sublayer("train", path, "--out", run, "--resume").code == 0
    assert listed(run / "checkpoints")[-1].name == "step-000014"


def test_what_cannot_be_followed_is_said(stopped: Path, run: Path) -> None:
    described = json.loads((run / FILE).read_text())
    described["machine"] |= {"torch": "1.0", "processor": "another"}
    (run / FILE).write_text(json.dumps(described))
    outcome = sublayer("train", stopped / "recipe.toml", "--out", run, "--resume")
    assert outcome.code == 0
    assert (
        "not where the run began, so not equal to the bit to a run without a break: processor was another"
        in outcome.err
    )
    assert f"torch was 1.0, is {torch.__version__}" in outcome.err


@pytest.mark.parametrize("text", ["{", "[]", '{"recipe": 3}', "\x00"])
def test_damaged_conditions(stopped: Path, run: Path, text: str) -> None:
    (run / FILE).write_text(text)
    outcome = sublayer("train", stopped / "recipe.toml", "--out", run, "--resume")
    assert outcome.code == 2
    assert "conditions.json cannot be read" in outcome.err
    (run / FILE).unlink()
    assert sublayer("train", stopped / "recipe.toml", "--out", run, "--resume").code == 0
