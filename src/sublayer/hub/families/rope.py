"""Rotary positions as config.json says them.

It has two ways: one table, `rope_parameters` (transformers 5), or `rope_theta` and `rope_scaling` (before). Both are
read, the second before the first, as transformers does; the second is written, which all versions understand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sublayer import config
from sublayer.config.foreign import require
from sublayer.hub.family import Settings
from sublayer.nn.positions.rotation import frequencies, yarn_magnitude


def read_rotary(
    settings: Settings,
    *,
    layer_type: str = "full_attention",
    base_key: str = "rope_theta",
    fraction_key: str = "partial_rotary_factor",
) -> config.Rotary:
    """The rotary positions that a config.json describes.

    Args:
        layer_type: for which kind of layer, where `rope_parameters` has a table for each.
        base_key, fraction_key: what the older way calls the two.

    Raises:
        CheckpointError: the scaling is of a kind that is not supported, or said twice.
    """
    table: dict[str, Any] = settings.get("rope_parameters", {})
    scaled: dict[str, Any] = settings.get("rope_scaling", {})
    if scaled and layer_type in table:
        raise settings.refusal("rope_scaling", "supported: none beside rope_parameters for each kind of layer")
    table = scaled or table.get(layer_type, table)
    require(table, "rope_parameters", "table", f"this {settings.family} config")
    base, fraction = settings.get(base_key, 10_000.0), settings.get(fraction_key, 1.0)
    scaling = Settings(table, f"{settings.family} rope scaling")
    rotary = config.Rotary(
        base=float(scaling.get("rope_theta", base)),
        fraction=float(scaling.get("partial_rotary_factor", fraction)),
        scaling=_read_scaling(scaling, settings),
    )
    scaling.finish()
    return rotary


def write_rotary(rotary: config.Rotary) -> dict[str, Any] | None:
    """The keys of config.json, or None where other libraries have no words for the scaling.

    The layout of the pairs, and mostly the fraction too, is the family's: no key says it.
    """
    scaling = _write_scaling(rotary.scaling)
    return None if scaling is None else {"rope_theta": rotary.base, "rope_scaling": scaling or None}


def write_table(position: config.Position) -> dict[str, Any] | None:
    """The same as a table of `rope_parameters`; None for other positions too."""
    keys = write_rotary(position) if isinstance(position, config.Rotary) else None
    if keys is None:
        return None
    return {"rope_type": "default", "rope_theta": keys["rope_theta"], **(keys["rope_scaling"] or {})}


def scaling_of_factors(factors: Tensor, base: float) -> dict[str, Any] | None:
    """`rope_scaling` of a config.json, from what the frequency of each pair is divided by: Llama 3's way, with its own
    limits of 1 and 4 turns. None where no such scaling gives these factors.

    With s the part of a frequency that is kept, 1 / factor = (1 - s) / largest + s, and s = (turns - 1) / 3 between the
    limits, where turns = original length * frequency / 2 pi: each pair in between tells the original length. What comes
    out is computed forwards again and must be the factors.

    Shape: factors [r / 2].
    """
    divided, largest = factors.double(), factors.max().item()
    if bool((divided == 1.0).all()):
        return {}
    plain = config.Rotary(base=base)
    kept, _ = frequencies(plain, 2 * len(divided))
    part = (1 / divided - 1 / largest) / (1 - 1 / largest)
    between = (part > 1e-3) & (part < 1 - 1e-3)
    if not bool(between.any()):
        return None
    lengths = 2 * math.pi * (1 + 3 * part[between]) / kept[between]
    scaling = config.Llama3Scaling(factor=largest, original_length=max(1, round(lengths.median().item())))
    found, _ = frequencies(plain.model_copy(update={"scaling": scaling}), 2 * len(divided))
    return dict(_write_scaling(scaling) or {}) if torch.allclose(kept / found, divided, rtol=1e-5) else None


def _read_scaling(scaling: Settings, settings: Settings) -> config.RotaryScaling:
    old, new = scaling.get("type", "default"), scaling.get("rope_type")
    longest = settings.get("max_position_embeddings")
    match old if new is None else new:
        case "default":
            return config.Unscaled()
        case "linear":
            return config.LinearScaling(factor=float(scaling.need("factor")))
        case "llama3":
            return config.Llama3Scaling(
                factor=float(scaling.need("factor")),
                original_length=scaling.get("original_max_position_embeddings", longest),
                low_frequency_factor=float(scaling.need("low_freq_factor")),
                high_frequency_factor=float(scaling.need("high_freq_factor")),
            )
        case "yarn":
            return _read_yarn(scaling, longest)
        case kind:
            raise settings.refusal("rope_scaling", "supported: linear, llama3, yarn", kind)


def _read_yarn(scaling: Settings, longest: int) -> config.YarnScaling:
    scaling.only("truncate", True)
    original = scaling.get("original_max_position_embeddings", longest)
    factor = float(scaling.get("factor", longest / original))
    magnitude = scaling.get("attention_factor")
    ours, all_dimensions = scaling.get("mscale"), scaling.get("mscale_all_dim")
    if magnitude is None and ours and all_dimensions:
        magnitude = yarn_magnitude(factor, ours) / yarn_magnitude(factor, all_dimensions)
    return config.YarnScaling(
        factor=factor,
        original_length=original,
        beta_fast=float(scaling.get("beta_fast") or 32.0),
        beta_slow=float(scaling.get("beta_slow") or 1.0),
        magnitude=None if magnitude is None else float(magnitude),
    )


def _write_scaling(scaling: config.RotaryScaling) -> Mapping[str, Any] | None:
    """The table; empty for no scaling, None for one that has no name there."""
    match scaling:
        case config.Unscaled():
            return {}
        case config.LinearScaling():
            return {"rope_type": "linear", "factor": scaling.factor}
        case config.Llama3Scaling():
            return {
                "rope_type": "llama3",
                "factor": scaling.factor,
                "original_max_position_embeddings": scaling.original_length,
                "low_freq_factor": scaling.low_frequency_factor,
                "high_freq_factor": scaling.high_frequency_factor,
            }
        case config.YarnScaling():
            table = {
                "rope_type": "yarn",
                "factor": scaling.factor,
                "original_max_position_embeddings": scaling.original_length,
                "beta_fast": scaling.beta_fast,
                "beta_slow": scaling.beta_slow,
            }
            return table if scaling.magnitude is None else table | {"attention_factor": scaling.magnitude}
        case config.NtkScaling():
            return None
