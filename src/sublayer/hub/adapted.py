"""A model as adapters on a base model: the trained tensors, and the path and checksum of the base.

    config.json             as of any model, and besides: adapter (its tree), base (path and sha256 of that model)
    adapter.safetensors     the adapters, and what learned whole beside them: a head that the base has not

There is no model.safetensors. The base is known again by its weights: with others the adapters would compute nonsense,
and nothing would say so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from sublayer import config
from sublayer.errors import CheckpointError, ConfigError
from sublayer.files import sha256
from sublayer.hub.location import ADAPTERS, WEIGHTS
from sublayer.hub.tensors import read_tensors
from sublayer.hub.weights import fill, untied
from sublayer.models import Model, build_model
from sublayer.models.empty import without_memory
from sublayer.nn.adapter import adapt, load_adapters, merge


@dataclass(frozen=True)
class Base:
    """The model that adapters are made for. path: its folder. sha256: `weights_sum` of it."""

    path: str
    sha256: str


@dataclass(frozen=True, eq=False)
class Adapted:
    """What a model is beside its base. tensors: all that learned, by name."""

    c: config.LowRank
    base: Base
    tensors: Mapping[str, Tensor]

    @property
    def plain(self) -> dict[str, Any]:
        """What config.json says of it."""
        return {"adapter": self.c.plain(), "base": {"path": self.base.path, "sha256": self.base.sha256}}

    @classmethod
    def read(cls, folder: Path, description: Mapping[str, Any]) -> Adapted:
        """What the config.json of `folder` describes, with its tensors.

        Raises:
            CheckpointError: it is garbled, or a file is missing or damaged.
        """
        where = folder / "config.json"
        try:
            base = Base(str(description["base"]["path"]), str(description["base"]["sha256"]))
            c = config.LowRank.parse(description["adapter"], f"{where}: adapter")
        except (KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{where} lacks or garbles {error}", "Copy or train the adapters again.") from None
        return cls(c, base, read_tensors(folder / ADAPTERS))

    def base_folder(self, folder: Path) -> Path:
        """Where the base of the adapters in `folder` is; a relative path begins there.

        Raises:
            CheckpointError: there is nothing, or another model.
        """
        path = folder / self.base.path
        mend = f"put its path into {folder / 'config.json'} (base.path)"
        if not (path / "config.json").is_file():
            raise CheckpointError(
                f"{folder} holds adapters for the model in {path}, and there is none", f"Put it back, or {mend}."
            )
        found = weights_sum(path)
        if found != self.base.sha256:
            raise CheckpointError(
                f"{folder} holds adapters for another model than the one in {path}: its weights have the SHA-256 "
                f"{found[:12]}…, the adapters were made for {self.base.sha256[:12]}…",
                f"Find the model that they were made for and {mend}.",
            )
        return path


def weights_sum(folder: Path) -> str:
    """SHA-256, in hex, of the weights in a model folder.

    Of a folder of adapters, of these and of config.json, which names the sum of their own base.

    Raises:
        CheckpointError: there are no weights.
    """
    for names in ((WEIGHTS,), (ADAPTERS, "config.json")):
        if all((folder / name).is_file() for name in names):
            sums = [sha256(folder / name) for name in names]
            return sums[0] if len(sums) == 1 else hashlib.sha256("\n".join(sums).encode()).hexdigest()
    raise CheckpointError(f"{folder / WEIGHTS} is missing", "Copy the folder again, whole.")


def put_on(
    base: Model, tree: config.Model, adapted: Adapted, ties: Mapping[str, str], path: Path, *, merged: bool
) -> Model:
    """The model of this tree with the weights of `base` and what was learned beside them.

    Args:
        path: of the adapters, for the message. merged: as a plain model; otherwise its maps are `nn.adapter.LowRank`.

    Raises:
        CheckpointError: names every tensor that is missing, unexpected or misshapen.
    """
    with without_memory():
        model = build_model(tree)
    own, _ = untied(model)
    kept = untied(base)[0]
    dtype = next(base.parameters()).dtype
    whole = {name: tensor.to(dtype) for name, tensor in adapted.tensors.items() if name in own}
    fill(model, {**{name: kept[name] for name in own if name in kept}, **whole}, dict(ties), path)
    try:
        adapt(model, adapted.c, whole)
        load_adapters(model, {name: tensor for name, tensor in adapted.tensors.items() if name not in own})
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error.what}", error.remedy) from None
    if merged:
        merge(model)
    return model
