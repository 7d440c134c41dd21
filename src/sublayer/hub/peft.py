"""Adapters as the library PEFT keeps them, out and in: adapter_config.json and adapter_model.safetensors.

    base_model.model.<their module>.lora_A.weight [r, in]        base_model.model.<their module>.lora_B.weight [out, r]

(https://huggingface.co/docs/peft/developer_guides/checkpoint). What is one matrix of ours and several of theirs
(queries, keys and values; gate and up) needs no approximation. Out: all of theirs share our A, and B is cut like the
matrix, by rows. In: the As stand one below the other, and each B beside zeros, which is one adapter of a higher rank.
The family's rules say which is which.

Dimensions: r the rank, n adapters of theirs on one map of ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from sublayer import config
from sublayer.config.foreign import ADAPTER, require_all
from sublayer.errors import CheckpointError
from sublayer.files import replacing, write_json
from sublayer.hub.adapted import Adapted, Base, weights_sum
from sublayer.hub.exporting import choose_family
from sublayer.hub.family import Family, Tree
from sublayer.hub.folder import ModelBundle, ModelCard, find, read, write
from sublayer.hub.rules import Rule
from sublayer.hub.tensors import read_tensors, write_tensors
from sublayer.hub.weights import nonfinite, refuse_nonfinite
from sublayer.untrusted import is_file, read_object

SETTINGS = "adapter_config.json"
TENSORS = "adapter_model.safetensors"
PREFIX = "base_model.model."
TASKS: Mapping[str, str | None] = {"decoder-only": "CAUSAL_LM", "encoder-decoder": "SEQ_2_SEQ_LM", "encoder-only": None}
WITHOUT_EFFECT = frozenset(
    """
    auto_mapping base_model_name_or_path corda_config eva_config exclude_modules inference_mode layers_pattern
    layers_to_transform loftq_config lora_dropout megatron_config megatron_core peft_type peft_version
    qalora_group_size revision runtime_config target_modules task_type
    """.split()  # noqa: SIM905
)
"""Settings that say how adapters were made or trained, or what the names of the tensors say too."""

ON_THE_BASE = (None, True, False, "gaussian", "eva", "orthogonal")
"""Ways to begin adapters that leave the base as it is. The others (pissa, olora, corda, loftq, lora_ga, mica) take from
the base what they put into the adapters, or compute otherwise, so that the adapters belong to another base."""


# --- which maps of theirs are one of ours ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Map:
    """A linear map of ours and what it is of theirs. turned: theirs is kept as [in, out] (GPT-2's)."""

    rule: Rule
    turned: bool

    @property
    def name(self) -> str:
        return self.rule.ours[0].removesuffix(".weight")

    @property
    def theirs(self) -> list[str]:
        return [name.removesuffix(".weight") for name in self.rule.theirs]

    def cut(self, up: Tensor) -> Sequence[Tensor]:
        """[out, r] -> [their out, r] each."""
        return [up] if self.turned else self.rule.write([up])

    def join(self, ups: Sequence[Tensor]) -> Tensor:
        """[their out, r] each -> [out, r]."""
        return ups[0] if self.turned else self.rule.read(ups)[0]


def _map_of(rule: Rule, out: int) -> _Map | None:
    """The map, if what the rule does to a matrix it does to its rows; found by trying, with numbers that are exact."""
    if len(rule.ours) != 1 or not all(name.endswith(".weight") for name in (*rule.ours, *rule.theirs)):
        return None
    up = torch.arange(1, 2 * out + 1, dtype=torch.float64).reshape(out, 2)
    down = torch.tensor([[1.0, 2, 3], [5, 7, 11]], dtype=torch.float64)
    try:
        whole = list(rule.write([up @ down]))
        if len(whole) == 1 and whole[0].shape == (3, out) and torch.equal(whole[0], (up @ down).t()):
            return _Map(rule, turned=True)
        parts = [part @ down for part in rule.write([up])]
    except RuntimeError:
        return None
    same = all(one.shape == other.shape and torch.equal(one, other) for one, other in zip(whole, parts, strict=True))
    return _Map(rule, turned=False) if same else None


def _maps(family: Family, bundle: ModelBundle) -> dict[str, _Map]:
    """The linear maps that can be adapted in both libraries, by our name."""
    shapes = {name: parameter.shape for name, parameter in bundle.model.named_parameters()}
    found: dict[str, _Map] = {}
    for rule in family.rules(cast("Tree", bundle.model.config)):
        shape = shapes.get(rule.ours[0])
        made = _map_of(rule, shape[0]) if shape is not None and len(shape) == 2 else None
        if made is not None:
            found[made.name] = made
    return found


# --- out ---------------------------------------------------------------------------------------------------------


def export_adapters(out: Path, bundle: ModelBundle, family: str | None = None) -> Family:
    """Write the adapters of a model as a folder of PEFT's, whole or not at all.

    They are for the base as `exporting.export` writes it.

    Args:
        bundle: of a folder of adapters (`folder.read`). family: as which the base is written; unset: the one that it
            came in by, or the first that can express it.

    Raises:
        CheckpointError: there are no adapters, something else learned beside them, or the family keeps an adapted map
            in another form.
    """
    adapted = bundle.adapted
    if adapted is None:
        raise CheckpointError("this model has no adapters to export", "Export it whole: --format hf.")
    chosen, _ = choose_family(bundle.model.config, family or bundle.imported.get("family"))
    maps, tensors = _maps(chosen, bundle), adapted.tensors
    names = [name.removesuffix(".down") for name in tensors if name.endswith(".down")]
    names = [name for name in names if f"{name}.up" in tensors]
    others = tensors.keys() - {f"{name}.{part}" for name in names for part in ("down", "up")}
    if others:
        raise CheckpointError(
            f"{sorted(others)[0]} learned whole, and is no adapter",
            "Export the whole model: --format hf.",
        )
    found: dict[str, Tensor] = {}
    for name in names:
        if name not in maps:
            raise CheckpointError(
                f"the family {chosen.name} keeps {name} in another form, which has no such adapter",
                "Export the whole model: --format hf.",
            )
        for module, up in zip(maps[name].theirs, maps[name].cut(tensors[f"{name}.up"]), strict=True):
            found[f"{PREFIX}{module}.lora_A.weight"] = tensors[f"{name}.down"].clone()
            found[f"{PREFIX}{module}.lora_B.weight"] = up.contiguous()
    settings = {
        "peft_type": "LORA",
        "task_type": TASKS[bundle.model.config.kind],
        "base_model_name_or_path": adapted.base.path,
        "r": adapted.c.rank,
        "lora_alpha": adapted.c.alpha,
        "lora_dropout": adapted.c.dropout,
        "target_modules": [module for name in names for module in maps[name].theirs],
        "fan_in_fan_out": any(maps[name].turned for name in names),
        "bias": "none",
        "modules_to_save": None,
        "inference_mode": True,
    }
    with replacing(out, (SETTINGS, TENSORS, "adapter_model*")) as aside:
        aside.mkdir()
        write_json(aside / SETTINGS, settings)
        write_tensors(aside / TENSORS, found)
    return chosen


# --- in ----------------------------------------------------------------------------------------------------------


def import_adapters(folder: Path, base: Path, out: Path) -> ModelBundle:
    """Write the adapters in a folder of PEFT's as a folder of ours at `out`, on the model in the folder `base`.

    Raises:
        CheckpointError: the base did not come in by a family, a setting is not known, or an adapter has no map in the
            base, or one of another size.
    """
    where = find(base).resolve()
    bundle = read(where)
    chosen, _ = choose_family(bundle.model.config, bundle.imported.get("family"))
    settings = read_object(folder / SETTINGS)
    scale = _scale(settings, folder / SETTINGS)
    tensors_there = read_tensors(folder / TENSORS)
    refuse_nonfinite(nonfinite(tensors_there), str(folder / TENSORS))
    pairs = _pairs(tensors_there, folder / TENSORS)
    _require_meant(settings, pairs, folder / SETTINGS)
    made: dict[str, tuple[Tensor, Tensor]] = {}
    for name, one in _maps(chosen, bundle).items():
        here = {module: pairs.pop(module) for module in one.theirs if module in pairs}
        if here:
            made[name] = _joined(one, here, bundle.model.get_parameter(f"{name}.weight"))
    if pairs:
        raise CheckpointError(
            f"{folder} has adapters for what the model in {base} has not: {', '.join(sorted(pairs)[:5])}",
            "Name the model that they were made for.",
        )
    rank = max(down.shape[0] for down, _ in made.values())
    tensors: dict[str, Tensor] = {}
    for name, (down, up) in made.items():
        # Of one rank all, by rows and columns of zeros.
        tensors[f"{name}.down"] = torch.nn.functional.pad(down, (0, 0, 0, rank - down.shape[0]))
        tensors[f"{name}.up"] = torch.nn.functional.pad(up, (0, rank - up.shape[1]))
    c = config.LowRank(
        rank=rank, alpha=scale * rank, dropout=float(settings.get("lora_dropout") or 0.0), targets=tuple(made)
    )
    adapted = Adapted(c, Base(str(where), weights_sum(where)), tensors)
    whole = ModelBundle(bundle.model, bundle.tokenizer, bundle.decoding, bundle.imported, adapted)
    card = f"# {out.name}\n\nLow-rank adapters of PEFT's on the model in {where}, read from {folder}.\n"
    write(
        out, whole, ModelCard(f"# These adapters were not trained with a recipe; they were read from {folder}.\n", card)
    )
    return whole


def _scale(settings: Mapping[str, Any], path: Path) -> float:
    """What the adapters are multiplied by.

    Raises:
        CheckpointError: they are none of LoRA's, or of a form that sublayer does not know.
    """
    if settings.get("peft_type") != "LORA":
        raise CheckpointError(f"{path} has peft_type = {settings.get('peft_type')!r}", "Supported: 'LORA'.")
    require_all(settings, ADAPTER, str(path))
    known = {"r", "lora_alpha", "use_rslora", "fan_in_fan_out", "init_lora_weights"}
    odd = [
        f"{key} = {value!r}"
        for key, value in settings.items()
        if key not in known | WITHOUT_EFFECT and value not in (None, False, "none", [], {})
    ]
    if odd:
        raise CheckpointError(f"{path} has settings that sublayer does not know: {', '.join(odd)}", "Merge them there.")
    begun = settings.get("init_lora_weights")
    if begun not in ON_THE_BASE:
        raise CheckpointError(
            f"{path} has init_lora_weights = {begun!r}: these adapters belong to a base that PEFT changes first",
            "Have PEFT write them for the plain base: save_pretrained(…, path_initial_model_for_weight_conversion=…); "
            "or merge them there.",
        )
    rank, alpha = settings.get("r", 8), settings.get("lora_alpha", 8)
    return float(alpha) / (rank**0.5 if settings.get("use_rslora") else rank)


def _require_meant(settings: Mapping[str, Any], modules: Iterable[str], path: Path) -> None:
    """
    Raises:
        CheckpointError: there is an adapter for a module that the settings leave out, which PEFT would not use.
    """
    for module in modules:
        layer = re.search(r"\.(\d+)\.", module)
        layers = settings.get("layers_to_transform")
        if layers is not None and layer and int(layer[1]) not in (layers if isinstance(layers, list) else [layers]):
            said = f"layers_to_transform = {layers!r}"
        elif not _named(settings.get("target_modules"), module, otherwise=True):
            said = f"target_modules = {settings['target_modules']!r}"
        elif _named(settings.get("exclude_modules"), module, otherwise=False):
            said = f"exclude_modules = {settings['exclude_modules']!r}"
        else:
            continue
        raise CheckpointError(
            f"{path} has {said}, which leaves out {module}, and there is an adapter for it",
            "Have PEFT write the folder anew.",
        )


def _named(names: Any, module: str, *, otherwise: bool) -> bool:
    """Whether a list of modules (ends of their names) or a pattern for their whole names names this one, as PEFT reads
    it."""
    if names is None or names == "all-linear":
        return otherwise
    if isinstance(names, str):
        return re.fullmatch(names, module) is not None
    return any(module == name or module.endswith(f".{name}") for name in names)


def _pairs(tensors: Mapping[str, Tensor], path: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """(A, B) by their module.

    Raises:
        CheckpointError: a tensor is none of the two, or has no other.
    """
    found: dict[str, dict[str, Tensor]] = {}
    wrong: list[str] = []
    for key, tensor in tensors.items():
        module, _, part = key.removeprefix(PREFIX).removesuffix(".weight").rpartition(".")
        if key.startswith(PREFIX) and part in ("lora_A", "lora_B") and tensor.dim() == 2:
            found.setdefault(module, {})[part] = tensor
        else:
            wrong.append(key)
    wrong += [f"{module} has only one of lora_A and lora_B" for module, parts in found.items() if len(parts) == 1]
    if wrong or not found:
        what = ", ".join(wrong[:5]) or "nothing"
        raise CheckpointError(f"{path} should hold pairs of lora_A and lora_B, and has: {what}", "Take another folder.")
    return {module: (parts["lora_A"], parts["lora_B"]) for module, parts in found.items()}


def _joined(one: _Map, pairs: Mapping[str, tuple[Tensor, Tensor]], weight: Tensor) -> tuple[Tensor, Tensor]:
    """(A [n r, in], B [out, n r]) of a map from those of the parts of it that have any; of one A, where they share it.

    Raises:
        CheckpointError: a shape does not fit.
    """
    sizes = [part.shape[0] for part in one.cut(weight.new_zeros(weight.shape[0], 1))]
    for module, size in zip(one.theirs, sizes, strict=True):
        if module in pairs:
            down, up = pairs[module]
            if down.shape[1] != weight.shape[1] or up.shape != (size, down.shape[0]):
                shapes = f"lora_A {tuple(down.shape)} and lora_B {tuple(up.shape)}"
                raise CheckpointError(
                    f"{module}: {shapes} do not fit a map of [{size}, {weight.shape[1]}]",
                    "Name the model that they were made for.",
                )
    downs = [down for down, _ in pairs.values()]
    shared = all(down.shape == downs[0].shape and torch.equal(down, downs[0]) for down in downs)
    rank = downs[0].shape[0] if shared else sum(down.shape[0] for down in downs)
    ups: list[Tensor] = []
    column = 0
    for module, size in zip(one.theirs, sizes, strict=True):
        wide = downs[0].new_zeros(size, rank)
        if module in pairs:
            up = pairs[module][1]
            wide[:, column : column + up.shape[1]] = up
            column += 0 if shared else up.shape[1]
        ups.append(wide)
    return (downs[0] if shared else torch.cat(downs)), one.join(ups).contiguous()


def is_peft(folder: Path) -> bool:
    """Whether `folder` holds adapters of PEFT's."""
    return is_file(folder / SETTINGS)
