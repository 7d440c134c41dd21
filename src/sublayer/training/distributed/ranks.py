"""The processes of a run: `torchrun` starts them, and each has a number, its rank.

What they tell each other about the run (whether to stop, how long a step took, a tokenizer) goes by gloo over the CPU,
so that no device is waited for. All of them ask the same things in the same order.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore

from sublayer.errors import TrainingError

T = TypeVar("T")

PATIENCE = timedelta(days=1)
"""How long a process waits for another: rank 0 validates alone. That one has died is noticed at once."""

LAST_WORDS = 60.0
"""Seconds in which `torchrun` ends those that are left, once it has seen which process died."""


@dataclass(frozen=True)
class Ranks:
    """Of one process, its number among so many. The first (rank 0) speaks, and writes whatever is not shared out."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def alone(self) -> bool:
        return self.size == 1

    def sums(self, *values: float) -> list[float]:
        """Each value summed over all processes; sums of whole numbers are exact."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def most(self, *values: float) -> list[float]:
        """The largest of each value over all processes."""
        return self._reduced(values, dist.ReduceOp.MAX)

    def all(self, value: T) -> list[T]:
        """What each process has, by rank."""
        if self.alone:
            return [value]
        found: list[T] = [value] * self.size
        dist.all_gather_object(found, value)
        return found

    def of_first(self, value: T) -> T:
        """What the first process has."""
        if self.alone:
            return value
        held = [value]
        dist.broadcast_object_list(held)
        return held[0]

    def wait(self) -> None:
        """Until all processes have come here."""
        self.sums(0.0)

    def _reduced(self, values: Sequence[float], how: Any) -> list[float]:
        if self.alone:
            return list(values)
        told = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(told, how)
        return cast("list[float]", told.tolist())


ALONE = Ranks()


def started_by_torchrun() -> bool:
    """Whether this process is one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def rank() -> int:
    """The rank of this process, before it knows the others."""
    return int(os.environ.get("RANK", "0"))


def own_device(device: torch.device) -> torch.device:
    """Of several GPUs the one of this process, where none is named."""
    if str(device) == "cuda" and "LOCAL_RANK" in os.environ:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return device


def restarted() -> bool:
    """Whether `torchrun` has started the processes of this run anew, after one of them died."""
    return _attempt() > 0


def _attempt() -> int:
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


@contextmanager
def joined(device: torch.device) -> Generator[Ranks]:
    """Inside the block the processes that `torchrun` has started know each other; one process is alone.

    Raises:
        TrainingError: another process has ended before its time, or the port where they are to meet is taken.
    """
    if not started_by_torchrun():
        yield Ranks()
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        # Whoever dies may do so before all have met, too.
        store, number, size = next(iter(cast(Any, dist).rendezvous("env://", timeout=PATIENCE)))
        # Where torchrun keeps one store for all attempts, what stands in it of an earlier one leads nowhere.
        own = PrefixStore(f"sublayer-{_attempt()}", store)
        dist.init_process_group(backend, store=own, rank=number, world_size=size, timeout=PATIENCE)
        yield Ranks(number, size)
    except (RuntimeError, ConnectionError) as error:
        if "address already in use" in str(error).lower():
            taken = f"MASTER_PORT = {os.environ['MASTER_PORT']} is taken by another program"
            raise TrainingError(taken, "Give torchrun another --master-port.") from error
        if not _lost(error):
            raise
        # Whoever died is named by torchrun, which ends this process too; to end before it has looked would mislead it.
        time.sleep(LAST_WORDS)
        raise TrainingError(
            f"rank {rank()} lost another process of the run ({str(error).splitlines()[0][:200]})",
            "Go on from the last checkpoint with --resume; torchrun --max-restarts does so by itself.",
        ) from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _lost(error: BaseException) -> bool:
    """Whether an error says that another process is gone."""
    words = str(error).lower()
    gone = ("connection closed by peer", "connection reset by peer", "connection refused", "broken pipe", "timed out")
    return isinstance(error, dist.DistError) or any(each in words for each in gone)
