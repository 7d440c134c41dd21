"""Which languages a model translates between, and their names.

A code is ISO 639's: two letters, as LibreTranslate's clients write it. Models that are told languages by tokens write
them in their own ways (eng_Latn, en_XX, __en__, >>spa<<), which are found here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import Any

LOOKED_AT = 2_000
"""Characters of a text by which its language is known."""

LANGUAGES: dict[str, tuple[str, str]] = {
    "ar": ("Arabic", "arb"),
    "az": ("Azerbaijani", "azj"),
    "bg": ("Bulgarian", "bul"),
    "bn": ("Bengali", "ben"),
    "ca": ("Catalan", "cat"),
    "cs": ("Czech", "ces"),
    "da": ("Danish", "dan"),
    "de": ("German", "deu"),
    "el": ("Greek", "ell"),
    "en": ("English", "eng"),
    "eo": ("Esperanto", "epo"),
    "es": ("Spanish", "spa"),
    "et": ("Estonian", "est"),
    "eu": ("Basque", "eus"),
    "fa": ("Persian", "pes"),
    "fi": ("Finnish", "fin"),
    "fr": ("French", "fra"),
    "ga": ("Irish", "gle"),
    "gl": ("Galician", "glg"),
    "he": ("Hebrew", "heb"),
    "hi": ("Hindi", "hin"),
    "hr": ("Croatian", "hrv"),
    "hu": ("Hungarian", "hun"),
    "id": ("Indonesian", "ind"),
    "it": ("Italian", "ita"),
    "ja": ("Japanese", "jpn"),
    "ko": ("Korean", "kor"),
    "lt": ("Lithuanian", "lit"),
    "lv": ("Latvian", "lvs"),
    "ms": ("Malay", "zsm"),
    "nb": ("Norwegian", "nob"),
    "nl": ("Dutch", "nld"),
    "pl": ("Polish", "pol"),
    "pt": ("Portuguese", "por"),
    "ro": ("Romanian", "ron"),
    "ru": ("Russian", "rus"),
    "sk": ("Slovak", "slk"),
    "sl": ("Slovenian", "slv"),
    "sq": ("Albanian", "als"),
    "sv": ("Swedish", "swe"),
    "sw": ("Swahili", "swh"),
    "th": ("Thai", "tha"),
    "tr": ("Turkish", "tur"),
    "uk": ("Ukrainian", "ukr"),
    "ur": ("Urdu", "urd"),
    "vi": ("Vietnamese", "vie"),
    "zh": ("Chinese", "zho"),
}
"""Two letters, the name, and the three letters that NLLB writes."""
_BY_THREE = {three: two for two, (_, three) in LANGUAGES.items()}
_PAIR = re.compile(r"(?<![A-Za-z])(?=([a-z]{2,3})[-_]([a-z]{2,3})(?![A-Za-z]))")


def name(code: str) -> str:
    """A language's name; its code where it has none here."""
    return LANGUAGES[code][0] if code in LANGUAGES else code


def code(own: str) -> str:
    """The code of a language as a model writes it: two letters where there are any."""
    plain = own.strip("_<>").replace("-", "_")
    first = plain.partition("_")[0].lower()
    if first in LANGUAGES:
        return first
    return _BY_THREE.get(first, plain)


def pair(title: str) -> tuple[str, str] | None:
    """The languages that a name says, source first: "tatoeba-en-es-demo", "opus-mt-en-de". None where it says none."""
    for found in _PAIR.finditer(title):
        if {*map(code, found.groups())} <= LANGUAGES.keys():
            return code(found[1]), code(found[2])
    return None


def by_code(own: Iterable[str]) -> dict[str, str]:
    """What a model writes, by the code."""
    found: dict[str, str] = {}
    for each in own:
        found.setdefault(code(each), each)
    return found


@cache
def _profiles() -> Any:
    from langdetect import PROFILES_DIRECTORY, DetectorFactory  # pyright: ignore[reportMissingTypeStubs]

    DetectorFactory.seed = 0  # the same text is always in the same language
    factory = DetectorFactory()
    factory.load_profile(PROFILES_DIRECTORY)
    return factory


def detect(text: str, among: Iterable[str]) -> list[tuple[str, float]]:
    """The languages that a text may be in, of those that are served, the most probable first, and how probable each is.

    By langdetect, which LibreTranslate asks too. Of a text without letters none is known.
    """
    from langdetect import LangDetectException  # pyright: ignore[reportMissingTypeStubs]

    served, factory = set(among), _profiles()
    prior = {known: float(_plain(known) in served) for known in factory.langlist}
    if not any(prior.values()):
        return []
    detector = factory.create()
    detector.set_prior_map(prior)
    detector.append(text[:LOOKED_AT])
    try:
        found = detector.get_probabilities()
    except LangDetectException:
        return []
    return [(_plain(one.lang), float(one.prob)) for one in found]


def _plain(theirs: str) -> str:
    """A language as langdetect writes it, by our code."""
    first = theirs.partition("-")[0]
    return "nb" if first == "no" else first
