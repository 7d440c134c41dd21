"""Packages for Argos Translate and LibreTranslate, out and in: `.argosmodel`, a zip with one folder.

metadata.json          languages and versions
README.md              the model card
sentencepiece.model    how text is cut (older packages: bpe.model, which Moses' rules come before)
model/                 a folder of CTranslate2
"""

from __future__ import annotations

import re
import shutil
import tempfile
import zipfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch

from sublayer.errors import CheckpointError, InputError
from sublayer.files import replacing, write_json, write_text
from sublayer.hub.ctranslate2.model_bin import Weights
from sublayer.hub.ctranslate2.reading import import_ctranslate2
from sublayer.hub.ctranslate2.writing import expressed, settings_of, write_parts
from sublayer.hub.folder import ModelBundle
from sublayer.hub.sources import AGAIN
from sublayer.models import EncoderDecoder
from sublayer.text.piece_model import piece_model_of, write_piece_model
from sublayer.untrusted import is_file, library_errors, read_object

SUFFIX = ".argosmodel"
PACKAGE_VERSION = "1.0"
ARGOS_VERSION = "1.9"
"""Of Argos Translate, from which on such a package is read."""
CODE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")
"""A language, as ISO 639 and BCP 47 write it."""
LARGEST = 2**34
"""Bytes that a package may unpack to."""
USUAL, MOST_TIMES = 2**26, 100
"""Bytes that any package may unpack to; and a larger one to so many times its own size, for weights compress badly."""
MOST = 10_000
"""Files in a package."""
PIECES = "sentencepiece.model"


@dataclass(frozen=True)
class Language:
    """code: as ISO 639 has it. name: what people read."""

    code: str
    name: str


def export_argos(
    path: Path, bundle: ModelBundle, source: Language, target: Language, card: str, weights: Weights = "float32"
) -> list[str]:
    """Write a package, whole or not at all.

    Args:
        card: README.md.

    Returns:
        What the package cannot say of how the model is used, a line each.

    Raises:
        CheckpointError: CTranslate2 cannot express the model, or Argos its tokenizer; it is named. InputError: a code
            is none. StorageError: the disk refused.
    """
    for language in (source, target):
        if not CODE.fullmatch(language.code):
            raise InputError(f"{language.code[:40]!r} is no code of a language", "Give one of ISO 639: en, es, pt-BR.")
    model = expressed(bundle.model)
    if not isinstance(model, EncoderDecoder):
        raise CheckpointError(
            f"Argos Translate takes models that translate, and this one is of the kind '{model.config.kind}'",
            "Export an encoder-decoder, or this one with --format ctranslate2.",
        )
    try:
        pieces = piece_model_of(bundle.tokenizer.backend)
    except InputError as error:
        raise CheckpointError(f"Argos Translate cuts text by SentencePiece, and {error.what}", error.remedy) from None
    settings, unsaid = settings_of(model.config, bundle)
    name = f"translate-{source.code}_{target.code}-{PACKAGE_VERSION.replace('.', '_')}"
    with replacing(path) as aside, tempfile.TemporaryDirectory(dir=aside.parent) as work:
        folder = Path(work) / name
        (folder / "model").mkdir(parents=True)
        write_parts(folder / "model", model, bundle.tokenizer, settings, weights)
        write_piece_model(folder / PIECES, pieces, bundle.tokenizer.specials.roles)
        write_text(folder / "README.md", card)
        write_json(
            folder / "metadata.json",
            {
                "package_version": PACKAGE_VERSION,
                "argos_version": ARGOS_VERSION,
                "from_code": source.code,
                "from_name": source.name,
                "to_code": target.code,
                "to_name": target.name,
            },
        )
        with zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED) as package:
            for file in sorted(folder.rglob("*")):
                if file.is_file():
                    package.write(file, file.relative_to(work).as_posix())
    return unsaid


def is_argos(path: Path) -> bool:
    """Whether a path is a package, by its name."""
    return path.suffix == SUFFIX and is_file(path)


def import_argos(path: Path, *, dtype: torch.dtype | None = None, allow_nonfinite: bool = False) -> ModelBundle:
    """The model in a package.

    Raises:
        CheckpointError: as `import_ctranslate2`; or it is no zip, or unpacks to more than it may, or cuts text by
            Moses' rules and BPE.
    """
    with _unpacked(path) as folder:
        if read_object(folder / "metadata.json").get("type", "translate") != "translate":
            raise CheckpointError(f"{path} holds no model that translates", "Take a package that does.")
        if not (folder / PIECES).is_file():
            raise CheckpointError(
                f"{path} has no {PIECES}: such a package cuts text by Moses' rules and BPE, which sublayer does not",
                "Take a package with a SentencePiece model.",
            )
        return import_ctranslate2(
            folder / "model", pieces=folder / PIECES, dtype=dtype, allow_nonfinite=allow_nonfinite
        )


@contextmanager
def _unpacked(path: Path) -> Generator[Path]:
    """The folder in a package, but for the models that find the ends of sentences."""
    with tempfile.TemporaryDirectory(prefix="sublayer-") as work:
        damaged = library_errors(f"{path} is damaged or no package of Argos Translate", AGAIN)
        with damaged, zipfile.ZipFile(path) as package:
            for entry, name in _wanted(package, path.stat().st_size).items():
                goal = Path(work) / name
                goal.parent.mkdir(exist_ok=True)
                with package.open(entry) as source, goal.open("wb") as file:
                    shutil.copyfileobj(source, file)
        yield Path(work)


def _wanted(package: zipfile.ZipFile, size: int) -> dict[zipfile.ZipInfo, str]:
    """What is unpacked, and where to.

    Args:
        size: of the package itself, in bytes.
    """
    entries = package.infolist()
    roots = [entry.filename.removesuffix("metadata.json") for entry in entries if _depth(entry) == 2]
    roots = [root for root in roots if f"{root}metadata.json" in package.NameToInfo]
    largest = min(LARGEST, max(USUAL, MOST_TIMES * size))
    if len(entries) > MOST or sum(entry.file_size for entry in entries) > largest:
        raise ValueError(f"it would unpack to more than {MOST:,} files or {largest:,} bytes")
    if not roots:
        raise ValueError("there is no folder with a metadata.json in it")
    root = roots[0]
    found: dict[zipfile.ZipInfo, str] = {}
    for entry in entries:
        name = entry.filename.removeprefix(root)
        inside = PurePosixPath(name).parts
        wanted = len(inside) == 1 or (len(inside) == 2 and inside[0] == "model")
        strange = ".." in inside or name.startswith("/") or "\\" in name
        if entry.filename.startswith(root) and wanted and not entry.is_dir() and not strange:
            found[entry] = name
    return found


def _depth(entry: zipfile.ZipInfo) -> int:
    return len(PurePosixPath(entry.filename).parts) if entry.filename.endswith("metadata.json") else 0
