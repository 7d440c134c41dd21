"""The compiled step of the benchmarks gives the eager step's logits: what is timed is the same work."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from compiled_step import CompiledBackend

from sublayer import config
from sublayer.fast.decoding.runner import Runner
from sublayer.laws import relative_error
from sublayer.models import DecoderOnly, build_model

MISSING = shutil.which("g++") is None and not os.environ.get("CI")


def small_llama() -> config.DecoderOnly:
    """Llama's parts, small, with heads that share keys."""
    of_preset = config.preset("llama-15m")
    assert isinstance(of_preset, config.DecoderOnly)
    block = of_preset.decoder.block
    attention = block.attention.model_copy(update={"heads": 4, "kv_heads": 2})
    feed_forward = block.feed_forward.model_copy(update={"hidden": 24})
    block = block.model_copy(update={"attention": attention, "feed_forward": feed_forward})
    decoder = of_preset.decoder.model_copy(update={"layers": 2, "block": block})
    return of_preset.model_copy(update={"dim": 16, "vocab_size": 40, "max_length": 32, "decoder": decoder})


@pytest.mark.slow
# The compiler's own warnings are about its insides.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.skipif(MISSING, reason="torch.compile needs a C++ compiler, and there is none here")
def test_compiled_is_eager() -> None:
    torch.manual_seed(1)
    model = build_model(small_llama()).eval()
    assert isinstance(model, DecoderOnly)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    backends = Runner(model), CompiledBackend(model)
    with torch.inference_mode():
        for rows, ragged in ((3, False), (3, True)):
            source, lengths = torch.randint(40, (rows, 5)), torch.tensor([5, 2, 4]) if ragged else None
            states = [one.start(source, lengths, capacity=12) for one in backends]
            for step in range(6):
                tokens = torch.randint(40, (rows, 1))
                if step == 3:
                    for state in states:
                        state.truncate(state.length - 1)
                expected, found = (one.step(tokens, state) for one, state in zip(backends, states, strict=True))
                assert relative_error(found, expected) < 1e-5
