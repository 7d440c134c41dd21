"""Every law catches the fault that it is there for: each mutation breaks the code as people do, in one place.

A law that no mutation can break would be a law that says nothing; the last test asserts that there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

import sublayer.fast.decoding.runner as runner
import sublayer.fast.engine.engine as engine
import sublayer.generation.beam as beam
import sublayer.models.decoder as decoder
import sublayer.models.decoder_only as decoder_only
import sublayer.models.encoder as encoder
import sublayer.models.heads as heads
import sublayer.models.stack as stack
import sublayer.nn.attend as attend
import sublayer.nn.experts as experts
import sublayer.nn.mask as mask
from laws.models import CONFIGS, ROWS, build
from laws.one_stack import PLAIN, decoder_config, encoder_config
from sublayer import config, laws
from sublayer.fast.engine.program import Buffer, Layer, Positions, Program
from sublayer.models.source import Source
from sublayer.nn.attention import CrossAttention
from sublayer.nn.block import Block
from sublayer.nn.cache import KeyValueCache
from sublayer.nn.tap import Tap

Patch = pytest.MonkeyPatch


def pair(**choices: object) -> config.EncoderDecoder:
    """The first encoder-decoder with these choices."""
    return CONFIGS[
        next(i for i, row in enumerate(ROWS) if all(row[name] == choice for name, choice in choices.items()))
    ]


def text(**choices: object) -> config.DecoderOnly:
    """The plainest decoder but for these choices."""
    return decoder_config(PLAIN | choices)


def encoded(**choices: object) -> config.EncoderOnly:
    """The plainest encoder but for these choices."""
    return encoder_config(PLAIN | choices)


GROUPED = pair(kv_heads=2, window=None)
WINDOWED = pair(window=3, encoder_position="sinusoidal")
ROTARY = pair(decoder_position="rotary", window=None)
LEARNED = pair(decoder_position="learned")
RELATIVE = pair(decoder_position="relative", window=None)
GELU = pair(feed_forward="gelu-no-bias")


def causal_sees_one_more(patch: Patch) -> None:
    def span(self: mask.Causal, grid: mask.Grid) -> mask.Span:
        return None, grid.positions[None] + 2

    patch.setattr(mask.Causal, "span", span)
    # Or else the kernel, which knows causality by itself, would mend the mutation.
    whole = mask.Mask.resolve
    patch.setattr(mask.Mask, "resolve", lambda *a, **k: _without_causal(whole(*a, **k)))


def _without_causal(scope: mask.ResolvedMask) -> mask.ResolvedMask:
    """The same said twice, which no kernel takes for causality."""
    return replace(scope, rules=scope.rules * 2)


def causal_aligned_at_the_top_left(patch: Patch) -> None:
    def span(self: mask.Causal, grid: mask.Grid) -> mask.Span:
        return None, torch.arange(grid.queries)[None] + 1

    patch.setattr(mask.Causal, "span", span)


def causal_hides_the_query_itself(patch: Patch) -> None:
    def span(self: mask.Causal, grid: mask.Grid) -> mask.Span:
        return None, grid.positions[None].clamp(min=1)

    patch.setattr(mask.Causal, "span", span)
    whole = mask.Mask.resolve
    patch.setattr(mask.Mask, "resolve", lambda *a, **k: _without_causal(whole(*a, **k)))


def window_one_wider(patch: Patch) -> None:
    plain = mask.Mask.window
    patch.setattr(mask.Mask, "window", lambda size: plain(size + 1))


def window_one_narrower(patch: Patch) -> None:
    plain = mask.Mask.window
    patch.setattr(mask.Mask, "window", lambda size: plain(size - 1))


def padding_one_longer(patch: Patch) -> None:
    plain = mask.Mask.padding
    patch.setattr(mask.Mask, "padding", lambda lengths: plain(None if lengths is None else lengths + 1))


def padding_one_shorter(patch: Patch) -> None:
    plain = mask.Mask.padding
    patch.setattr(mask.Mask, "padding", lambda lengths: plain(None if lengths is None else (lengths - 1).clamp(min=1)))


def padding_forgotten_in_cross_attention(patch: Patch) -> None:
    patch.setattr(decoder.Memory, "mask", property(lambda self: mask.Mask.everything()))


def explicit_without_scale(patch: Patch) -> None:
    plain = attend.explicit
    patch.setattr(attend, "explicit", lambda *a, scale, **k: plain(*a, scale=1.0, **k))


def explicit_without_bias(patch: Patch) -> None:
    plain = attend.explicit

    def unbiased(query, key, value, scope, **k):  # type: ignore[no-untyped-def]
        return plain(query, key, value, replace(scope, bias=None), **k)

    patch.setattr(attend, "explicit", unbiased)


def explicit_repeats_groups_in_the_wrong_order(patch: Patch) -> None:
    plain = attend.explicit

    def repeated(query, key, value, scope, **k):  # type: ignore[no-untyped-def]
        groups = query.shape[1] // key.shape[1]
        return plain(query, key.repeat(1, groups, 1, 1), value.repeat(1, groups, 1, 1), scope, **k)

    patch.setattr(attend, "explicit", repeated)


def a_listened_tap_changes_what_passes(patch: Patch) -> None:
    patch.setattr(Tap, "forward", lambda self, x: x * (1 + 1e-6) if self.listened else x)


def a_tap_is_not_called(patch: Patch) -> None:
    plain = attend.attend
    patch.setattr("sublayer.nn.attention.attend", lambda *a, tap, **k: plain(*a, tap=Tap(), **k))


def cached_positions_start_at_zero(patch: Patch) -> None:
    plain = stack.build_position

    def build_position(*a: object, **k: object):  # type: ignore[no-untyped-def]
        position = plain(*a, **k)  # type: ignore[arg-type]
        rotation, add = position.rotation, position.add
        position.rotation = lambda positions, dtype: rotation(positions - positions[..., :1], dtype)
        position.add = lambda x, positions: add(x, positions - positions[..., :1])
        return position

    patch.setattr(stack, "build_position", build_position)


def a_chunk_sees_no_cache(patch: Patch) -> None:
    """Right for one token at a time, wrong for more: the chunk's first token is taken for the first of all."""
    plain = mask.Mask.resolve

    def resolve(self, queries, keys, **k):  # type: ignore[no-untyped-def]
        scope = plain(self, queries, keys, **k)
        if queries in (1, keys) or not scope.rules:
            return scope
        return replace(scope, rules=(*scope.rules, mask.Spans(torch.tensor([[keys - queries]]), None)))

    patch.setattr(mask.Mask, "resolve", resolve)


