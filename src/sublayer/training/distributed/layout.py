"""Which part of a tensor a process holds, and how whole tensors come of the parts and parts of the whole.

A parameter, and what an optimizer or an average keeps of it, may be shared out in two ways at once: its matrix over
the processes that compute it together (a `Cut`), and what is left of it by rows over those that read other rows of a
batch (a DTensor of torch's, which `fully_shard` makes).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, distribute_tensor

from sublayer.training.distributed.ranks import Ranks
from sublayer.training.distributed.tensor import Cut


@dataclass(frozen=True)
class Layout:
    """How the parameters that learn are laid out over the processes, by name.

    group: the processes that share matrices.
    """

    parameters: Mapping[str, nn.Parameter]
    cuts: Mapping[str, Cut]
    group: DeviceMesh
    ranks: Ranks

    @cached_property
    def names(self) -> Mapping[Tensor, str]:
        """Of the parameters."""
        return {parameter: name for name, parameter in self.parameters.items()}

    def shape(self, parameter: nn.Parameter) -> torch.Size:
        """That of the whole parameter."""
        cut = self.cuts.get(self.names[parameter])
        return parameter.shape if cut is None else cut.shape

    def owner(self, key: str) -> str | None:
        """The parameter that a tensor of a checkpoint is kept of: "NAME", "NAME/what" or "step/NAME"."""
        found = (key, key.rpartition("/")[0], key.partition("/")[2])
        return next((name for name in found if name in self.parameters), None)

    def is_part(self, name: str, tensor: Tensor) -> bool:
        """Whether a tensor has the shape that this process holds of a parameter."""
        return tensor.dim() > 0 and tensor.shape == self.parameters[name].shape

    def whole(self, name: str, part: Tensor) -> Tensor:
        """The whole of which each process has a part, in every process: all ask for it at once."""
        held = part.full_tensor() if isinstance(part, DTensor) else part
        cut = self.cuts.get(name)
        if cut is None:
            return held
        ranks = self.group.size()
        sizes = [cut.part(torch.empty(cut.shape, device="meta"), rank, ranks).shape for rank in range(ranks)]
        # Shares differ by a row where it does not come out even, and all that is sent has one size.
        most = max(size.numel() for size in sizes)
        sent = held.new_zeros(most)
        sent[: held.numel()] = held.flatten()
        found = [torch.empty_like(sent) for _ in sizes]
        dist.all_gather(found, sent, group=self.group.get_group())
        return cut.whole([flat[: size.numel()].view(size) for flat, size in zip(found, sizes, strict=True)])

    def part(self, name: str, whole: Tensor) -> Tensor:
        """What this process holds of a whole tensor that all of them have."""
        parameter = self.parameters[name]
        held = whole.to(parameter.device)
        if name in self.cuts:
            held = self.cuts[name].part(held, self.group.get_local_rank(), self.group.size())
        if not isinstance(parameter, DTensor):
            return held.contiguous()
        mesh, placements = parameter.device_mesh, parameter.placements
        return distribute_tensor(held.contiguous(), mesh, placements, src_data_rank=None)

    def shared_out(
        self, parameters: list[nn.Parameter], parts: list[Tensor], work: Callable[[list[Tensor]], list[Tensor]]
    ) -> list[Tensor]:
        """`work` on whole matrices of one shape, each done by one process, which the others get the result of.

        Args:
            parts: what this process holds of them. work: matrices to matrices, each by itself.

        Returns:
            What this process holds of the results.
        """
        names = self.names
        found: list[Tensor] = []
        count = self.ranks.size
        for start in range(0, len(parts), count):
            some = list(zip(parameters[start : start + count], parts[start : start + count], strict=True))
            wholes = [self.whole(names[parameter], part) for parameter, part in some]
            own = min(self.ranks.rank, len(wholes) - 1)
            (done,) = work([wholes[own]])
            results = [torch.empty_like(done) for _ in range(count)]
            dist.all_gather(results, done.contiguous())
            found += [
                self.part(names[parameter], result) for (parameter, _), result in zip(some, results, strict=False)
            ]
        return found


def local(tensor: Tensor) -> Tensor:
    """The numbers that this process has of a tensor, in their own memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
