"""What the older files do not say: which tokens each family of models calls special, and where it puts them.

A `tokenizer.json` says all of it; a vocabulary or a SentencePiece model alone does not. One row a family, by the name
of its tokenizer in `tokenizer_config.json`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sublayer.errors import CheckpointError
from sublayer.text.sentencepiece import Piece

# Both in the order of the ids. Lists of so many words would be a page each.
MBART_LANGUAGES = tuple(
    """
    ar_AR cs_CZ de_DE en_XX es_XX et_EE fi_FI fr_XX gu_IN hi_IN it_IT ja_XX kk_KZ ko_KR lt_LT lv_LV my_MM ne_NP
    nl_XX ro_RO ru_RU si_LK tr_TR vi_VN zh_CN
    """.split()  # noqa: SIM905
)
MBART_50_LANGUAGES = (
    *MBART_LANGUAGES,
    *"""
    af_ZA az_AZ bn_IN fa_IR he_IL hr_HR id_ID ka_GE km_KH mk_MK ml_IN mn_MN mr_IN pl_PL ps_AF pt_XX sv_SE sw_KE
    ta_IN te_IN th_TH tl_XX uk_UA ur_PK xh_ZA gl_ES sl_SI
    """.split(),  # noqa: SIM905
)

Layout = Callable[[Sequence[Piece], Sequence[str]], list[Piece]]


@dataclass(frozen=True, slots=True)
class Family:
    """What a family's files leave unsaid.

    Attributes:
        tokens: the special tokens by the names of `specials.ROLES`.
        around: what stands around one text, with "A" for it and "language" for the token of its language.
        pair: the same for a pair, with "A" and "B"; a token of the second text is written with ":1".
        languages: the tokens of languages, where the files need not name them.
        layout: the vocabulary made of a SentencePiece model's pieces and the languages.
        words: for a vocabulary with merges, the key of `vocabularies.WORDS`.
        compose: for a vocabulary with merges, whether text is put into NFC.
        trims: for a vocabulary with merges, whether the span of a token leaves out its space.
        normalizes: the settings of the configuration decide how text is normalized (`do_lower_case` and its kin), also
            where a tokenizer.json says otherwise.
        prefixes: likewise `add_prefix_space`, whether a space is put before a text, and what it is where the
            configuration is silent; None: a tokenizer.json decides.
    """

    tokens: Mapping[str, str] = field(default_factory=dict[str, str])
    around: str = "A"
    pair: str = "A B:1"
    languages: tuple[str, ...] = ()
    layout: Layout = lambda pieces, _: list(pieces)
    words: str = "gpt2"
    compose: bool = False
    trims: bool = False
    normalizes: bool = False
    prefixes: bool | None = None

    def placed(self, config: Mapping[str, Any]) -> tuple[str, str]:
        """What stands around one text and around a pair, as the configuration has it: NLLB's languages stood behind
        the text before (`legacy_behaviour`)."""
        if self.around == "language A </s>" and config.get("legacy_behaviour"):
            return "A </s> language", "A B </s> language"
        return self.around, self.pair


def _control(*names: str) -> list[Piece]:
    return [Piece(name, 0.0, "control") for name in names]


def _fairseq(pieces: Sequence[Piece], languages: Sequence[str]) -> list[Piece]:
    """fairseq's own four come first, where SentencePiece has <unk> <s> </s>; then languages, and the mask."""
    known = {piece.text for piece in pieces[3:]}
    rest = _control(*(name for name in (*languages, "<mask>") if name not in known))
    return [*_control("<s>", "<pad>", "</s>"), Piece("<unk>", 0.0, "unknown"), *pieces[3:], *rest]


def _t5(pieces: Sequence[Piece], _: Sequence[str]) -> list[Piece]:
    """A hundred sentinels behind the pieces, the first one last (Raffel et al. 2020, section 3.1.4)."""
    if any(piece.text == "<extra_id_0>" for piece in pieces):
        return list(pieces)
    return [*pieces, *_control(*(f"<extra_id_{number}>" for number in reversed(range(100))))]


def _pegasus(pieces: Sequence[Piece], _: Sequence[str]) -> list[Piece]:
    """Padding and end, two masks and 101 tokens that no text has, then the pieces from <unk> on (Zhang et al. 2020)."""
    return [*_control("<pad>", "</s>", "<mask_1>", "<mask_2>", *(f"<unk_{n}>" for n in range(2, 103))), *pieces[2:]]


