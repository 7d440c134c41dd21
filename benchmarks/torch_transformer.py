"""The model that a user would write today: `torch.nn.Transformer`, and what it leaves to the user.

It follows PyTorch's own translation tutorial: two embeddings and an output layer of their own, sinusoidal positions,
Xavier initialization, padding and causal masks, greedy decoding that feeds the whole prefix again at each step. What
the tutorial does one sentence at a time is batched here, sentences that have ended leave the batch, and pad is kept out
of the attention.
"""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor, nn

from sublayer import config
from sublayer.models import EncoderDecoder


class TorchTransformer(nn.Module):
    """`torch.nn.Transformer` between embeddings and an output layer.

    Args:
        tied: one matrix for both embeddings and the output, which the tutorial does not do.
        norm_first: pre-norm in place of the paper's post-norm.
        last_norms: the LayerNorm that torch puts after each stack, which the paper does not have.
    """

    positions: Tensor

    def __init__(
        self,
        *,
        vocab_size: int,
        dim: int,
        heads: int,
        layers: int,
        hidden: int,
        max_length: int,
        dropout: float = 0.1,
        pad: int = 0,
        tied: bool = False,
        norm_first: bool = False,
        last_norms: bool = True,
    ) -> None:
        super().__init__()
        self.pad, self.scale = pad, math.sqrt(dim)
        self.source_embedding = nn.Embedding(vocab_size, dim)
        self.target_embedding = nn.Embedding(vocab_size, dim)
        self.register_buffer("positions", sinusoids(max_length, dim), persistent=False)
        self.dropout = nn.Dropout(dropout)
        with warnings.catch_warnings():
            # With pre-norm there are no nested tensors, says torch, although nobody has asked for any.
            warnings.filterwarnings("ignore", message="enable_nested_tensor", category=UserWarning)
            self.transformer = nn.Transformer(
                d_model=dim,
                nhead=heads,
                num_encoder_layers=layers,
                num_decoder_layers=layers,
                dim_feedforward=hidden,
                dropout=dropout,
                batch_first=True,
                norm_first=norm_first,
            )
        self.output = nn.Linear(dim, vocab_size, bias=not tied)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        if tied:
            # Embeddings are multiplied by the root of the width, logits are not: this makes both of size 1.
            nn.init.normal_(self.output.weight, std=dim**-0.5)
            self.source_embedding.weight = self.target_embedding.weight = self.output.weight
        if not last_norms:
            self.transformer.encoder.norm = self.transformer.decoder.norm = None

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Shape: source [B, S], target [B, T] int64 -> logits [B, T, V]."""
        padding = source == self.pad
        hidden = self.transformer(
            self._embed(self.source_embedding, source),
            self._embed(self.target_embedding, target),
            tgt_mask=_causal(target),
            src_key_padding_mask=padding,
            # None for the target: its pads are last, so nothing real sees them under the causal mask.
            memory_key_padding_mask=padding,
            tgt_is_causal=True,
        )
        return self.output(hidden)

    @torch.inference_mode()
    def greedy(self, source: Tensor, *, start: int, end: int, steps: int) -> list[list[int]]:
        """Greedy translations without start and end markers, at most `steps` tokens, the end marker included."""
        padding = source == self.pad
        # torch's fused encoder layer of inference does not take the types that autocast gives it.
        torch.backends.mha.set_fastpath_enabled(not torch.is_autocast_enabled(source.device.type))
        memory = self.transformer.encoder(self._embed(self.source_embedding, source), src_key_padding_mask=padding)
        target = torch.full((source.shape[0], 1), start, dtype=torch.int64, device=source.device)
        rows = torch.arange(source.shape[0])
        found: list[list[int]] = [[] for _ in rows]
        for _ in range(steps):
            hidden = self.transformer.decoder(
                self._embed(self.target_embedding, target),
                memory,
                tgt_mask=_causal(target),
                memory_key_padding_mask=padding,
                tgt_is_causal=True,
            )
            chosen = self.output(hidden[:, -1]).argmax(-1)
            going = chosen != end
            # Sentences that have ended are not computed any further.
            rows, chosen = rows[going.cpu()], chosen[going]
            target, memory, padding = target[going], memory[going], padding[going]
            for row, token in zip(rows.tolist(), chosen.tolist(), strict=True):
                found[row].append(token)
            if not len(rows):
                break
            target = torch.cat([target, chosen.unsqueeze(1)], dim=1)
        return found

    def _embed(self, embedding: nn.Embedding, tokens: Tensor) -> Tensor:
        return self.dropout(embedding(tokens) * self.scale + self.positions[: tokens.shape[1]])


def from_shape(
    c: config.EncoderDecoder,
    *,
    dropout: float = 0.1,
    pad: int = 0,
    tied: bool = False,
    norm_first: bool = False,
    last_norms: bool = True,
) -> TorchTransformer:
    """A `TorchTransformer` of the sizes of `c`, whose stacks must be alike."""
    block = c.encoder.block
    return TorchTransformer(
        vocab_size=c.vocab_size,
        dim=c.dim,
        heads=block.attention.heads,
        layers=c.encoder.layers,
        hidden=block.feed_forward.hidden,
        max_length=c.max_length,
        dropout=dropout,
        pad=pad,
        tied=tied,
        norm_first=norm_first,
        last_norms=last_norms,
    )


def with_weights_of(model: EncoderDecoder, *, dropout: float = 0.0) -> TorchTransformer:
    """A `TorchTransformer` that computes what `model` (of `shapes.common_shape`) does, on its device, in its mode."""
    c = model.config
    theirs = from_shape(c, dropout=dropout, tied=True, last_norms=False)
    own = model.state_dict()
    state = theirs.state_dict()
    with torch.no_grad():
        theirs.positions.copy_(model.encoder.get_buffer("position.table"))
        state["output.weight"].copy_(own["output.weight"])
        for stack, layers in (("encoder", c.encoder.layers), ("decoder", c.decoder.layers)):
            for index in range(layers):
                place = f"{stack}.layers.{index}."
                for name, ours in _layer_names(decoder=stack == "decoder").items():
                    state[f"transformer.{place}{name}"].copy_(torch.cat([own[place + part] for part in ours]))
    return theirs.to(model.device).train(model.training)


def sinusoids(length: int, dim: int) -> Tensor:
    """Section 3.5 of the paper, sines and cosines in turn: [length, dim]."""
    position = torch.arange(length).unsqueeze(1)
    frequency = torch.exp(torch.arange(0, dim, 2) * (-math.log(10_000.0) / dim))
    table = torch.zeros(length, dim)
    table[:, 0::2] = torch.sin(position * frequency)
    table[:, 1::2] = torch.cos(position * frequency)
    return table


def _causal(target: Tensor) -> Tensor:
    """True means "may not attend" here, as it does for the padding masks; torch warns where the two differ."""
    return nn.Transformer.generate_square_subsequent_mask(target.shape[1], device=target.device, dtype=torch.bool)


def _layer_names(*, decoder: bool) -> dict[str, tuple[str, ...]]:
    names: dict[str, tuple[str, ...]] = {}
    for kind in ("weight", "bias"):
        last = "norm3" if decoder else "norm2"
        names |= {
            f"self_attn.in_proj_{kind}": (f"self_attention.qkv.{kind}",),
            f"self_attn.out_proj.{kind}": (f"self_attention.output.{kind}",),
            f"norm1.{kind}": (f"self_attention_sublayer.outer.{kind}",),
            f"linear1.{kind}": (f"feed_forward.up.{kind}",),
            f"linear2.{kind}": (f"feed_forward.down.{kind}",),
            f"{last}.{kind}": (f"feed_forward_sublayer.outer.{kind}",),
        }
        if decoder:
            names |= {
                f"multihead_attn.in_proj_{kind}": (
                    f"cross_attention.query.{kind}",
                    f"cross_attention.key_value.{kind}",
                ),
                f"multihead_attn.out_proj.{kind}": (f"cross_attention.output.{kind}",),
                f"norm2.{kind}": (f"cross_attention_sublayer.outer.{kind}",),
            }
    return names
