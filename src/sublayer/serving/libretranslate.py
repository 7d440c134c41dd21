"""LibreTranslate's API: whoever calls it finds the same here, with models of one's own.

A text is split into sentences, which the models were trained on, and put together again; of HTML the markup stays,
and inside of a sentence it stands where the words went.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from sublayer.errors import SublayerError
from sublayer.generation.translator import Translator
from sublayer.serving import languages, marked, markup
from sublayer.serving.bodies import table_of
from sublayer.serving.refusals import Refusal
from sublayer.serving.replies import LIMITS, Asked, Words, json_reply, read_as, watching
from sublayer.serving.server import Server
from sublayer.serving.translating import Translating

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

Language = Annotated[str, Field(max_length=40)]


class TranslateRequest(Asked):
    """LibreTranslate's fields; alternatives: so many more translations of each text."""

    q: Words | Annotated[list[Words], Field(min_length=1, max_length=LIMITS.texts)]
    source: Language
    target: Language
    format: Literal["text", "html"] = "text"
    alternatives: Annotated[int, Field(ge=0, le=LIMITS.n - 1)] = 0
    api_key: Annotated[str, Field(max_length=1000)] | None = None


class DetectRequest(Asked):
    q: Words | Annotated[list[Words], Field(min_length=1, max_length=LIMITS.texts)]
    api_key: Annotated[str, Field(max_length=1000)] | None = None


def error_of(error: SublayerError) -> dict[str, Any]:
    """An error in LibreTranslate's form."""
    return {"error": str(error)}


async def translate(server: Server, request: Request) -> Response:
    table = await table_of(request, server.limits, forms=True)
    if (
        isinstance(table.get("alternatives"), str)
        and table["alternatives"].isascii()
        and table["alternatives"].isdigit()
    ):
        table["alternatives"] = int(table["alternatives"])  # a form knows no numbers
    asked = read_as(TranslateRequest, table)
    texts = asked.q if isinstance(asked.q, list) else [asked.q]
    found = await server.in_thread(_detected, server, asked, texts)
    translating = await server.in_thread(_translating, server, asked, texts, [language for language, _ in found])
    async with watching(request, translating.give_up):
        results = await translating.finish()
    best = [one[0] for one in results]
    reply: dict[str, Any] = {"translatedText": best if isinstance(asked.q, list) else best[0]}
    if asked.alternatives:
        others = [one[1:] for one in results]
        reply["alternatives"] = others if isinstance(asked.q, list) else others[0]
    if asked.source == "auto":
        seen = [{"language": language, "confidence": round(100 * sure, 1)} for language, sure in found]
        reply["detectedLanguage"] = seen if isinstance(asked.q, list) else seen[0]
    return json_reply(reply)


async def detect(server: Server, request: Request) -> Response:
    asked = read_as(DetectRequest, await table_of(request, server.limits, forms=True))
    text = asked.q if isinstance(asked.q, str) else " ".join(asked.q)
    found = await server.in_thread(languages.detect, text, server.models.pairs)
    return json_reply([{"language": language, "confidence": round(100 * sure, 1)} for language, sure in found])


async def translate_file(server: Server, request: Request) -> Response:
    """Refused, as LibreTranslate does where files are switched off."""
    raise Refusal("files are not translated here", "Send their text to /translate.", status=403)


async def known_languages(server: Server, request: Request) -> Response:
    pairs = server.models.pairs
    return json_reply(
        [
            {"code": code, "name": languages.name(code), "targets": sorted({*targets, code})}
            for code, targets in sorted(pairs.items())
        ]
    )


async def frontend_settings(server: Server, request: Request) -> Response:
    pairs = server.models.pairs
    source = "en" if "en" in pairs else min(pairs, default="")
    target = min(pairs.get(source, {""}))
    limits = server.limits
    return json_reply(
        {
            "apiKeys": server.keys.needed,
            "charLimit": limits.characters,
            "filesTranslation": False,
            "frontendTimeout": 500,
            "keyRequired": server.keys.needed,
            "language": {
                "source": {"code": source, "name": languages.name(source)},
                "target": {"code": target, "name": languages.name(target)},
            },
            "suggestions": False,
            "supportedFilesFormat": [],
        }
    )


def _detected(server: Server, asked: TranslateRequest, texts: Sequence[str]) -> list[tuple[str, float]]:
    """The language of each text, and how sure that is."""
    if asked.source != "auto":
        return [(asked.source, 1.0)] * len(texts)
    pairs = server.models.pairs
    usual = "en" if "en" in pairs else min(pairs, default="")
    return [next(iter(languages.detect(text, pairs)), (usual, 0.0)) for text in texts]


def _translating(server: Server, asked: TranslateRequest, texts: Sequence[str], sources: Sequence[str]) -> Translating:
    """The texts in sentences, for the models of their languages."""
    translating = Translating(server.limits, 1 + asked.alternatives)
    for text, source in zip(texts, sources, strict=True):
        if not text.strip() or source == asked.target:
            translating.keep(text)
            continue
        served = server.models.between(source, asked.target)
        translator = served.translator(source, asked.target)
        fit = partial(fits, translator)
        if asked.format == "html":
            parts = [
                piece
                for part in markup.parts(text)
                for piece in ([part] if isinstance(part, str) else marked.of_flow(part, fit))
            ]
        else:
            parts = marked.of_text(text, fit)
        translating.add(parts, translator, served)
    return translating


def fits(translator: Translator, sentence: str) -> bool:
    """Whether a sentence is short enough for the model, with a margin for what it becomes."""
    most = translator.model.config.max_length
    (ids,) = translator.tokenizer.encode([sentence])
    return len(translator.affixes.source.added_to(ids)) <= max(translator.affixes.source.length + 1, most * 3 // 4)
