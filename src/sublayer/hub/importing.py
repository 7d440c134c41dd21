"""Another library's checkpoint -> our model.

The tree is read from its config.json, the model is built without memory (on the meta device), and its tensors are
filled in rule by rule, each straight at the wanted place and in the wanted type: what is held beside the model is never
more than what one rule moves.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from sublayer.config.foreign import GENERATION, require, require_all
from sublayer.config.report import report
from sublayer.errors import CheckpointError, SublayerError, named
from sublayer.hub.families import FAMILIES, REFUSED
from sublayer.hub.family import Family, Tree
from sublayer.hub.rules import Rule
from sublayer.hub.sentences import read_modules, with_head
from sublayer.hub.sources import AGAIN, Source, open_source
from sublayer.hub.tokens import SpecialTokens
from sublayer.hub.weights import nonfinite, refuse_nonfinite, require_layers, settle, untied
from sublayer.models import Transformer, build_model
from sublayer.models.empty import without_memory
from sublayer.nn.tap import put
from sublayer.untrusted import is_file, read_object


@dataclass(frozen=True, eq=False)
class Imported:
    """A model from elsewhere.

    family: whose it is. settings: its config.json. generation: its generation_config.json, empty where there is none.
    """

    model: Transformer
    family: Family
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    generation: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def tokens(self) -> SpecialTokens:
        """The tokens with a part of their own in generating."""
        return SpecialTokens.read(self.settings, self.generation)

    @property
    def origin(self) -> dict[str, Any]:
        """What our own folder keeps of where a model came from: enough to write it back (`exporting.export`)."""
        return {"family": self.family.name, "tokens": self.tokens.write()}


def import_folder(
    folder: Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    unsafe_pickle: bool = False,
    allow_nonfinite: bool = False,
) -> Imported:
    """The model in a folder of Hugging Face's hub (config.json, safetensors), or of sentence-transformers.

    Args:
        device: where to. dtype: in which type; unset: the one that all its tensors are in, or, of several, the
            narrowest that holds them all.
        unsafe_pickle: also take PyTorch's own files, of which only tensors are read.
        allow_nonfinite: also take weights that are not finite.

    Raises:
        CheckpointError: the family or one of its settings is unknown, a file is missing or damaged, or tensors are
            missing, unexpected or misshapen (all are named at once).
    """
    sentences = read_modules(folder)
    if sentences is not None:
        folder = sentences.transformer
    if not is_file(folder / "config.json"):
        raise CheckpointError(f"{folder} holds no config.json", _remedy_without_config(folder))
    settings = read_object(folder / "config.json")
    if sentences is not None:
        # Whatever it was trained as, what is pooled is the output of the encoder alone.
        settings.pop("architectures", None)
    family = find_family(settings, str(folder / "config.json"))
    source = open_source(folder, unsafe_pickle=unsafe_pickle)
    if family.masked is not None and sentences is None and settings.get("architectures") is None:
        name, tensor = family.masked
        if tensor in source.headers:
            settings["architectures"] = [name]
    tree = read_tree(family, settings, set(source.headers))
    if sentences is not None:
        tree = with_head(tree, sentences.head)
    model = import_tensors(tree, family, source, device=device, dtype=dtype, allow_nonfinite=allow_nonfinite)
    generation = folder / "generation_config.json"
    said = read_object(generation) if generation.is_file() else {}
    require_all(settings, GENERATION, str(folder / "config.json"))
    require_all(said, GENERATION, str(generation))
    return Imported(model, family, settings, said)


# What other toolkits leave in a folder: patterns of files, all of which must be there.
OTHERS: Mapping[str, tuple[str, ...]] = {
    "fairseq": ("*.pt", "dict.*txt"),
    "Marian": ("*.npz", "*.yml"),
    "OpenNMT-py, or another toolkit of PyTorch": ("*.pt",),
    "TensorFlow": ("*.ckpt*",),
}


def _remedy_without_config(folder: Path) -> str:
    named = next((name for name, files in OTHERS.items() if all(any(folder.glob(each)) for each in files)), None)
    if named is None:
        return "Name the folder that config.json and the weights lie in."
    return (
        f"It looks like a checkpoint of {named}, which is not read here: convert it with the scripts of transformers"
        " (convert_*_to_pytorch.py), and pull what they write."
    )


def find_family(settings: Mapping[str, Any], where: str) -> Family:
    """The family that a config.json names by its `model_type`.

    Raises:
        CheckpointError: it names none, or one that is not known.
    """
    kind = settings.get("model_type")
    if kind is None:
        if "format" in settings:
            raise CheckpointError(f"{where} is of sublayer's own format", "It needs no pull: give it to any command.")
        kinds = ", ".join(family.name for family in FAMILIES)
        likely = "bert" if {"type_vocab_size", "hidden_size", "intermediate_size"} <= settings.keys() else None
        remedy = f"Known: {kinds}." if likely is None else "It looks like BERT's."
        raise CheckpointError(
            f"{where} names no model_type, as configs of before 2020 do not",
            f'{remedy} Write the line "model_type": "{likely or "NAME"}" into it.',
        )
    require(kind, "model_type", "word", where)
    has = f"{where} has model_type = {kind!r}"
    if kind in REFUSED:
        raise CheckpointError(f"{has}: {REFUSED[kind]}", "Take that one.")
    known = {family.name: family for family in FAMILIES}
    return named(known, kind, CheckpointError, f"{has}, which sublayer does not know")


def read_tree(family: Family, settings: Mapping[str, Any], names: set[str] | None = None) -> Tree:
    """The tree that a config.json describes.

    Args:
        names: of the checkpoint's tensors, which settle what the config leaves open; None: it stays open.

    Raises:
        CheckpointError: a setting is unknown, unsupported, or does not fit the others.
    """
    try:
        tree = family.read(settings)
        return tree if names is None or family.settle is None else family.settle(tree, names)
    except SublayerError:
        raise
    except ValidationError as error:
        problems = "; ".join(report(error, config_root(error)))
        raise CheckpointError(f"this {family.name} config.json describes no model: {problems}", AGAIN) from None
    except (TypeError, AttributeError, LookupError, ArithmeticError, ValueError) as error:
        raise CheckpointError(
            f"this {family.name} config.json has a value of the wrong kind ({error})", AGAIN
        ) from error


def import_tensors(
    tree: Tree,
    family: Family,
    source: Source,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    allow_nonfinite: bool = False,
) -> Transformer:
    """The model of this tree with the tensors of a checkpoint of this family; in evaluation mode.

    Raises:
        CheckpointError: tensors are missing, unexpected, misshapen, of a type that is none of numbers, or not finite;
            all are named.
    """
    require_layers(tree, len(source.headers), source.name)
    with without_memory():
        model = build_model(tree)
    rules = family.rules(tree)
    parameters, ties = untied(model)
    _require_all_covered(parameters, ties, rules, family)
    names = _account(model, rules, family, source)
    used = [names[name] for rule in rules for name in rule.theirs]
    wanted = _common_type(source, used) if dtype is None else dtype
    # On the meta device this moves nothing: it tells the fixed tables how precise to be.
    model.to(wanted)
    infinite: list[str] = []
    for rule in rules:
        moved = _moved(rule, names, source, device, wanted)
        if not allow_nonfinite and (wrong := nonfinite(dict(moved))):
            # By their names in the file: several of theirs may be one of ours.
            theirs = nonfinite({names[name]: source.tensor(names[name]) for name in rule.theirs})
            infinite += theirs or [f"{name}, once it is {wanted}".replace("torch.", "") for name in wrong]
        for name, tensor in moved:
            put(model, ties.get(name, name), nn.Parameter(tensor))
    refuse_nonfinite(infinite, source.name)
    settle(model, ties, device)
    return model.eval()


def config_root(error: ValidationError) -> Any:
    """The part of the tree that a validation error is about."""
    from sublayer.config import model as tree
    from sublayer.config.part import Part

    return getattr(tree, error.title, Part)


def _account(model: Transformer, rules: Sequence[Rule], family: Family, source: Source) -> dict[str, str]:
    """For every name of the rules, under which the source holds it; raises where anything is left on either side."""
    names, duplicates = _names(model.config, rules, family, source)
    expected = _their_shapes(model, rules)
    wrong = [f"missing: {name}" for name in expected if name not in names]
    for name, found in names.items():
        shape = source.headers[found].shape
        if shape != expected[name]:
            wrong.append(f"misshapen: {found} is {shape} and should be {expected[name]}")
        if source.headers[found].dtype not in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
            wrong.append(f"of an unsupported type (quantized?): {found}")
    fixed = {name: table for name, table in family.fixed(model.config).items() if name in source.headers}
    for name, table in fixed.items():
        if not _agree(source.tensor(name), table):
            wrong.append(f"not what config.json says: {name}")
    others = [name for name in source.headers if name not in {*names.values(), *duplicates, *fixed}]
    # What another model would use, such as the head of another task.
    apart = [name for name in others if any(re.fullmatch(pattern, name) for pattern in family.apart)]
    ignored = [name for name in others if any(re.fullmatch(pattern, name) for pattern in family.ignored)]
    wrong += [f"unexpected: {name}" for name in others if name not in {*apart, *ignored}]
    for other, name in duplicates.items():
        if name in names and not torch.equal(source.tensor(other), source.tensor(names[name])):
            wrong.append(f"not tied, though config.json says so: {other} differs from {names[name]}")
    if wrong:
        raise CheckpointError(f"{source.name} does not fit its config.json: {'; '.join(wrong)}", AGAIN)
    if apart:
        said = "%s: left out, for the model that config.json names does not use them: %s"
        logging.getLogger("sublayer").warning(said, source.name, ", ".join(apart))
    return names


def _names(tree: Tree, rules: Sequence[Rule], family: Family, source: Source) -> tuple[dict[str, str], dict[str, str]]:
    """Today's name of each tensor -> its name in the source; and the second names of tied tensors in it -> today's."""
    held = {name: name for name in source.headers}
    wanted = {name for rule in rules for name in rule.theirs}
    ties = family.ties(tree)
    if family.older and not wanted <= held.keys():
        held = {today: name for name in source.headers for today in _todays(name, family.older)} | held
    names = {name: held[name] for name in wanted if name in held}
    duplicates: dict[str, str] = {}
    for other, name in ties.items():
        if other in held and name in names:
            duplicates[held[other]] = name
        elif other in held:
            names[name] = held[other]
    return {name: names[name] for rule in rules for name in rule.theirs if name in names}, duplicates


def _agree(found: Tensor, table: Tensor) -> bool:
    """Whether a fixed table is the one that we compute; others compute in float32, whose sines are right to 1e-3."""
    return found.shape == table.shape and bool((found.double() - table).abs().max() < 1e-2)


def _todays(name: str, older: Iterable[tuple[str, str]]) -> Iterable[str]:
    """What a name may be today: after the first pattern, after the first two, and so on."""
    for pattern, today in older:
        name = re.sub(pattern, today, name)
        yield name


def _their_shapes(model: nn.Module, rules: Sequence[Rule]) -> dict[str, tuple[int, ...]]:
    """The shape that each of their tensors must have: that of ours, written. On the meta device this costs nothing."""
    shapes: dict[str, tuple[int, ...]] = {}
    for rule in rules:
        ours = [model.get_parameter(name).detach() for name in rule.ours]
        shapes |= {name: tuple(tensor.shape) for name, tensor in zip(rule.theirs, rule.write(ours), strict=True)}
    return shapes


def _require_all_covered(
    parameters: Mapping[str, nn.Parameter], ties: Mapping[str, str], rules: Sequence[Rule], family: Family
) -> None:
    """A family whose rules leave a parameter out, or name one twice, is a mistake of ours."""
    named = Counter(ties.get(name, name) for rule in rules for name in rule.ours)
    left, twice = parameters.keys() - named.keys(), [name for name, count in named.items() if count > 1]
    assert not left, f"the rules of {family.name} leave out {sorted(left)}"
    assert not twice, f"the rules of {family.name} name twice {sorted(twice)}"


def _common_type(source: Source, names: Iterable[str]) -> torch.dtype:
    types = {source.headers[name].dtype for name in names} - {None}
    return reduce(torch.promote_types, types)  # pyright: ignore[reportArgumentType]


def _moved(
    rule: Rule, names: Mapping[str, str], source: Source, device: str | torch.device, dtype: torch.dtype
) -> list[tuple[str, Tensor]]:
    """Our tensors of one rule, where they are wanted. Theirs are let go of before the next rule's are read."""
    ours = rule.read([source.tensor(names[name]) for name in rule.theirs])
    return [
        (name, tensor.to(device=device, dtype=dtype).contiguous()) for name, tensor in zip(rule.ours, ours, strict=True)
    ]