def reorder_does_nothing(patch: Patch) -> None:
    plain = KeyValueCache.reorder
    patch.setattr(
        KeyValueCache,
        "reorder",
        lambda self, rows: None if len(rows) == self.buffer.shape[2] else plain(self, rows),
    )


def reorder_forgets_the_values(patch: Patch) -> None:
    def reorder(self: KeyValueCache, rows: torch.Tensor) -> None:
        moved = self.buffer.index_select(2, rows)
        if len(rows) <= self.buffer.shape[2]:
            moved[:, 1] = self.buffer[:, 1, : len(rows)]
        self.buffer = moved

    patch.setattr(KeyValueCache, "reorder", reorder)


def reorder_in_place(patch: Patch) -> None:
    """Rows are overwritten one by one, and later ones read what earlier ones have written."""

    def reorder(self: KeyValueCache, rows: torch.Tensor) -> None:
        for to, origin in enumerate(rows.tolist()):
            self.buffer[:, :, to] = self.buffer[:, :, origin]
        self.buffer = self.buffer[:, :, : len(rows)]

    patch.setattr(KeyValueCache, "reorder", reorder)


def truncate_one_too_many(patch: Patch) -> None:
    plain = KeyValueCache.truncate
    patch.setattr(KeyValueCache, "truncate", lambda self, length: plain(self, max(length - 1, 0)))


def keep_forgets_the_memory(patch: Patch) -> None:
    def keep(self: decoder.DecoderState, sentences: torch.Tensor) -> None:
        self.cache.reorder((sentences.unsqueeze(1) * self.num_beams + torch.arange(self.num_beams)).flatten())
        layers = [(key[: len(sentences)], value[: len(sentences)]) for key, value in self.source.layers]
        self.source = Source(layers, self.source.at(sentences).lengths)

    patch.setattr(decoder.DecoderState, "keep", keep)


def keep_forgets_the_lengths(patch: Patch) -> None:
    plain = decoder.DecoderState.keep

    def keep(self: decoder.DecoderState, sentences: torch.Tensor) -> None:
        lengths = self.source.lengths
        plain(self, sentences)
        self.source.lengths = None if lengths is None else lengths[: len(sentences)]

    patch.setattr(decoder.DecoderState, "keep", keep)


