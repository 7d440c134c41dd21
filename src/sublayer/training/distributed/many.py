"""Many processes that train one model: torch's own engines, put together by what the recipe and the parts say.

    data = "replicate"    DistributedDataParallel: every process has the whole model
    data = "shard"        fully_shard (FSDP2): a block at a time is put together where it is needed
    tensor                matrices shared out by the parts' own plans (`tensor.py`), beneath either

All on one mesh, `data` times `tensor`: neighbouring ranks, which are nearest to each other, share matrices.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from sublayer import config
from sublayer.data.batch import AnyBatch
from sublayer.data.loader import Share
from sublayer.errors import ConfigError
from sublayer.models import Model
from sublayer.models.stack import Stack
from sublayer.nn.block import Block
from sublayer.tasks.objective import Objective
from sublayer.training import checkpoint
from sublayer.training.averaging import Average
from sublayer.training.checkpoint import Checkpoint
from sublayer.training.distributed.layout import Layout, local
from sublayer.training.distributed.processes import OneProcess, compiled, set_activation_checkpointing
from sublayer.training.distributed.ranks import Ranks
from sublayer.training.distributed.sharded import ShardedWriter, read
from sublayer.training.distributed.tensor import share_matrices
from sublayer.training.progress import Reporter
from sublayer.training.trainable import trainable_parameters

B = TypeVar("B", bound=AnyBatch)


class ManyProcesses(OneProcess[B]):
    """A model that is trained by several processes.

    The first keeps a whole copy beside what it trains, which is what is validated and written.

    Raises:
        ConfigError: the model, the task or the number of processes does not allow what the recipe asks for.
    """

    def __init__(
        self,
        ranks: Ranks,
        model: Model,
        objective: Objective[B],
        c: config.Training,
        reporter: Reporter,
        *,
        precision: torch.dtype = torch.float32,
    ) -> None:
        readers = readers_of(ranks, c.parallel)
        _require(model, objective, c.parallel, readers)
        self.ranks, self.objective, self._device = ranks, objective, model.device
        self.mesh = init_device_mesh(self._device.type, (readers, c.parallel.tensor), mesh_dim_names=("data", "tensor"))
        self.share = Share(self.mesh["data"].get_local_rank(), readers)
        self._whole = model if ranks.first else None
        self.model = copy.deepcopy(model) if ranks.first else model
        if self._whole is not None:
            self._rest()
        matrices = share_matrices(self.model, self.mesh["tensor"])
        set_activation_checkpointing(self.model, c.parallel.activation_checkpointing)
        if c.compile:
            for block in _blocks(self.model):
                block.forward = compiled(block.forward, reporter)
        self._module: nn.Module = _Loss(self.model, objective)
        if readers > 1:
            self._module = self._sharded(precision) if c.parallel.data == "shard" else self._replicated()
        parameters = trainable_parameters(self.model)
        cuts = {name: cut for name, cut in matrices.cuts.items() if name in parameters}
        self.layout = self.across = Layout(parameters, cuts, self.mesh["tensor"], ranks)
        self._summed = [parameters[name] for name in matrices.within if name in parameters]
        self._writer = ShardedWriter(self.layout, init_device_mesh(self._device.type, (ranks.size,)))
        if self.share.reader:
            # Readers of other rows drop other units; those that share matrices drop the same.
            torch.manual_seed(torch.initial_seed() + 1_000_003 * self.share.reader)

    def loss(self, batch: B, targets: int) -> Tensor:
        return self._module(batch, targets)

    def uncompiled_loss(self, batch: B, targets: int) -> Tensor:
        return self._module(batch, targets)

    def sum(self, own: float) -> float:
        # Those that share matrices have the same rows.
        return self.ranks.sums(own)[0] / self.mesh["tensor"].size()

    def accumulating(self, *, last: bool) -> AbstractContextManager[None]:
        # What is shared out is summed after every batch, for there is no room for the whole gradient.
        return (
            nullcontext() if last or not isinstance(self._module, DistributedDataParallel) else self._module.no_sync()
        )

    def gradient_norm(self) -> Tensor:
        group = self.mesh["tensor"].get_group()
        for parameter in self._summed:
            if parameter.grad is not None:
                dist.all_reduce(local(parameter.grad), group=group)
        cut = [p for name, p in self.layout.parameters.items() if name in self.layout.cuts]
        rest = [p for name, p in self.layout.parameters.items() if name not in self.layout.cuts]
        norm = _norm(rest).square()
        if cut:
            shared = _norm(cut).square()
            dist.all_reduce(shared, group=group)
            norm = norm + shared
        return norm.sqrt()

    @contextmanager
    def whole(self, average: Average) -> Generator[Model | None]:
        whole = self._whole
        own = {} if whole is None else trainable_parameters(whole.to(self._device))
        with torch.no_grad():
            for name, part in average.weights().items():
                value = self.layout.whole(name, part)
                if own:
                    own[name].copy_(value)
        try:
            yield whole
        finally:
            self._rest()

    def random_state(self) -> dict[str, Tensor]:
        if self.mesh["tensor"].get_local_rank():
            return {}
        return {f"{self.share.reader}/{name}": state for name, state in super().random_state().items()}

    def restore_random_state(self, saved: Checkpoint) -> None:
        """Of as many readers each goes on with its own numbers; of another number the first does, the others begin."""
        held = saved.tensors["random"]
        readers = {name.partition("/")[0] for name in held if "/" in name} or {"0"}
        if self.share.reader == 0 or len(readers) == self.share.readers:
            checkpoint.restore_random_state(checkpoint.of_reader(held, self.share.reader), self._device)
        else:
            torch.manual_seed(torch.initial_seed() + 1_000_003 * self.share.reader + saved.progress.step)

    def read(self, path: Path) -> Checkpoint:
        return read(path, self.layout)

    def save(self, folder: Path, saved: Checkpoint, keep: int) -> None:
        self._writer.write(folder, saved, keep)

    def wait(self) -> None:
        self._writer.wait()

    def _rest(self) -> None:
        """While it is not asked for, the whole copy takes no memory of an accelerator."""
        if self._whole is not None and self._device.type != "cpu":
            self._whole.to("cpu")

    def _replicated(self) -> nn.Module:
        group = self.mesh["data"].get_group()
        with warnings.catch_warnings():
            # From 2.13 on torch has another name for it, which earlier ones do not know.
            warnings.simplefilter("ignore", FutureWarning)
            module = DistributedDataParallel(
                self._module,
                process_group=group,
                broadcast_buffers=False,
                find_unused_parameters=_may_go_unused(self.model),
            )
        module.register_comm_hook(group, _sum)
        return module

    def _sharded(self, precision: torch.dtype) -> nn.Module:
        mesh = self.mesh["data"]
        # Autocast is at work all the same: what is not a product stays as it is on one process.
        half = MixedPrecisionPolicy(param_dtype=precision, reduce_dtype=torch.float32, cast_forward_inputs=False)
        policy = MixedPrecisionPolicy() if precision == torch.float32 else half
        for block in _blocks(self.model):
            fully_shard(block, mesh=mesh, mp_policy=policy)
        fully_shard(self._module, mesh=mesh)
        for module in self._module.modules():
            if isinstance(module, FSDPModule):
                # Losses are divided by the targets of all processes: their gradients are added, not averaged.
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)
        return self._module


class _Loss(nn.Module):
    """The loss as a module, as torch's engines want it: what they wrap is called, and what they return is the loss."""

    def __init__(self, model: nn.Module, objective: Objective[Any]) -> None:
        super().__init__()
        self.model, self._objective = model, objective

    def forward(self, batch: Any, targets: int) -> Tensor:
        return self._objective.loss(self.model, batch, targets)


