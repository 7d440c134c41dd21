"""The normalization that a recipe asks for, as a part of the `tokenizers` library."""

from __future__ import annotations

from typing import Any

from sublayer.config.tokenizer import Normalization


def normalizers_of(c: Normalization) -> list[Any]:
    """The library's normalizers, in the order in which they run; none where the text is left as it is."""
    from tokenizers import Regex, normalizers

    steps: list[Any] = []
    if c.unicode is not None:
        steps.append(getattr(normalizers, c.unicode)())
    if c.lowercase:
        steps.append(normalizers.Lowercase())
    if c.strip_accents:
        # What was decomposed to find the marks is composed again: Korean syllables consist of letters, too.
        recompose = getattr(normalizers, c.unicode or "NFC")()
        steps += [normalizers.NFD(), normalizers.StripAccents(), recompose]
    if c.zero_digits:
        steps.append(normalizers.Replace(Regex(r"\p{Nd}"), "0"))
    if c.collapse_whitespace:
        steps += [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    return steps


def normalizer(c: Normalization, *, prefix: str = "") -> Any:
    """What a backend's `normalizer` is to be; None for nothing.

    Args:
        prefix: put before every text that is not empty, after all else.
    """
    from tokenizers import normalizers

    steps = normalizers_of(c)
    if prefix:
        steps.append(normalizers.Prepend(prefix))
    return steps[0] if len(steps) == 1 else normalizers.Sequence(steps) if steps else None