def shared_sources_in_the_wrong_order(patch: Patch) -> None:
    plain = CrossAttention.forward

    def forward(self, x, context):  # type: ignore[no-untyped-def]
        # Keys of a source are kept where a text is decoded, and only there several rows share them.
        if context.memory is not None and x.shape[0] > (size := context.memory[0].shape[0]):
            rows = x.shape[0] // size
            order = torch.arange(x.shape[0]).view(rows, -1).t().flatten()
            return plain(self, x[order], context)[order.argsort()]
        return plain(self, x, context)

    patch.setattr(CrossAttention, "forward", forward)


def beam_adds_logits(patch: Patch) -> None:
    plain = beam._continuations
    patch.setattr(beam, "_continuations", lambda gained, own, *rest: plain(gained * 1.01, own * 1.01, *rest))


def beam_of_one_ends_late(patch: Patch) -> None:
    """A sentence ends one translation late, so that a beam of one goes on after the end."""
    plain = beam.BeamText.advance

    def advance(self, *continuations):  # type: ignore[no-untyped-def]
        own = self.search
        self.search = replace(own, beam=own.beam + (own.beam == 1))
        plain(self, *continuations)
        self.search = own
        for name in ("paths", "origins", "feed", "totals"):
            setattr(self, name, getattr(self, name)[: own.beam])

    patch.setattr(beam.BeamText, "advance", advance)


def beam_keeps_the_wrong_scores(patch: Patch) -> None:
    """After a sentence has left the batch, those that stay go on with the first ones' scores."""

    plain = beam._continuations
    sizes: list[int] = []

    def continuations(gained, own, token, scores, count):  # type: ignore[no-untyped-def]
        if sizes and len(scores) < sizes[-1]:
            scores = np.roll(scores, 1, axis=0)
        sizes.append(len(scores))
        return plain(gained, own, token, scores, count)

    patch.setattr(beam, "_continuations", continuations)


def runner_forgets_the_padding(patch: Patch) -> None:
    plain = runner._Programs.inputs
    patch.setattr(runner._Programs, "inputs", lambda *a: replace(plain(*a), source_lengths=None))


def with_layers(patch: Patch, change: Callable[[Layer], Layer]) -> None:
    """Attention is lowered for other layers."""
    plain = Program.attend
    patch.setattr(Program, "attend", lambda self, x, layer, **given: plain(self, x, change(layer), **given))


def runner_window_one_wider(patch: Patch) -> None:
    with_layers(patch, lambda layer: replace(layer, window=None if layer.window is None else layer.window + 1))


def runner_stays_at_the_first_place(patch: Patch) -> None:
    embed, rotate = Program.embed, Program.rotate

    def first(positions: Positions) -> Positions:
        tables = {name: getattr(positions, name) for name in ("added", "cos", "sin")}
        return replace(positions, **{name: t[:1].expand_as(t) for name, t in tables.items() if t is not None})

    patch.setattr(Program, "embed", lambda self, table, scale, positions: embed(self, table, scale, first(positions)))
    patch.setattr(Program, "rotate", lambda self, *a: rotate(self, *a[:-1], first(a[-1])))


def runner_bias_one_off(patch: Patch) -> None:
    def rolled(layer: Layer) -> Layer:
        bias = layer.positions.bias
        return layer if bias is None else replace(layer, positions=replace(layer.positions, bias=bias.roll(1, -1)))

    with_layers(patch, rolled)


def runner_heads_share_other_keys(patch: Patch) -> None:
    """All heads read the first keys, and the second as values."""
    plain = Program.attend
    patch.setattr(Program, "attend", lambda self, *a, **given: plain(self, *a, **(given | {"groups": 1})))


def runner_forgets_the_residual(patch: Patch) -> None:
    plain = Program.add

    def add(self: Program, stream: Buffer, x: Buffer) -> None:
        plain(self, stream, x)
        self.operations[-1].flags -= {"ACCUMULATE"}

    patch.setattr(Program, "add", add)


def runner_fuses_another_activation(patch: Patch) -> None:
    plain = engine.ACTIVATIONS
    patch.setattr(engine, "ACTIVATIONS", {**plain, "gelu": plain["gelu_tanh"], "gelu_tanh": plain["gelu"]})


