"""Checkpoints that all processes write together, by `torch.distributed.checkpoint`.

    checkpoints/step-000500/
        state.json                             as that of one process, with the size of each file
        shard-00001-….safetensors, …           what each process wrote: tensors by "part/name", with their offsets

Every tensor is written once, in the coordinates of the whole model, so that any number of processes, in any layout, can
read it. It is written while the training goes on, aside; the first process renames it into place when all parts are
there.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import tensor as distributed_tensor
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from sublayer.errors import CheckpointError, StorageError
from sublayer.files import replacing
from sublayer.training import checkpoint
from sublayer.training.checkpoint import FILES, PARTS, REMEDY, Checkpoint
from sublayer.training.distributed.layout import Layout


class ShardedWriter:
    """Writes checkpoints of the processes of a layout, one after the other. flat: all of them in one row."""

    def __init__(self, layout: Layout, flat: DeviceMesh) -> None:
        self._layout, self._flat = layout, flat
        # Its own, because it is used by a thread beside the training.
        self._group = cast(Any, dist.new_group(backend="gloo"))
        self._written: Future[Any] | None = None

    def write(self, folder: Path, saved: Checkpoint, keep: int) -> None:
        """Begin to write; what came before is there when this returns.

        Raises:
            StorageError: the one before could not be written.
        """
        self.wait()
        ranks, held = self._layout.ranks, ExitStack()
        path = folder / f"step-{saved.progress.step:06d}"
        aside = held.enter_context(replacing(path, FILES)) if ranks.first else path
        if ranks.first:
            aside.mkdir()
        aside = ranks.of_first(aside)
        tensors = {
            f"{part}/{name}": self._in_whole(name, tensor)
            for part in PARTS
            for name, tensor in saved.tensors[part].items()
        }
        writer = HuggingFaceStorageWriter(str(aside), save_distributed=True)
        written = self._written = Future[None]()
        writing = cast(
            "Future[Any]", state_dict_saver.async_save(tensors, storage_writer=writer, process_group=self._group)
        )

        def done(writing: Future[Any]) -> None:
            try:
                with held:
                    writing.result()
                    if ranks.first:
                        sizes = {file.name: file.stat().st_size for file in sorted(aside.iterdir())}
                        checkpoint.write_state(aside, saved.progress, {"bytes": sizes})
                if ranks.first:
                    checkpoint.prune(folder, keep)
                written.set_result(None)
            except BaseException as error:  # DCP's own is none of Exception
                written.set_exception(error)

        writing.add_done_callback(done)

    def wait(self) -> None:
        """Until what was begun is there.

        Raises:
            StorageError: it could not be written.
        """
        writing, self._written = self._written, None
        error = None if writing is None else writing.exception()
        told = [str(each) for each in self._layout.ranks.all(None if error is None else _said(error)) if each]
        if isinstance(error, StorageError):
            raise error
        if told:
            raise StorageError(f"could not write a checkpoint: {told[0]}", "Free space, and go on with --resume.")

    def _in_whole(self, name: str, tensor: Tensor) -> Tensor:
        """A tensor as it is written: in the whole's coordinates, and this moment's numbers."""
        owner = self._layout.owner(name)
        if owner is None or owner not in self._layout.cuts or not self._layout.is_part(owner, tensor):
            return tensor.detach().clone()
        whole = self._layout.whole(owner, tensor.detach())
        return distribute_tensor(whole, self._flat, [Shard(0)], src_data_rank=None)


def read(path: Path, layout: Layout | None = None) -> Checkpoint:
    """A checkpoint, in the layout of these processes, or whole where there is none; whoever has written it.

    Raises:
        CheckpointError: a file is missing, damaged, or not what was written.
    """
    if not checkpoint.is_sharded(path):
        saved = checkpoint.read(path)
        if layout is None:
            return saved
        return Checkpoint(saved.progress, {part: _parts(layout, saved.tensors[part]) for part in PARTS})
    progress, state = checkpoint.read_state(path)
    _require_sizes(path, state)
    reader = HuggingFaceStorageReader(str(path))
    found = reader.read_metadata().state_dict_metadata
    wanted = {key: _room(key, cast(Any, held), layout) for key, held in found.items()}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # as it is meant
        state_dict_loader.load(cast("dict[str, Any]", wanted), storage_reader=reader, no_dist=layout is None)
    tensors: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
    for key, tensor in wanted.items():
        part, _, name = key.partition("/")
        tensors[part][name] = _read_out(name, tensor, layout)
    return Checkpoint(progress, tensors)


def _room(key: str, held: Any, layout: Layout | None) -> Tensor:
    """What a tensor is read into."""
    name = key.partition("/")[2]
    owner = None if layout is None else layout.owner(name)
    dtype: torch.dtype = held.properties.dtype
    if layout is not None and owner is not None and len(held.size) > 0:
        parameter = layout.parameters[owner]
        if owner in layout.cuts:
            return distributed_tensor.empty(*held.size, dtype=dtype, device_mesh=layout.group, placements=[Shard(0)])
        return torch.empty_like(parameter.detach(), dtype=dtype)
    return torch.empty(held.size, dtype=dtype)


def _read_out(name: str, tensor: Tensor, layout: Layout | None) -> Tensor:
    """What was read, as this process holds it."""
    owner = None if layout is None else layout.owner(name)
    if layout is None or owner not in layout.cuts or not isinstance(tensor, DTensor):
        return tensor
    assert owner is not None
    return layout.part(owner, tensor.full_tensor())


def _parts(layout: Layout, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What this process holds of whole tensors."""
    owners = {name: layout.owner(name) for name in tensors}
    return {
        name: tensor if (owner := owners[name]) is None or not tensor.dim() else layout.part(owner, tensor)
        for name, tensor in tensors.items()
    }


def _require_sizes(path: Path, state: Mapping[str, Any]) -> None:
    for name, size in state["bytes"].items():
        file = path / name
        if not file.is_file():
            raise CheckpointError(f"{file} is missing", REMEDY)
        if file.stat().st_size != size:
            raise CheckpointError(f"{file} is damaged: it has {file.stat().st_size:,} bytes, not {size:,}", REMEDY)


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
