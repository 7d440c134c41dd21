"""Text and tokens: tokenizers trained, loaded, saved and exported; conversations as text."""

from sublayer.text.affixes import Affixes, PairAffixes
from sublayer.text.specials import Slot, Specials, Template
from sublayer.text.tokenizer import Tokenizer
from sublayer.text.tokens import Tokens

__all__ = ["Affixes", "PairAffixes", "Slot", "Specials", "Template", "Tokenizer", "Tokens"]