def left_padding_is_attended_to(patch: Patch) -> None:
    patch.setattr(mask.Mask, "left_padding", lambda counts: mask.Mask.everything())


def left_padding_counts_in_positions(patch: Patch) -> None:
    """Each row has the positions of the longest."""
    plain = stack.build_position

    def build_position(*a: object, **k: object):  # type: ignore[no-untyped-def]
        position = plain(*a, **k)  # type: ignore[arg-type]
        add = position.add
        position.add = lambda x, positions: add(x, positions if positions.dim() == 1 else positions.amax(0))
        return position

    patch.setattr(stack, "build_position", build_position)


def left_padding_counts_in_the_prompts_rotation(patch: Patch) -> None:
    """The steps turn by the right angles, the prompt by those of the longest."""
    plain = stack.build_position

    def build_position(*a: object, **k: object):  # type: ignore[no-untyped-def]
        position = plain(*a, **k)  # type: ignore[arg-type]
        rotation = position.rotation
        position.rotation = lambda positions, dtype: rotation(
            positions.amax(0) if positions.dim() == 2 and positions.shape[1] > 2 else positions, dtype
        )
        return position

    patch.setattr(stack, "build_position", build_position)


def prompts_stay_padded_on_the_right(patch: Patch) -> None:
    """What stands last in the row is taken for the end of the prompt."""
    patch.setattr(decoder_only, "_to_the_right", lambda tokens, padding: tokens)


def keep_forgets_the_left_padding(patch: Patch) -> None:
    plain = decoder.DecoderState.keep

    def keep(self: decoder.DecoderState, sentences: torch.Tensor) -> None:
        padding = self.padding
        plain(self, sentences)
        self.padding = None if padding is None else padding[: len(sentences) * self.num_beams]

    patch.setattr(decoder.DecoderState, "keep", keep)


def join_forgets_how_far_rows_were_moved(patch: Patch) -> None:
    plain = KeyValueCache.join

    def join(self, other):  # type: ignore[no-untyped-def]
        plain(self, other)
        return 0, 0

    patch.setattr(KeyValueCache, "join", join)


def join_forgets_the_lengths_of_sources(patch: Patch) -> None:
    plain = Source.joined
    patch.setattr(Source, "joined", lambda self, other: Source(plain(self, other).layers))


def join_aligns_at_the_beginning(patch: Patch) -> None:
    """Rows that are behind go on from where they are not."""
    plain = KeyValueCache.join

    def join(self, other):  # type: ignore[no-untyped-def]
        rows = self.buffer.shape[2]
        ours, theirs = self.buffer[:, :, :, :, : self.length], other.buffer[:, :, :, :, : other.length]
        moved = plain(self, other)
        self.buffer.zero_()
        self.buffer[:, :, :rows, :, : ours.shape[4]] = ours
        self.buffer[:, :, rows:, :, : theirs.shape[4]] = theirs
        return moved

    patch.setattr(KeyValueCache, "join", join)


def a_fixed_cache_shows_what_is_to_come(patch: Patch) -> None:
    """Queries are taken for the last of all keys that there is room for."""
    plain = mask.Mask.resolve

    def resolve(self, *sizes, first=None, **k):  # type: ignore[no-untyped-def]
        return plain(self, *sizes, **k)

    patch.setattr(mask.Mask, "resolve", resolve)


def segments_share_positions(patch: Patch) -> None:
    """Positions go on from one text of a row to the next (round and round, or else the table would end)."""
    for module in (decoder, encoder):
        patch.setattr(module, "restarting", lambda segments: torch.arange(segments.shape[1]) % 11)


def segments_restart_as_in_the_first_row(patch: Patch) -> None:
    for module in (decoder, encoder):
        plain = module.restarting
        patch.setattr(module, "restarting", lambda segments, plain=plain: plain(segments[:1]).expand_as(segments))


def segments_see_each_other(patch: Patch) -> None:
    patch.setattr(mask.Mask, "segments", lambda query, key=None: mask.Mask.everything())


def segments_see_the_one_before(patch: Patch) -> None:
    plain = mask.Segments.allowed

    def allowed(self: mask.Segments, *a):  # type: ignore[no-untyped-def]
        return plain(self, *a) | plain(mask.Segments(self.query, self.key + 1), *a)

    patch.setattr(mask.Segments, "allowed", allowed)


