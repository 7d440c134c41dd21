"""`sublayer export`: a model as other libraries load it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from sublayer.cli.arguments import ModelFolder, Overwrite
from sublayer.cli.terminal import say
from sublayer.errors import InputError

if TYPE_CHECKING:
    from sublayer.hub.folder import ModelBundle


Format = Literal["hf", "peft", "ctranslate2", "argos", "gguf", "onnx"]
WEIGHTS: Mapping[Format, Sequence[str]] = {
    "ctranslate2": ("float32", "float16", "bfloat16", "int8"),
    "argos": ("float32", "float16", "bfloat16", "int8"),
    "gguf": ("F32", "F16", "Q8_0", "Q4_0"),
}
"""Weight formats, the default first; of the other formats there is a choice of none."""
FILES: Mapping[Format, str] = {"argos": ".argosmodel", "gguf": ".gguf", "onnx": ".onnx"}
"""Formats that are one file, with its suffix."""


def export(
    model: ModelFolder,
    out: Annotated[Path, typer.Argument(help="Folder to write; for argos, gguf and onnx the file.", metavar="OUT")],
    form: Annotated[
        Format,
        typer.Option(
            "--format",
            help="hf: a folder that `transformers` loads. peft: the adapters alone, for a base exported as hf."
            " ctranslate2: a folder for `ctranslate2`. argos: a package for Argos Translate and LibreTranslate."
            " gguf: a file for llama.cpp. onnx: an encoder for ONNX Runtime.",
        ),
    ] = "hf",
    family: Annotated[
        str | None,
        typer.Option(
            help="Model family (architecture) to write, with hf and peft.",
            show_default="the one it was imported from, or the first that fits",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Weight format. ctranslate2, argos: float32, float16, bfloat16 or int8. gguf: F32, F16, Q8_0 or Q4_0.",
            show_default="float32",
        ),
    ] = None,
    source: Annotated[
        str | None, typer.Option("--from", help="Language code of the source, with argos.", metavar="CODE")
    ] = None,
    target: Annotated[
        str | None, typer.Option("--to", help="Language code of the target, with argos.", metavar="CODE")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Export a model and its tokenizer for another library.

    The export is exact, but for narrower weights. A model with parts that the format cannot express is refused; the
    error names them, and what could stand in their place.

    Example: sublayer export models/my-llama exported/my-llama --format hf

    Example: sublayer export runs/en-es exported/en-es --format ctranslate2 --weights int8
    """
    from sublayer.hub import folder
    from sublayer.hub.destination import require_destination, require_file_destination, with_bases

    chosen = _weights(form, weights)
    if family is not None and form not in ("hf", "peft"):
        raise InputError(f"--family = '{family}' goes with --format hf and peft", "Leave it out.")
    if (form == "argos") != (source is not None) or (form == "argos") != (target is not None):
        raise InputError(
            "--from and --to go with --format argos, and it needs both", "Give codes of ISO 639: --from en --to es."
        )
    sources = with_bases(folder.find(model))
    if form in FILES:
        require_file_destination(out, sources, FILES[form], overwrite=overwrite)
    else:
        require_destination(out, sources, overwrite=overwrite)
    found = folder.read(model)
    match form:
        case "hf":
            said = _hf(out, found, family)
        case "peft":
            from sublayer.hub.peft import export_adapters

            said = export_adapters(out, found, family).name
        case "ctranslate2":
            from sublayer.hub.ctranslate2.writing import export as run

            said = _unsaid(run(out, found, chosen), found, chosen)
        case "argos":
            from sublayer.hub.ctranslate2.argos import Language, export_argos

            assert source is not None
            assert target is not None
            here = folder.find(model)
            names = _languages(here)
            pair = Language(source, names[0] or source), Language(target, names[1] or target)
            card = (here / "README.md").read_text(encoding="utf-8")
            said = _unsaid(export_argos(out, found, *pair, card, chosen), found, chosen)
        case "gguf":
            from sublayer.hub.gguf_writing import export_gguf

            said = f"{export_gguf(out, found, chosen, model.name)}, {chosen}"
        case "onnx":
            from sublayer.hub.onnx import export_onnx

            said = ", ".join(export_onnx(out, found))
    say(f"{form}: {out} ({said})")


def _weights(form: Format, weights: str | None) -> Any:
    """The weight format, as it is spelled for `form`.

    Raises:
        InputError: `form` has no such weight format.
    """

    known = WEIGHTS.get(form, ())
    if weights is None:
        return known[0] if known else None
    found = next((each for each in known if each.lower() == weights.lower()), None)
    if found is None:
        remedy = f"Known: {', '.join(known)}." if known else "Leave it out."
        raise InputError(f"--weights = '{weights[:40]}' is no weight format of --format {form}", remedy)
    return found


def _hf(out: Path, found: ModelBundle, family: str | None) -> str:
    from sublayer.hub.exporting import export as run
    from sublayer.hub.families import FAMILIES
    from sublayer.hub.generation_config import inexpressible

    origin = found.imported
    # A model that came from CTranslate2 has no family of its own.
    own = origin.get("family") if origin.get("family") in [each.name for each in FAMILIES] else None
    written = run(
        out,
        found.model,
        tokenizer=found.tokenizer,
        family=own if family is None else family,
        tokens=origin.get("tokens"),
        decoding=found.decoding,
    )
    for each in inexpressible(found.model.config, found.decoding):
        say(f"not said in generation_config.json: {each}", err=True)
    return written.name


def _unsaid(unsaid: list[str], found: ModelBundle, weights: str) -> str:
    """Say what the caller of CTranslate2 has to pass."""
    for each in unsaid:
        say(f"not said in config.json, to be passed to CTranslate2: {each}", err=True)
    return f"{found.model.config.kind}, {weights}"


def _languages(folder: Path) -> tuple[str | None, str | None]:
    """The names of the languages, as far as the recipe of a model says them."""
    import tomllib

    try:
        read: dict[str, Any] = tomllib.loads((folder / "recipe.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None, None
    data: Any = read.get("data")
    table = cast("dict[str, Any]", data) if isinstance(data, dict) else {}
    source, target = table.get("source_language"), table.get("target_language")
    return source if isinstance(source, str) else None, target if isinstance(target, str) else None