_BERT = Family(
    {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]"},
    "[CLS] A [SEP]",
    "[CLS] A [SEP] B:1 [SEP]:1",
    normalizes=True,
)
_XLM_R_TOKENS = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "cls_token": "<s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}
_ROBERTA = Family(_XLM_R_TOKENS, "<s> A </s>", "<s> A </s> </s> B </s>", trims=True, prefixes=False)
_ENDS = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
_LLAMA_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
_GPT2_END = "<|endoftext|>"

FAMILIES: dict[str, Family] = {
    "Bert": _BERT,
    "DistilBert": _BERT,
    "Electra": _BERT,
    "MPNet": Family(_XLM_R_TOKENS | {"unk_token": "[UNK]"}, _ROBERTA.around, _ROBERTA.pair, normalizes=True),
    "Roberta": _ROBERTA,
    "Bart": _ROBERTA,
    "GPT2": Family({"unk_token": _GPT2_END, "bos_token": _GPT2_END, "eos_token": _GPT2_END}, prefixes=False),
    "GPTNeoX": Family({"unk_token": _GPT2_END, "bos_token": _GPT2_END, "eos_token": _GPT2_END}, prefixes=False),
    "Qwen2": Family(
        {"unk_token": _GPT2_END, "eos_token": _GPT2_END, "pad_token": _GPT2_END},
        words="qwen2",
        compose=True,
        prefixes=False,
    ),
    "T5": Family(_ENDS, "A </s>", "A </s> B </s>", layout=_t5),
    "Pegasus": Family(_ENDS | {"mask_token": "<mask_2>"}, "A </s>", "A B </s>", layout=_pegasus),
    "XLMRoberta": Family(_XLM_R_TOKENS, _ROBERTA.around, _ROBERTA.pair, layout=_fairseq, prefixes=True),
    "MBart": Family(_XLM_R_TOKENS, "A </s> language", "A B </s> language", MBART_LANGUAGES, layout=_fairseq),
    "MBart50": Family(_XLM_R_TOKENS, "language A </s>", "language A B </s>", MBART_50_LANGUAGES, layout=_fairseq),
    "Nllb": Family(_XLM_R_TOKENS, "language A </s>", "language A B </s>", layout=_fairseq),
    "M2M100": Family(_ENDS | {"bos_token": "<s>", "sep_token": "</s>"}, "language A </s>", "language A B </s>"),
    "Marian": Family(_ENDS, "A </s>", "A B </s>"),
    "Llama": Family(_LLAMA_TOKENS, "<s> A", "<s> A <s>:1 B:1"),
    "Gemma": Family(
        {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"}
        | {"mask_token": "<mask>"},
        "<bos> A",
        "<bos> A <bos>:1 B:1",
    ),
}

_NAMES = {name.lower(): name for name in FAMILIES} | {
    "bigbirdpegasus": "Pegasus",
    "codellama": "Llama",
    "gemma2": "Gemma",
    "gemma3": "Gemma",
    "gemma3text": "Gemma",
    "mistral": "Llama",
    "mixtral": "Llama",
    "mt5": "T5",
    "nllbmoe": "Nllb",
    "qwen3": "Qwen2",
    "qwen3moe": "Qwen2",
}
"""What tokenizer_config.json calls a tokenizer and config.json an architecture, in small letters without signs."""


def name_of(tokenizer_class: str | None, architecture: str | None) -> str | None:
    """The key of `FAMILIES` for what a folder calls its tokenizer, or else its model; None where neither is known."""
    called = (tokenizer_class or "").removesuffix("Fast").removesuffix("Tokenizer"), architecture or ""
    names = [_NAMES.get(name.lower().replace("_", "").replace("-", "")) for name in called]
    return next(filter(None, names), None)


def family_of(tokenizer_class: str | None, architecture: str | None, files: str) -> Family:
    """The row of `FAMILIES`, where one is needed to understand `files`.

    Raises:
        CheckpointError: the family is not known.
    """
    name = name_of(tokenizer_class, architecture)
    if name is None:
        raise CheckpointError(
            f"there is only {files}, and what is done around it is not known for the tokenizer {tokenizer_class!r} "
            f"of the architecture {architecture!r}",
            f"Give the folder a tokenizer.json. Known: {', '.join(FAMILIES)}.",
        )
    return FAMILIES[name]
