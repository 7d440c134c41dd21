"""The paths of a server: who answers which, what is asked and in whose form it fails. One row a path."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sublayer.errors import SublayerError
from sublayer.serving import libretranslate, reading, service
from sublayer.serving.openai import chat, completions, embeddings, forms, models
from sublayer.serving.replies import Asked
from sublayer.serving.server import Server

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

Answer = Callable[[Server, "Request"], Awaitable["Response"]]
ErrorForm = Callable[[SublayerError], Mapping[str, Any]]


@dataclass(frozen=True)
class Path:
    """asks: what the body of a request says. error: how what goes wrong is written. open: whether no key is needed.
    forms: whether the body may be a form. always: whether it answers before the models are there."""

    method: str
    path: str
    answer: Answer
    asks: type[Asked] | None = None
    error: ErrorForm = forms.error_of
    open: bool = False
    forms: bool = False
    always: bool = False


LIBRE = libretranslate.error_of
PATHS = (
    Path("GET", "/v1/models", models.models),
    Path("GET", "/v1/models/{name:path}", models.model),
    Path("POST", "/v1/completions", completions.completions, completions.CompletionRequest),
    Path("POST", "/v1/chat/completions", chat.chat, chat.ChatRequest),
    Path("POST", "/v1/embeddings", embeddings.embeddings, embeddings.EmbeddingRequest),
    Path("POST", "/tokenize", models.tokenize, models.TokenizeRequest),
    Path("POST", "/detokenize", models.detokenize, models.DetokenizeRequest),
    Path("POST", "/classify", reading.classify, reading.ClassifyRequest),
    Path("POST", "/tag", reading.tag, reading.TagRequest),
    Path("POST", "/fill", reading.fill, reading.FillRequest),
    Path("POST", "/translate", libretranslate.translate, libretranslate.TranslateRequest, LIBRE, forms=True),
    Path("POST", "/detect", libretranslate.detect, libretranslate.DetectRequest, LIBRE, forms=True),
    Path("POST", "/translate_file", libretranslate.translate_file, error=LIBRE),
    Path("GET", "/languages", libretranslate.known_languages, error=LIBRE, open=True),
    Path("GET", "/frontend/settings", libretranslate.frontend_settings, error=LIBRE, open=True),
    Path("GET", "/health", service.health, open=True, always=True),
    Path("GET", "/ready", service.ready, open=True, always=True),
    Path("GET", "/metrics", service.metrics, always=True),
)
