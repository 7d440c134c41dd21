"""Text and tokens: tokenizers trained, loaded, saved and exported; conversations as text."""

from sublayer.text.marks import Marks
from sublayer.text.specials import Slot, Specials, Template
from sublayer.text.tokenizer import Tokenizer
from sublayer.text.tokens import Tokens

__all__ = ["Marks", "Slot", "Specials", "Template", "Tokenizer", "Tokens"]
