"""Import a model of another library: find it, read it, write it as a model folder with tokenizer and settings."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import torch

from sublayer import config
from sublayer.data.download import Progress
from sublayer.errors import CheckpointError
from sublayer.hub import catalogue, generation_config
from sublayer.hub.ctranslate2.argos import import_argos, is_argos
from sublayer.hub.ctranslate2.reading import import_ctranslate2, is_ctranslate2
from sublayer.hub.destination import require_apart
from sublayer.hub.engine_file import write_engine
from sublayer.hub.folder import ModelBundle, ModelCard, write
from sublayer.hub.gguf import import_gguf
from sublayer.hub.importing import import_folder
from sublayer.hub.location import read_description
from sublayer.hub.resolving import resolve
from sublayer.tasks import usual_task
from sublayer.text import Tokenizer
from sublayer.text.folder import load_folder
from sublayer.untrusted import is_file


def pull(
    what: str,
    out: Path,
    *,
    dtype: torch.dtype | None = None,
    unsafe_pickle: bool = False,
    allow_nonfinite: bool = False,
    progress: Progress | None = None,
) -> ModelBundle:
    """Import the model that `what` names (see `resolving.resolve`), and write it as a model folder at `out`.

    Args:
        dtype: of the weights; unset: as they are (float32 out of a GGUF file).
        unsafe_pickle: also take PyTorch's own files, of which only tensors are read.
        allow_nonfinite: also take weights that are not finite.
        progress: of the download, in bytes.

    Raises:
        CheckpointError: it cannot be found, read or expressed, or its tokenizer is not its own.
    """
    path = resolve(what, unsafe_pickle=unsafe_pickle, progress=progress)
    require_apart(out, [path])
    bundle = read_elsewhere(path, dtype=dtype, unsafe_pickle=unsafe_pickle, allow_nonfinite=allow_nonfinite)
    write(out, bundle, _model_card(what, path, out, bundle))
    if not allow_nonfinite:
        bundle.model.eval()
        write_engine(out, read_description(out), bundle.model)
    return bundle


def read_elsewhere(
    path: Path, *, dtype: torch.dtype | None = None, unsafe_pickle: bool = False, allow_nonfinite: bool = False
) -> ModelBundle:
    """The model, with its tokenizer, in a folder as Hugging Face's hub or CTranslate2 keeps it, in a GGUF file, or in a
    package for Argos Translate.

    Raises:
        CheckpointError: as in `pull`.
    """
    if is_argos(path):
        return import_argos(path, dtype=dtype, allow_nonfinite=allow_nonfinite)
    if is_ctranslate2(path):
        return import_ctranslate2(path, dtype=dtype, allow_nonfinite=allow_nonfinite)
    if is_file(path):
        imported, tokenizer = import_gguf(path, dtype=dtype, allow_nonfinite=allow_nonfinite)
    else:
        imported = import_folder(path, dtype=dtype, unsafe_pickle=unsafe_pickle, allow_nonfinite=allow_nonfinite)
        tokenizer = load_folder(path)
    _require_fit(tokenizer, imported.model.config.vocab_size, path)
    decoding = generation_config.read(imported.model.config, imported.settings, imported.generation, tokenizer)
    return ModelBundle(imported.model, tokenizer, decoding, imported.origin)


# --- tokenizer, card -------------------------------------------------------------------------------------------


def _require_fit(tokenizer: Tokenizer, rows: int, path: Path) -> None:
    """Every token that text can become must have its row. More rows than tokens are common, to round their number."""
    added = tokenizer.backend.get_added_tokens_decoder()
    beyond = [number for number in range(rows, tokenizer.vocab_size) if number not in added]
    if beyond:
        raise CheckpointError(
            f"{path}: the tokenizer has {tokenizer.vocab_size:,} tokens, the embedding only {rows:,} rows",
            "They do not belong together; get the tokenizer that came with these weights.",
        )


def _model_card(what: str, path: Path, out: Path, bundle: ModelBundle) -> ModelCard:
    tree = bundle.model.config
    known = catalogue.find(what) if what in catalogue.names() else None
    title = known.title if known is not None else what
    licence = f"Licence: {known.licence}, {known.licence_url}. Original: {known.original}.\n\n" if known else ""
    stack = tree.encoder if isinstance(tree, config.EncoderOnly) else tree.decoder
    count = sum(parameter.numel() for parameter in bundle.model.parameters())
    task = usual_task(tree)
    use = ("sublayer describe {model}" if task is None else task.command).format(model=out)
    card = f"""# {out.name}

{title}, of the family {bundle.imported["family"]}: {tree.kind}, {stack.layers} layers, width {tree.dim},
{tree.vocab_size:,} tokens, {count:,} parameters. Not trained here: sublayer {version("sublayer")} read it from {what}.

{licence}## Use

    {use}

`sublayer export {out} FOLDER` writes it as `transformers` has it.
"""
    return ModelCard(f"# This model was not trained with a recipe; it was read from {what} ({path.name}).\n", card)
