"""How good a model is: loss per token, BLEU and chrF on text that it was not trained on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sublayer import config
from sublayer.errors import InputError

UNLEARNED = (
    "the model has not learned to translate yet: its translations share nothing with the references. "
    "Train it for longer: sublayer train RECIPE --out RUN --resume --set training.minutes=… (more than before)"
)
"""Said of a BLEU of 0.0, where it is not only that the texts are too short to have four words in a row."""

if TYPE_CHECKING:
    from sacrebleu.metrics.bleu import BLEU

    from sublayer.generation.translator import Translator


@dataclass(frozen=True)
class Scores:
    """Corpus BLEU and chrF by sacreBLEU, with the signatures that make them comparable."""

    bleu: float
    chrf: float
    bleu_signature: str
    chrf_signature: str
    sentences: int

    @property
    def unlearned(self) -> bool:
        """Whether the translations share next to nothing with the references: no four words, and few characters."""
        return round(self.bleu, 1) == 0 and self.chrf < 20


LANGUAGES = {
    "zh": ("zh", "zho", "cmn", "yue", "chinese", "mandarin", "cantonese"),
    "ja-mecab": ("ja", "jpn", "japanese"),
    "ko-mecab": ("ko", "kor", "korean"),
}
"""sacreBLEU's tokenizers, each by the codes and English names of its languages; 13a for all others."""
_TOKENIZERS = {language: tokenizer for tokenizer, languages in LANGUAGES.items() for language in languages}


def bleu_tokenizer(language: str | None, asked: config.BleuTokenizer = "auto") -> str:
    """How BLEU cuts texts in `language` into words, unless it is `asked` otherwise, as sacreBLEU calls it.

    Args:
        language: a code ("zh", "zh_CN", "zho_Hans", "__zh__", ">>cmn_Hans<<") or an English name; None if unknown.
    """
    if asked != "auto":
        return asked
    words = re.findall(r"[a-z]+", (language or "").lower())
    return next((_TOKENIZERS[word] for word in words if word in _TOKENIZERS), "13a")


def score(hypotheses: Sequence[str], references: Sequence[Sequence[str]], tokenize: str = "13a") -> Scores:
    """Corpus scores of translations.

    Args:
        references: for each hypothesis one or more; sentences may differ in how many they have.
        tokenize: how BLEU cuts texts into words, as sacreBLEU calls it (`bleu_tokenizer`).

    Raises:
        InputError: the tokenizer needs something that is not installed.
    """
    from sacrebleu.metrics.chrf import CHRF

    most = max(len(one) for one in references)
    # sacreBLEU wants streams: the k-th references of all sentences, None where a sentence has fewer.
    streams: Any = [[one[k] if k < len(one) else None for one in references] for k in range(most)]
    bleu, chrf = bleu_metric(tokenize), CHRF()
    return Scores(
        bleu=bleu.corpus_score(list(hypotheses), streams).score,
        chrf=chrf.corpus_score(list(hypotheses), streams).score,
        bleu_signature=str(bleu.get_signature()),
        chrf_signature=str(chrf.get_signature()),
        sentences=len(hypotheses),
    )


def bleu_metric(tokenize: str) -> BLEU:
    """sacreBLEU's metric with this tokenizer.

    Raises:
        InputError: the tokenizer needs something that is not installed, or cannot be fetched.
    """
    from sacrebleu.metrics.bleu import BLEU

    try:
        return BLEU(tokenize=tokenize)
    except Exception as error:  # the library raises whatever its tokenizers raise
        extra = {"ja-mecab": "ja", "ko-mecab": "ko"}.get(tokenize)
        install = f'Run `pip install "sacrebleu[{extra}]"`, or' if extra else "Install what it asks for, or"
        why = (str(error).strip() or repr(error)).splitlines()[0]
        raise InputError(
            f"BLEU's tokenizer '{tokenize}' is not there ({why})",
            f'{install} choose another: task.bleu = "char" in a recipe, --tokenize char in `sublayer evaluate`.',
        ) from None


def cut_to_fit(translator: Translator, sources: Sequence[str]) -> tuple[list[str], int]:
    """The sources, those that are longer than the model's positions cut at their ends; and how many those are.

    A score of a test set counts every sentence of it: what cannot be read whole is read as far as it can be.
    """
    room = translator.max_length - translator.affixes.source.length
    found: list[str] = []
    cut = 0
    for source, ids in zip(sources, translator.tokenizer.encode(sources), strict=True):
        kept = source
        size = room
        while len(ids) > room:
            # What is cut may be read as more tokens than it was.
            [kept] = translator.tokenizer.decode([ids[:size]])
            [ids], size = translator.tokenizer.encode([kept]), size - 1
        cut += kept is not source
        found.append(kept)
    return found, cut
