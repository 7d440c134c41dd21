"""Instructions: the answers of conversations, each token from all that was said before it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from sublayer import config
from sublayer.data.batch import IGNORE, TextBatch
from sublayer.data.examples.interface import Examples
from sublayer.data.examples.texts import EncodedTexts, encode_conversations
from sublayer.data.loader import validation
from sublayer.data.tables.conversations import Conversation, read_conversations
from sublayer.data.tables.table import Rows
from sublayer.models import CausalModel
from sublayer.tasks.answers import answers, score_answers
from sublayer.tasks.causal import Likelihood, Modelling
from sublayer.tasks.objective import evaluating
from sublayer.tasks.task import Encoding, Material, Scored, Scoring, Task, start_template
from sublayer.text import Specials, Tokenizer

CHAT = (
    "{% for message in messages %}{{ bos_token }}{{ message.role + '\n' + message.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ bos_token }}{{ 'assistant\n' }}{% endif %}"
)
"""sublayer's own form of a conversation: `<s>role NEWLINE content</s>` for each message."""


@dataclass(frozen=True)
class Answering(Modelling):
    """Answers of conversations, which can also be right or wrong as a whole."""

    rows: ClassVar = "conversations"

    def evaluate(self, model: CausalModel) -> dict[str, float]:
        """With the part of the conversations whose answers a greedy search would give, word for word."""
        found, exact = answered(model, self.examples, self.c.batches)
        return {"loss": found.loss, "perplexity": found.perplexity, "exact_match": exact}


def answered(
    model: CausalModel, examples: Examples[TextBatch], batching: config.Batching, piece: int = 2**23
) -> tuple[Likelihood, float]:
    """The likelihood of the answers, and the part of the conversations in which the model prefers every token of every
    answer, its end included.

    A token that is the most probable one after those before it is what greedy search says next, and so, from the
    first token of an answer to its end, all of it: no search is needed to know what it would find.

    Args:
        piece: logits (tokens * vocabulary) in memory at a time.
    """
    nats, tokens, exact, count = 0.0, 0, 0, 0
    size = max(1, piece // model.config.vocab_size)
    with evaluating(model):
        for batch in validation(examples, batching):
            there = batch.to(model.device)
            asked = there.target != IGNORE
            hidden = model.hidden(there.tokens, None, there.segments)[asked]
            wrong: list[Tensor] = []
            parts = [cast("tuple[Tensor, ...]", each.split(size)) for each in (hidden, there.target[asked])]
            for some, target in zip(*parts, strict=True):
                logits = model.project(some)
                logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
                nats += F.cross_entropy(logits, target, reduction="sum").item()
                wrong.append(logits.argmax(dim=-1) != target)
            missed = torch.zeros_like(asked)
            missed[asked] = torch.cat(wrong)
            exact += int((~missed.any(dim=1)).sum())
            tokens += batch.targets
            count += len(batch.rows)
    return Likelihood(nats, tokens), exact / count


class Instructions(Task[config.InstructionsTask, Rows[Conversation], EncodedTexts]):
    """The answers of conversations."""

    kind: ClassVar = config.InstructionsTask
    command: ClassVar = "sublayer chat {model}"

    def read(self, source: Any, folder: Path) -> Rows[Conversation]:
        return read_conversations(source, folder, self.settings.messages)

    def read_plain(self, path: Path) -> Rows[Conversation]:
        return read_conversations(config.Chat(path=path.name), path.parent)

    def with_template(self, plain: Tokenizer, specials: Specials) -> Tokenizer:
        return plain.replace(template=start_template(plain.start_id), chat_template=CHAT)

    def adopt(self, tokenizer: Tokenizer) -> Tokenizer:
        """Where it knows no form of a conversation, with ours."""
        return tokenizer if tokenizer.chat_template is not None else tokenizer.replace(chat_template=CHAT)

    def examples(self, table: Rows[Conversation], how: Encoding) -> EncodedTexts:
        return encode_conversations(table, how.tokenizer, how.max_length, positions=how.positions)

    def objective(self, material: Material[Rows[Conversation], EncodedTexts]) -> Answering:
        return Answering(material.examples, material.recipe.training, None)

    def score(self, loaded: Any, recipe: config.Recipe, table: Rows[Conversation], how: Scoring) -> Scored:
        """The last answer of each conversation, by greedy search."""
        how.refuse("beam", "length_penalty", "tokenize")
        started = time.perf_counter()
        found = answers(loaded, table.rows, progress=how.progress(len(table)))
        seconds = time.perf_counter() - started
        cut = sum(each.cut for each in found)
        scores = score_answers([each.answer for each in found], [each.expected for each in found])
        return Scored(
            {
                "conversations": f"{scores.count:,} ({seconds:.1f} s)",
                "exact": f"{scores.exact:.4f}   the answer, word for word",
                "folded": f"{scores.folded:.4f}   but for case, and marks and spaces around it",
            },
            warnings=[f"{cut} conversations are longer than the model's context: they lost their beginnings"]
            if cut
            else [],
            rows=[{"messages": each.asked, "expected": each.expected, "answer": each.answer} for each in found],
        )

    def does(self, recipe: config.Recipe) -> str:
        return "Answers in a conversation"
