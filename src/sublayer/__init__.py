"""sublayer: the Transformer, whole, in one small PyTorch code base."""

__version__ = "0.1.0"