def rows_leak_into_each_other(patch: Patch) -> None:
    """As with statistics over a batch."""
    plain = Block.forward
    patch.setattr(Block, "forward", lambda self, x, *a, **k: plain(self, x + 0.3 * x.mean(0, keepdim=True), *a, **k))


def an_expert_has_room_for_few_tokens(patch: Patch) -> None:
    """Who comes too late is dropped: what a token gets depends on its batch."""
    plain = experts.MixtureOfExperts.forward

    def forward(self: experts.MixtureOfExperts, x: torch.Tensor) -> torch.Tensor:
        written = plain(self, x).flatten(0, -2)
        written[8:] = 0.0
        return written.view(x.shape)

    patch.setattr(experts.MixtureOfExperts, "forward", forward)


def pooling_counts_the_padding(patch: Patch) -> None:
    plain = heads.pool
    patch.setattr(heads, "pool", lambda hidden, lengths, how: plain(hidden, None, how))


def encoders_see_causally(patch: Patch) -> None:
    plain = stack.Stack.__init__

    def init(self, *a, causal, **k):  # type: ignore[no-untyped-def]
        plain(self, *a, causal=True, **k)

    patch.setattr(stack.Stack, "__init__", init)


def encoders_without_kinds_in_packs(patch: Patch) -> None:
    plain = encoder.Encoder.forward

    def forward(self, tokens, lengths=None, *, token_type_ids=None, segments=None):  # type: ignore[no-untyped-def]
        return plain(
            self, tokens, lengths, token_type_ids=token_type_ids if segments is None else None, segments=segments
        )

    patch.setattr(encoder.Encoder, "forward", forward)


def caps_forgotten_in_steps(patch: Patch) -> None:
    plain = decoder_only.DecoderOnly.step

    def step(self, tokens, state):  # type: ignore[no-untyped-def]
        capped = plain(self, tokens, state)
        return (capped / self.config.logit_softcap).clamp(-0.999, 0.999).atanh() * self.config.logit_softcap

    patch.setattr(decoder_only.DecoderOnly, "step", step)


def layers_that_differ_share_one_mask(patch: Patch) -> None:
    plain = stack.Stack.resolve
    patch.setattr(stack.Stack, "resolve", lambda self, *a, **k: [plain(self, *a, **k)[0]] * len(self.kinds))


