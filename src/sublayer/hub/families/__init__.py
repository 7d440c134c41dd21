"""All families of checkpoints that can be read and written."""

from __future__ import annotations

from collections.abc import Mapping

from sublayer.hub.families.bart import BART, M2M100, MARIAN, MBART, PEGASUS
from sublayer.hub.families.bert import BERT
from sublayer.hub.families.distilbert import DISTILBERT
from sublayer.hub.families.electra import ELECTRA
from sublayer.hub.families.falcon import FALCON
from sublayer.hub.families.gemma import GEMMA, GEMMA2, GEMMA3
from sublayer.hub.families.glm import GLM4
from sublayer.hub.families.gpt2 import GPT2
from sublayer.hub.families.gpt_neox import GPT_NEOX
from sublayer.hub.families.llama import LLAMA, MISTRAL, SMOLLM3
from sublayer.hub.families.mixtral import MIXTRAL, QWEN3_MOE
from sublayer.hub.families.modernbert import MODERNBERT
from sublayer.hub.families.olmo import OLMO2, OLMO3
from sublayer.hub.families.phi import PHI3
from sublayer.hub.families.qwen import QWEN2, QWEN3
from sublayer.hub.families.roberta import ROBERTA, XLM_ROBERTA
from sublayer.hub.families.t5 import T5
from sublayer.hub.family import Family

FAMILIES: tuple[Family, ...] = (
    # decoder-only
    LLAMA, MISTRAL, SMOLLM3, QWEN2, QWEN3, MIXTRAL, QWEN3_MOE, GEMMA, GEMMA2, GEMMA3, PHI3, OLMO2, OLMO3, GLM4, GPT2,
    GPT_NEOX, FALCON,
    # encoder-only
    BERT, ROBERTA, XLM_ROBERTA, DISTILBERT, ELECTRA, MODERNBERT,
    # encoder-decoder
    MARIAN, PEGASUS, BART, MBART, M2M100, T5,
)  # fmt: skip

REFUSED: Mapping[str, str] = {
    "gemma3": "a Gemma 3 that also reads images; its text model alone (gemma3_text) can be read",
}
"""Kinds of checkpoints that look as if they were supported, with what they are."""
