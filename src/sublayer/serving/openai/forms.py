"""What replies of OpenAI's API have in common: names, errors, log-probabilities."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from sublayer.errors import SublayerError
from sublayer.generation.loop import Chosen
from sublayer.serving.refusals import Refusal
from sublayer.serving.spelling import raw, spelled
from sublayer.serving.tickets import Score
from sublayer.text import Tokenizer

TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
    504: "timeout_error",
}
Token = Chosen | Score


def error_of(error: SublayerError) -> dict[str, Any]:
    """An error in OpenAI's form."""
    refusal = error if isinstance(error, Refusal) else None
    status = 400 if refusal is None else refusal.status
    return {
        "error": {
            "message": str(error),
            "type": TYPES.get(status, "invalid_request_error"),
            "param": None if refusal is None else refusal.field,
            "code": None if refusal is None else refusal.code,
        }
    }


def heading(prefix: str, kind: str, model: str) -> dict[str, Any]:
    """What a reply begins with."""
    return {"id": f"{prefix}-{secrets.token_hex(12)}", "object": kind, "created": int(time.time()), "model": model}


def legacy_logprobs(tokenizer: Tokenizer, tokens: Sequence[Token], *, first: int | None, at: int = 0) -> dict[str, Any]:
    """Log-probabilities as `/v1/completions` writes them.

    Args:
        first: the prompt's first token, of which nothing is known, where the prompt is told too. at: characters before
            the first of these tokens.
    """
    texts = [spelled(tokenizer, token.token) for token in tokens]
    gains: list[float | None] = [token.log_probability for token in tokens]
    best: list[Mapping[str, float] | None] = [_best(tokenizer, token) for token in tokens]
    if first is not None:
        texts, gains, best = [spelled(tokenizer, first), *texts], [None, *gains], [None, *best]
    offsets: list[int] = []
    for text in texts:
        offsets.append(at)
        at += len(text)
    return {"tokens": texts, "token_logprobs": gains, "top_logprobs": best, "text_offset": offsets}


def _best(tokenizer: Tokenizer, token: Token) -> dict[str, float]:
    """The most probable tokens, and the one that was taken."""
    found = {spelled(tokenizer, other): gain for other, gain in token.best}
    found.setdefault(spelled(tokenizer, token.token), token.log_probability)
    return found


def chat_logprobs(tokenizer: Tokenizer, tokens: Sequence[Chosen]) -> dict[str, Any]:
    """Log-probabilities as `/v1/chat/completions` writes them."""

    def one(token: int, gain: float) -> dict[str, Any]:
        return {"token": spelled(tokenizer, token), "logprob": gain, "bytes": list(raw(tokenizer, token))}

    return {
        "content": [
            {**one(token.token, token.log_probability), "top_logprobs": [one(*other) for other in token.best]}
            for token in tokens
        ],
        "refusal": None,
    }
