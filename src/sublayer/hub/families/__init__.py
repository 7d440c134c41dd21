"""All families of checkpoints that can be read and written."""

from __future__ import annotations

from sublayer.hub.families.bart import BART, M2M100, MARIAN, MBART, PEGASUS
from sublayer.hub.families.bert import BERT
from sublayer.hub.families.distilbert import DISTILBERT
from sublayer.hub.families.electra import ELECTRA
from sublayer.hub.families.llama import LLAMA
from sublayer.hub.families.modernbert import MODERNBERT
from sublayer.hub.families.roberta import ROBERTA, XLM_ROBERTA
from sublayer.hub.families.t5 import T5
from sublayer.hub.family import Family

FAMILIES: tuple[Family, ...] = (
    # decoder-only
    LLAMA,
    # encoder-only
    BERT,
    ROBERTA,
    XLM_ROBERTA,
    DISTILBERT,
    ELECTRA,
    MODERNBERT,
    # encoder-decoder
    MARIAN,
    PEGASUS,
    BART,
    MBART,
    M2M100,
    T5,
)
