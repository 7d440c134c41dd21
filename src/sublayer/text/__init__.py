"""Text and tokens: tokenizers trained, loaded and saved."""

from sublayer.text.tokenizer import Tokenizer

__all__ = ["Tokenizer"]