def readers_of(ranks: Ranks, c: config.Parallel) -> int:
    """Return how many of the processes read different rows.

    Raises:
        ConfigError: the processes cannot be shared out so.
    """
    if ranks.size % c.tensor:
        raise ConfigError(
            f"training.parallel.tensor = {c.tensor} does not divide the number of processes, {ranks.size}",
            "Start a multiple of it: torchrun --nproc-per-node.",
        )
    return ranks.size // c.tensor


def _require(model: nn.Module, objective: Objective[Any], c: config.Parallel, readers: int) -> None:
    if readers > 1 and not objective.separable:
        raise ConfigError(
            f"this task's loss compares the {objective.rows} of a batch with each other: no {readers} processes can "
            "have some each",
            "Train it with one process, or with training.parallel.tensor alone.",
        )
    if c.data == "shard" and readers > 1 and any(isinstance(module, nn.RNNBase) for module in model.modules()):
        raise ConfigError(
            'training.parallel.data = "shard": the weights of a recurrent network are one piece for its kernel',
            'Take training.parallel.data = "replicate".',
        )


def _may_go_unused(model: nn.Module) -> bool:
    """Whether a step may leave a parameter without a gradient: of a pooler that the task does not train, of positions
    that no layer has."""
    stacks = [module for module in model.modules() if isinstance(module, Stack)]
    return getattr(model, "pooler", None) is not None or any(len(stack.kinds) > 1 for stack in stacks)


def _blocks(model: nn.Module) -> list[Block]:
    return [module for module in model.modules() if isinstance(module, Block)]


def _sum(group: Any, bucket: Any) -> Any:
    """In the place of DDP's mean: losses are divided by the targets of all processes already."""

    def first(done: Any) -> Tensor:
        return done.value()[0]

    work = cast(Any, dist.all_reduce(bucket.buffer(), group=group, async_op=True))
    return work.get_future().then(first)


# Torch compares what they are with its own classes, and here they are strings.
_sum.__annotations__.clear()


def _norm(parameters: list[nn.Parameter]) -> Tensor:
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    return norm.full_tensor() if isinstance(norm, DTensor) else norm
