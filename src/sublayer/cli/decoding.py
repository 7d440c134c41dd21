"""What `generate` and `chat` have in common: the model, and how it is to be decoded."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sublayer.cli.options import Told, fields
from sublayer.config.decoding import Beam
from sublayer.config.sampling import Sampling
from sublayer.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    import torch

    from sublayer import config
    from sublayer.generation.generator import Generator
    from sublayer.generation.plan import Speculation


def load_generator(path: Path, device: str, weights: config.Weights | None = None) -> Generator[Any]:
    """The model at `path`, if it is one that goes on from a prompt.

    Raises:
        CheckpointError: it is another kind of model, or none. InputError: it cannot decode with such weights.
    """
    from sublayer.generation.generator import Generator
    from sublayer.hub.loading import load_to_use

    found: object = load_to_use(path, device_for(device, weights), weights)
    if not isinstance(found, Generator):
        raise CheckpointError(f"{path} does not go on from a prompt", "Name a decoder-only model.")
    return found  # pyright: ignore[reportUnknownVariableType]


def device_for(asked: str, weights: config.Weights | None) -> torch.device | str:
    """Return the device that is asked for; "auto" takes CUDA, then MPS, then the CPU.

    Weights of a type of their own are for a CPU, so nobody who asks for them has to say that too. Where there can be
    nothing but a CPU, torch is not imported to say so.

    Raises:
        ConfigError: the device does not exist here.
    """
    if asked == "cpu" or (asked == "auto" and (weights is not None or not _may_have_gpu())):
        return "cpu"
    from sublayer.training.runtime import pick_device

    return pick_device(asked)


def _may_have_gpu() -> bool:
    """Whether torch may find a GPU here; only Linux tells by the files of its drivers."""
    drivers = "/dev/nvidiactl", "/dev/kfd", "/dev/dxg"
    return not sys.platform.startswith("linux") or any(Path(driver).exists() for driver in drivers)


SAMPLING = fields(Sampling, more={"temperature": "0 is greedy search."})
BEAM = fields(Beam, called={"size": "beam"})


def search_of(own: config.Search, sampling: Told | None = None, beam: Told | None = None) -> config.Search:
    """The search that options ask for, laid on the model's `own`; a temperature of 0 is greedy search.

    Args:
        sampling, beam: fields of `config.Sampling` and of `config.Beam` that were told.

    Raises:
        ConfigError: options that do not go together, or a value that cannot be.
    """
    from sublayer import config

    sampling, beam = sampling or {}, beam or {}
    if sampling and beam:
        raise ConfigError("sampling and a beam were both asked for", "Choose one of them.")
    if sampling.get("temperature") == 0.0 or beam.get("size") == 1:
        return config.Greedy()
    for kind, told in ((config.Sampling, sampling), (config.Beam, beam)):
        if told:
            return kind.parse({**(own.plain() if isinstance(own, kind) else {}), **told}, kind.__name__.lower())
    return own


def speculation_of(draft: Path | None, lookup: bool, guesses: int, device: str) -> Speculation[Any] | None:
    """How tokens are guessed, or None where nobody asked for it.

    Raises:
        ConfigError: both ways were asked for. CheckpointError: there is no such draft model.
    """
    if draft is None and not lookup:
        return None
    if draft is not None and lookup:
        raise ConfigError("--draft and --lookup were both given", "Choose one way of guessing.")
    from sublayer.generation.plan import Speculation
    from sublayer.generation.speculative import PromptLookup

    if draft is not None:
        return Speculation(load_generator(draft, device).model, guesses)
    return Speculation(PromptLookup(), guesses)