# mutation, the configuration on which it is tried, the laws that must catch it (others may too)
MUTATIONS: list[tuple[Callable[[Patch], None], config.Model, set[str]]] = [
    # --- encoder-decoders
    (causal_sees_one_more, ROTARY, {"target_sees_its_past", "cached_is_uncached"}),
    (causal_aligned_at_the_top_left, ROTARY, {"chunked_is_uncached"}),
    (causal_hides_the_query_itself, ROTARY, {"cached_is_uncached", "chunked_is_uncached"}),
    (window_one_wider, WINDOWED, {"target_sees_its_past", "source_sees_its_window"}),
    (window_one_narrower, WINDOWED, {"target_sees_its_past", "source_sees_its_window", "layers_see_their_windows"}),
    (padding_one_longer, GROUPED, {"batched_is_single", "padding_is_ignored", "source_padding_is_unseen"}),
    (padding_one_shorter, GROUPED, {"batched_is_single", "source_padding_is_unseen"}),
    (
        padding_forgotten_in_cross_attention,
        GROUPED,
        {"batched_is_single", "padding_is_ignored", "cached_is_uncached", "source_padding_is_unseen"},
    ),
    (explicit_without_scale, GROUPED, {"fused_is_explicit", "tapped_is_untapped"}),
    (explicit_without_bias, RELATIVE, {"fused_is_explicit", "tapped_is_untapped"}),
    (explicit_repeats_groups_in_the_wrong_order, GROUPED, {"fused_is_explicit", "tapped_is_untapped"}),
    (a_listened_tap_changes_what_passes, GROUPED, {"tapped_is_untapped"}),
    (a_tap_is_not_called, GROUPED, {"fused_is_explicit", "tapped_is_untapped"}),
    (cached_positions_start_at_zero, LEARNED, {"cached_is_uncached", "chunked_is_uncached", "found_is_scored"}),
    (cached_positions_start_at_zero, ROTARY, {"cached_is_uncached", "truncated_is_straight"}),
    (a_chunk_sees_no_cache, ROTARY, {"chunked_is_uncached", "truncated_is_straight"}),
    (reorder_does_nothing, GROUPED, {"reordered_is_recomputed", "found_is_scored"}),
    (reorder_forgets_the_values, GROUPED, {"reordered_is_recomputed", "kept_is_recomputed"}),
    (reorder_in_place, GROUPED, {"reordered_is_recomputed"}),
    (truncate_one_too_many, GROUPED, {"truncated_is_straight"}),
    (keep_forgets_the_memory, GROUPED, {"kept_is_recomputed", "batched_greedy_is_single"}),
    (keep_forgets_the_lengths, GROUPED, {"kept_is_recomputed"}),
    (join_forgets_how_far_rows_were_moved, LEARNED, {"joined_is_recomputed"}),
    (join_forgets_the_lengths_of_sources, GROUPED, {"joined_is_recomputed"}),
    (join_aligns_at_the_beginning, GROUPED, {"joined_is_recomputed"}),
    (a_fixed_cache_shows_what_is_to_come, GROUPED, {"fixed_is_growing"}),
    (shared_sources_in_the_wrong_order, GROUPED, {"reordered_is_recomputed", "kept_is_recomputed", "found_is_scored"}),
    (runner_forgets_the_padding, GROUPED, {"runner_is_modules"}),
    (runner_window_one_wider, WINDOWED, {"runner_is_modules"}),
    (runner_stays_at_the_first_place, LEARNED, {"runner_is_modules"}),
    (runner_stays_at_the_first_place, ROTARY, {"runner_is_modules"}),
    (runner_bias_one_off, RELATIVE, {"runner_is_modules"}),
    (runner_heads_share_other_keys, GROUPED, {"runner_is_modules"}),
    (runner_forgets_the_residual, GROUPED, {"runner_is_modules"}),
    (runner_fuses_another_activation, GELU, {"runner_is_modules"}),
    (beam_adds_logits, GROUPED, {"found_is_scored", "beam_of_one_is_greedy"}),
    (beam_of_one_ends_late, GROUPED, {"beam_of_one_is_greedy"}),
    (beam_keeps_the_wrong_scores, GROUPED, {"batched_beam_is_single", "found_is_scored"}),
    # --- decoders by themselves
    (causal_sees_one_more, text(), {"target_sees_its_past", "cached_is_uncached"}),
    (causal_aligned_at_the_top_left, text(), {"chunked_is_uncached"}),
    (window_one_wider, text(window=3), {"target_sees_its_past"}),
    (window_one_wider, text(others="window"), {"layers_see_their_windows"}),
    (window_one_narrower, text(window=3, others="window"), {"layers_see_their_windows"}),
    (layers_that_differ_share_one_mask, text(others="window"), {"layers_see_their_windows"}),
    (explicit_without_scale, text(), {"fused_is_explicit", "tapped_is_untapped"}),
    (explicit_without_bias, text(position="alibi"), {"fused_is_explicit", "tapped_is_untapped"}),
    (a_listened_tap_changes_what_passes, text(), {"tapped_is_untapped"}),
    (cached_positions_start_at_zero, text(position="learned"), {"chunked_is_uncached", "truncated_is_straight"}),
    (a_chunk_sees_no_cache, text(), {"chunked_is_uncached"}),
    (reorder_does_nothing, text(), {"reordered_is_recomputed", "found_is_scored"}),
    (reorder_forgets_the_values, text(), {"reordered_is_recomputed", "kept_is_recomputed"}),
    (truncate_one_too_many, text(), {"truncated_is_straight"}),
    (
        left_padding_is_attended_to,
        text(),
        {"left_padded_is_unpadded", "cached_is_uncached", "padding_is_ignored", "batched_greedy_is_single"},
    ),
    (
        left_padding_counts_in_positions,
        text(position="learned"),
        {"left_padded_is_unpadded", "cached_is_uncached", "batched_greedy_is_single"},
    ),
    (left_padding_counts_in_the_prompts_rotation, text(), {"left_padded_is_unpadded", "cached_is_uncached"}),
    (
        prompts_stay_padded_on_the_right,
        text(),
        {"left_padded_is_unpadded", "padding_is_ignored", "batched_greedy_is_single", "batched_beam_is_single"},
    ),
    (keep_forgets_the_left_padding, text(), {"kept_is_recomputed", "batched_greedy_is_single"}),
    (join_forgets_how_far_rows_were_moved, text(), {"joined_is_recomputed"}),
    (join_aligns_at_the_beginning, text(), {"joined_is_recomputed"}),
    (a_fixed_cache_shows_what_is_to_come, text(), {"fixed_is_growing"}),
    (segments_share_positions, text(position="learned"), {"packed_is_separate"}),
    (segments_restart_as_in_the_first_row, text(position="sinusoidal"), {"packed_is_separate"}),
    (segments_restart_as_in_the_first_row, text(), {"packed_is_separate"}),
    (segments_see_each_other, text(), {"packed_is_separate"}),
    (segments_see_the_one_before, text(), {"packed_is_separate"}),
    (rows_leak_into_each_other, text(), {"batched_is_single", "packed_is_separate", "batched_greedy_is_single"}),
    (an_expert_has_room_for_few_tokens, text(feed_forward="experts"), {"batched_is_single", "packed_is_separate"}),
    (caps_forgotten_in_steps, text(logits="capped"), {"cached_is_uncached", "found_is_scored"}),
    (runner_window_one_wider, text(window=3), {"runner_is_modules"}),
    (runner_stays_at_the_first_place, text(), {"runner_is_modules"}),
    (runner_heads_share_other_keys, text(), {"runner_is_modules"}),
    (beam_adds_logits, text(), {"found_is_scored", "beam_of_one_is_greedy"}),
    (beam_keeps_the_wrong_scores, text(), {"batched_beam_is_single", "found_is_scored"}),
    # --- encoders by themselves
    (padding_one_longer, encoded(), {"batched_is_single", "padding_is_ignored", "source_padding_is_unseen"}),
    (padding_one_shorter, encoded(head="tags"), {"batched_is_single"}),
    (window_one_wider, encoded(window=3), {"source_sees_its_window"}),
    (window_one_narrower, encoded(window=3), {"source_sees_its_window"}),
    (layers_that_differ_share_one_mask, encoded(others="window"), {"layers_see_their_windows"}),
    (encoders_see_causally, encoded(), {"source_sees_its_window"}),
    (explicit_without_scale, encoded(head="mean"), {"fused_is_explicit", "tapped_is_untapped"}),
    (a_tap_is_not_called, encoded(), {"fused_is_explicit", "tapped_is_untapped"}),
    (a_listened_tap_changes_what_passes, encoded(head="vector"), {"tapped_is_untapped"}),
    *(
        (pooling_counts_the_padding, encoded(head=head), {"batched_is_single", "padding_is_ignored"})
        for head in ("mean", "max", "last", "unit-vector")
    ),
    (segments_share_positions, encoded(position="learned"), {"packed_is_separate"}),
    (segments_see_each_other, encoded(), {"packed_is_separate"}),
    (encoders_without_kinds_in_packs, encoded(embedding="kinds"), {"packed_is_separate"}),
    (rows_leak_into_each_other, encoded(head="class"), {"batched_is_single", "packed_is_separate"}),
    (an_expert_has_room_for_few_tokens, encoded(feed_forward="one-expert"), {"batched_is_single"}),
]
NAMES = [f"{mutation.__name__}-{c.kind}-{number}" for number, (mutation, c, _) in enumerate(MUTATIONS)]


@pytest.mark.parametrize(("mutation", "c", "catching"), MUTATIONS, ids=NAMES)
def test_mutation_is_caught(
    mutation: Callable[[Patch], None], c: config.Model, catching: set[str], monkeypatch: Patch
) -> None:
    whole = build(c)
    inputs = laws.Inputs.draw(whole, seed=2)
    by_name = {law.__name__: law for law in laws.laws_of(whole) if law.__name__ in catching}
    assert set(by_name) == catching
    for law in by_name.values():
        assert law(whole, inputs).passed, "the law must hold before the mutation"
    mutation(monkeypatch)
    broken = build(c)
    missed = [name for name, law in by_name.items() if law(broken, inputs).passed]
    assert not missed


@pytest.mark.parametrize("c", [GROUPED, text(), encoded()], ids=lambda c: c.kind)
def test_every_law_is_broken_by_some_mutation_of_every_shape(c: config.Model) -> None:
    caught = {name for _, tried, catching in MUTATIONS for name in catching if tried.kind == c.kind}
    assert caught == {law.__name__ for law in laws.laws_of(build(c))}
