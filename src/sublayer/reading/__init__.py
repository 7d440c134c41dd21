"""What an encoder is used for: a label for a text or for each word, a vector, the word behind a mask."""

from sublayer.reading.classifier import Classified, Classifier
from sublayer.reading.embedder import Embedder
from sublayer.reading.filler import Filled, Filler
from sublayer.reading.tagger import Tagged, Tagger

__all__ = ["Classified", "Classifier", "Embedder", "Filled", "Filler", "Tagged", "Tagger"]
