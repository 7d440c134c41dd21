"""`pull`, `merge`, `export` onto a place that is taken: what is read is not written over, the user's files stay."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from adapted import write_adapters, write_base
from checkpoints import tiny_llama
from small_run import sublayer
from sublayer.errors import CheckpointError
from sublayer.hub.adapted import weights_sum
from sublayer.hub.folder import read


def state(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a checkpoint "theirs", a model "base", "adapters" on it, and a link to each."""
    tiny_llama(tmp_path / "theirs")
    write_base(tmp_path / "base")
    write_adapters(tmp_path / "adapters", tmp_path / "base")
    for name in ("theirs", "base", "adapters"):
        (tmp_path / f"to-{name}").symlink_to(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        ("pull", "theirs", "theirs"),
        ("pull", "theirs", "to-theirs"),
        ("pull", "to-theirs", "theirs"),
        ("pull", "theirs", "../{}/theirs"),
        ("pull", "theirs", "."),
        ("export", "base", "base"),
        ("export", "to-base", "base"),
        ("export", "adapters", "base"),
        ("export", "adapters", "to-adapters"),
        ("export", "adapters", "base", "--format", "peft"),
        ("merge", "adapters", "base"),
        ("merge", "adapters", "to-base"),
        ("merge", "adapters", "adapters"),
        ("merge", "adapters", "."),
        ("merge", "adapters", ".."),
    ],
    ids=" ".join,
)
def test_nothing_is_written_over_what_is_read(place: Path, command: tuple[str, ...]) -> None:
    before = state(place)
    words = [word.format(place.name) for word in command]
    outcome = sublayer(*words, "--overwrite")
    assert outcome.code == 2
    assert outcome.err.startswith("sublayer: ")
    assert "holds what is to be read" in outcome.err
    assert state(place) == before


def test_the_current_folder_is_not_replaced(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "empty").mkdir()
    monkeypatch.chdir(place / "empty")
    outcome = sublayer("pull", "../theirs", ".", "--overwrite")
    assert (outcome.code, outcome.err) == (
        2,
        "sublayer: . is the current folder, or holds it. Name a folder inside it.\n",
    )
    assert Path.cwd() == place / "empty"


@pytest.mark.parametrize("command", [("pull", "theirs"), ("merge", "adapters"), ("export", "base")], ids=" ".join)
def test_overwriting_keeps_what_is_not_the_models(place: Path, command: tuple[str, ...]) -> None:
    assert sublayer(*command, "out").code == 0
    clean = state(place / "out")
    assert "holds" not in sublayer(*command, "out").err
    own = {"out/notes.txt": b"mine", "out.old/thesis.tex": b"mine", ".out.new": b"mine", "out/a/b.txt": b"mine"}
    for name, text in own.items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_bytes(text)
    # What a model of another kind would leave behind is a part of it, and goes.
    stale = "model-00001-of-00002.safetensors" if command[0] == "export" else "adapter.safetensors"
    (place / "out" / stale).write_bytes(b"stale")
    assert sublayer(*command, "out", "--overwrite").code == 0
    found = {name: text for name, text in state(place).items() if name.startswith(("out", ".out"))}
    # It knows when the weights beside it were written.
    assert ("out/engine.bin" in found) == (clean.pop("engine.bin", None) is not None)
    found.pop("out/engine.bin", None)
    assert found == own | {f"out/{name}": text for name, text in clean.items()}


@pytest.mark.parametrize("command", [("pull", "theirs"), ("merge", "adapters"), ("export", "base")], ids=" ".join)
def test_what_is_no_model_is_not_overwritten(place: Path, command: tuple[str, ...]) -> None:
    (place / "project").mkdir()
    (place / "project" / "README.md").write_text("mine")
    (place / "project" / "config.json").write_text("{}")
    (place / "file").write_text("mine")
    for out in ("project", "file"):
        outcome = sublayer(*command, out, "--overwrite")
        assert outcome.code == 2
        assert f"what stands at {out} is not a model folder" in outcome.err
    assert (place / "project" / "README.md").read_text() == (place / "file").read_text() == "mine"


@pytest.mark.parametrize("name", ["x" * 256, os.fsdecode(b"caf\xe9"), "a/" + "x" * 256 + "/b"])
@pytest.mark.parametrize("command", [("pull", "theirs"), ("merge", "adapters"), ("export", "base")], ids=" ".join)
def test_names_that_cannot_be_are_refused_first(place: Path, command: tuple[str, ...], name: str) -> None:
    before = sorted(place.iterdir())
    outcome = sublayer(*command, name)
    assert outcome.code == 2
    assert outcome.err.startswith("sublayer: the name ")
    assert sorted(place.iterdir()) == before


def based_on(folder: Path, base: Path) -> None:
    """Say that the adapters in `folder` belong to `base`, with the sum that goes with it."""
    description = json.loads((folder / "config.json").read_text())
    description["base"] = {"path": str(base), "sha256": weights_sum(base)}
    (folder / "config.json").write_text(json.dumps(description))


def test_adapters_whose_base_is_themselves(place: Path) -> None:
    """With weights beside the adapters, whose sum a description can name; directly, and by way of another folder."""
    shutil.copytree(place / "adapters", place / "others")
    for name in ("adapters", "others"):
        save_file(load_file(place / "base" / "model.safetensors"), place / name / "model.safetensors")
    based_on(place / "adapters", place / "to-adapters")
    with pytest.raises(CheckpointError, match=r"adapters whose base, in the end, is themselves: .*\. Put the path"):
        read(place / "adapters")
    based_on(place / "adapters", place / "others")
    based_on(place / "others", place / "adapters")
    for command in (("describe",), ("merge", "adapters", "out"), ("generate", "adapters", "a")):
        outcome = sublayer(*command, *(["adapters"] if len(command) == 1 else []))
        if command[0] != "describe":
            assert outcome.code == 2
            assert "is themselves" in outcome.err
        assert "Traceback" not in outcome.err
