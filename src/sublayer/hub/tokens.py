"""The tokens with a part of their own in generating: where a text begins and ends, what must and must not be said.

Other libraries keep them in generation_config.json, and older checkpoints in config.json. They are no part of the tree,
for no weight depends on them, but without them an encoder-decoder cannot be asked: a decoder has to be fed something
first, and a model of many languages has to be told into which.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, cast

from pydantic import NonNegativeInt

from sublayer.config.part import Part
from sublayer.errors import CheckpointError

TokenId = NonNegativeInt


class SpecialTokens(Part):
    """Numbers of tokens; what a checkpoint does not say is unset or empty.

    start: what a decoder is fed first. beginning: the mark before a text ("bos"). end: any of these ends a text.
    padding: what fills rows that are shorter than others. forced_first: the first tokens that are said, whatever the
    model thinks (the language, with mBART and NLLB). forced_last: what is said where the room ends (BART).
    banned: never said (Marian's own padding).
    """

    start: TokenId | None = None
    beginning: TokenId | None = None
    end: tuple[TokenId, ...] = ()
    padding: TokenId | None = None
    forced_first: tuple[TokenId, ...] = ()
    forced_last: TokenId | None = None
    banned: tuple[TokenId, ...] = ()

    @classmethod
    def read(cls, settings: Mapping[str, Any], generation: Mapping[str, Any]) -> Self:
        """From config.json and generation_config.json, of which the second counts first.

        Raises:
            CheckpointError: words of several tokens are banned, or a value is no token.
        """

        def value(key: str) -> Any:
            found = generation.get(key)
            return settings.get(key) if found is None else found

        words = cast("list[list[int]]", value("bad_words_ids") or [])
        if any(len(word) != 1 for word in words):
            raise CheckpointError(
                f"this checkpoint has bad_words_ids = {words!r}, of which sublayer supports single tokens only",
                "Remove the longer ones from generation_config.json.",
            )
        banned = [*(token for word in words for token in word), *(value("suppress_tokens") or ())]
        last = _several(value("forced_eos_token_id"))
        return cls.parse(
            {
                "start": value("decoder_start_token_id"),
                "beginning": value("bos_token_id"),
                "end": _several(value("eos_token_id")),
                "padding": value("pad_token_id"),
                "forced_first": _several(value("forced_bos_token_id")),
                "forced_last": last[0] if last else None,
                "banned": list(dict.fromkeys(banned)),
            },
            "the special tokens of this checkpoint",
        )

    def write(self) -> dict[str, Any]:
        """As generation_config.json has them; `read` gives the same back."""
        end: Any = self.end[0] if len(self.end) == 1 else list(self.end)
        found: dict[str, Any] = {
            "decoder_start_token_id": self.start,
            "bos_token_id": self.beginning,
            "eos_token_id": end if self.end else None,
            "pad_token_id": self.padding,
            "forced_bos_token_id": self.forced_first[0] if self.forced_first else None,
            "forced_eos_token_id": self.forced_last,
            "bad_words_ids": [[token] for token in self.banned] or None,
        }
        return {key: value for key, value in found.items() if value is not None}


def _several(value: Any) -> list[Any]:
    if value is None:
        return []
    return cast("list[Any]", value) if isinstance(value, list) else [value]
