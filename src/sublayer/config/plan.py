"""What a training takes of each of many GPUs, computed from the recipe alone: memory, operations, bytes sent, time.

Parts count themselves (`sublayer.config.model`); here stands what sharing a training out over processes does to these
counts. The time is a roofline (Williams et al. 2009): products at `efficiency` times the peak of the hardware, other
numbers and messages at its bandwidths. What sets in between (kernels' launches, waiting, the input) is in no such sum,
so a step takes longer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

from sublayer.config.cost import LOSS_PIECE, total_parameters
from sublayer.config.model import DecoderOnly, EncoderDecoder, EncoderOnly, Model
from sublayer.config.model.stack import Recomputed
from sublayer.config.parallel import Parallel
from sublayer.config.part import BFLOAT16, FLOAT32
from sublayer.config.training import Training
from sublayer.errors import ConfigError

NODE = 8
"""GPUs that are joined by a bus, within which matrices are shared out."""
SHARED_BY = (1, 2, 4, 8)
"""How many may share the matrices."""

Transformer = EncoderDecoder | DecoderOnly | EncoderOnly


@dataclass(frozen=True)
class Hardware:
    """gpus: how many there are. memory: bytes of each. peak: operations a second of one, in the type of the products.
    efficiency: which part of it products reach. bandwidth: bytes a second that a GPU sends to others. node_bandwidth:
    the same within a node. memory_bandwidth: bytes a second between a GPU and its memory."""

    gpus: int
    memory: float
    peak: float = 989e12
    efficiency: float = 0.6
    bandwidth: float = 50e9
    node_bandwidth: float = 450e9
    memory_bandwidth: float = 3.35e12


@dataclass(frozen=True)
class Plan:
    """A training in one layout, of one process.

    readers: how many processes read different rows. memory: bytes by what holds them, at the peak of a step.
    flops: operations of a step that the model asks for (`Flops.training`), and `again`, those of what is computed a
    second time. sent: bytes by what sends them. seconds: by what takes them; messages between blocks hide behind the
    products, and count as far as they take longer.
    """

    parallel: Parallel
    readers: int
    tokens: int
    memory: dict[str, float]
    flops: float
    again: float
    sent: dict[str, float]
    seconds: dict[str, float]
    hardware: Hardware

    @property
    def total(self) -> float:
        return sum(self.memory.values())

    @property
    def fits(self) -> bool:
        """In nine tenths of the memory: the library, workspaces and the allocator want the rest."""
        return self.total <= 0.9 * self.hardware.memory

    @property
    def step(self) -> float:
        """Seconds of a step."""
        return sum(self.seconds.values())

    @property
    def tokens_a_second(self) -> float:
        """Of all GPUs together."""
        return self.tokens * self.readers / self.step

    @property
    def utilisation(self) -> float:
        """Model FLOPs utilization (Chowdhery et al. 2022): what is computed again does not count."""
        return self.flops / self.step / self.hardware.peak


def layouts(model: Model, gpus: int) -> Iterator[Parallel]:
    """Every way to share a training of `model` out that the recipe can say."""
    for tensor in SHARED_BY:
        if gpus % tensor or (tensor > 1 and not _divides(model, tensor)):
            continue
        for data in ("replicate", "shard") if gpus > tensor else ("replicate",):
            for recomputed in get_args(Recomputed):
                yield Parallel(data=data, tensor=tensor, activation_checkpointing=recomputed)


def plans(model: Model, training: Training, hardware: Hardware, length: int) -> list[Plan]:
    """All layouts, the fastest that fits first, and those that do not fit after all that do, the smallest first."""
    found = [plan(model, training, layout, hardware, length) for layout in layouts(model, hardware.gpus)]
    return sorted(found, key=lambda each: (not each.fits, each.step if each.fits else each.total))


def plan(model: Model, training: Training, parallel: Parallel, hardware: Hardware, length: int) -> Plan:
    """What one process has to do in a step, of its rows of the batch.

    A batch of the recipe (`training.batches.tokens`, so many times as `training.accumulate` says) is shared out over
    the processes that read.

    Args:
        length: tokens of a text; of a pair, of each side.

    Raises:
        ConfigError: the model is none that is shared out so, or the batch has no token for each process.
    """
    if not isinstance(model, EncoderDecoder | DecoderOnly | EncoderOnly):
        raise ConfigError(f"model.kind = '{model.kind}' is trained in one process", "Plan a Transformer.")
    readers, shared = hardware.gpus // parallel.tensor, parallel.tensor
    piece = training.batches.tokens // readers
    if not piece:
        raise ConfigError(
            f"training.batches.tokens = {training.batches.tokens} leaves nothing for each of {readers} processes",
            "Raise it: the batch is that of all processes together.",
        )
    half = training.precision != "float32"
    size = BFLOAT16 if half else FLOAT32
    every, own = total_parameters(model), _own(model, shared)
    kept = own / readers if parallel.data == "shard" else own
    blocks = _largest_block(model) / shared
    memory = _states(model, training, kept / every)
    if parallel.data == "shard":
        # A block is put together while another one computes; its gradients are whole until they have been sent.
        memory["blocks put together"] = 2 * blocks * size + blocks * FLOAT32
        memory["blocks put together"] += _outside(model) / shared * 2 * FLOAT32
    else:
        memory["copies in bfloat16"] = own * BFLOAT16 if half else 0
        memory["buckets of gradients"] = own * FLOAT32 if readers > 1 else 0
    recomputed = parallel.activation_checkpointing
    memory["activations"] = model.kept(piece, size, recomputed, shared)
    memory["loss"] = _loss(model, piece, size, shared)
    flops, again = _operations(model, piece * training.accumulate, length, shared, recomputed)
    sent = _sent(model, training, parallel, readers, piece, size, own)
    # Written and read on the way there, read and their gradients written and read on the way back; what is computed
    # again is written and read once more.
    moved = (5 if recomputed == "none" else 7) * model.kept(piece, size, "none", shared) + 5 * memory["loss"]
    seconds = _seconds(hardware, flops + again, memory, moved * training.accumulate, sent)
    return Plan(parallel, readers, piece * training.accumulate, memory, flops, again, sent, seconds, hardware)


def _states(model: Model, training: Training, part: float) -> dict[str, float]:
    """What is kept from step to step, of the part that this process has."""
    every = total_parameters(model)
    remembered = training.optimizer.remembered(every, model.matrices())
    return {
        "parameters": every * part * FLOAT32,
        "gradients": every * part * FLOAT32,
        "optimizer": remembered * part * FLOAT32,
        "averages": training.averaging.copies * every * part * FLOAT32,
    }


def _outside(model: Model) -> int:
    """Numbers outside the blocks: the embeddings, the last norm, the head."""
    return total_parameters(model) - sum(_blocks(model))


def _blocks(model: Transformer | Model) -> list[int]:
    """Numbers in each block."""
    assert isinstance(model, EncoderDecoder | DecoderOnly | EncoderOnly)
    return [
        sum(block.parameters(model.dim, cross=cross, active=False).values())
        for stack, cross in model.stacks.values()
        for block in stack.blocks
    ]


def _largest_block(model: Model) -> int:
    return max(_blocks(model))


def _own(model: Transformer, tensor: int) -> float:
    """Numbers that one of `tensor` processes has: its share of the matrices and of the vocabulary, all of the rest."""
    parameters = model.parameters()
    vocabulary = sum(count for name, count in parameters.items() if name.endswith("embedding") or name == "output")
    shared = model.matrices() + vocabulary
    return sum(parameters.values()) - shared + shared / tensor


def _loss(model: Transformer, tokens: int, size: int, tensor: int) -> float:
    """As in `training_memory`: a piece of the logits, gradients of the last hidden states and of the projection."""
    projected = model.projected(tokens)
    if not projected:
        return 0
    logits = min(projected, max(1, LOSS_PIECE // model.vocab_size)) * model.vocab_size / tensor
    return logits * size + (2 * projected + model.vocab_size / tensor) * model.dim * FLOAT32


def _operations(
    model: Transformer, tokens: int, length: int, tensor: int, recomputed: Recomputed
) -> tuple[float, float]:
    """Of the tokens that a process reads, its share."""
    texts = tokens / (2 * length if isinstance(model, EncoderDecoder) else length)
    flops = model.flops(length, length).training * length * texts / tensor
    # What is computed again is the forward pass of the blocks; selectively, next to nothing.
    forward = sum(
        stack.read_flops(model.dim, length, causal=name == "decoder") for name, (stack, _) in model.stacks.items()
    )
    return flops, forward * texts / tensor if recomputed == "full" else 0.0


def _sent(
    model: Transformer, training: Training, parallel: Parallel, readers: int, tokens: int, size: int, own: float
) -> dict[str, float]:
    """Bytes that a process sends in a step, by ring algorithms: of n bytes that are gathered or scattered among R
    processes (R - 1) / R n, of n bytes that are summed by all twice as many."""
    found: dict[str, float] = {}
    ring, again = (readers - 1) / readers, training.accumulate
    if readers > 1 and parallel.data == "shard":
        # For the forward pass and for the backward pass.
        found["weights"] = 2 * ring * own * size * again
        found["gradients"] = ring * own * FLOAT32 * again
    elif readers > 1:
        found["gradients"] = 2 * ring * own * FLOAT32
    if parallel.tensor > 1:
        sublayers = sum(
            block.sublayers(cross=cross) for stack, cross in model.stacks.values() for block in stack.blocks
        )
        read = tokens // 2 if isinstance(model, EncoderDecoder) else tokens
        passes = 3 if parallel.activation_checkpointing == "full" else 2
        ring = 2 * (parallel.tensor - 1) / parallel.tensor
        found["streams"] = ring * passes * sublayers * read * model.dim * size * again
    return found


def _seconds(
    hardware: Hardware, operations: float, memory: dict[str, float], moved: float, sent: dict[str, float]
) -> dict[str, float]:
    products = operations / (hardware.peak * hardware.efficiency)
    # Parameters, gradients and what the optimizer remembers are read, and but for the gradients written.
    states = 2 * (memory["parameters"] + memory["optimizer"] + memory["averages"]) + memory["gradients"]
    between = hardware.node_bandwidth if hardware.gpus <= NODE else hardware.bandwidth
    behind = sum(count for what, count in sent.items() if what != "streams") / between
    return {
        "products": products,
        "other numbers": moved / hardware.memory_bandwidth,
        "optimizer": states / hardware.memory_bandwidth,
        "streams": sent.get("streams", 0.0) / hardware.node_bandwidth,
        "messages not hidden": max(0.0, behind - products),
    }


def _divides(model: Model, tensor: int) -> bool:
    """Whether so many processes can share the heads and hidden layers of every block, and the vocabulary."""
    if not isinstance(model, EncoderDecoder | DecoderOnly | EncoderOnly):
        return False
    for stack, cross in model.stacks.values():
        for block in stack.blocks:
            attentions = (block.attention, *([block.cross] if cross else []))
            counts = [count for each in attentions for count in (each.heads, each.key_value_heads)]
            if any(count % tensor for count in (*counts, block.feed_forward.hidden)):
                return False
    return True
