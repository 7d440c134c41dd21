"""What an encoder is used for: a label for a text or for each word, a vector, the word behind a mask."""

from sublayer.tasks.classifier import Classified, Classifier
from sublayer.tasks.embedder import Embedder
from sublayer.tasks.filler import Filled, Filler
from sublayer.tasks.tagger import Tagged, Tagger

__all__ = ["Classified", "Classifier", "Embedder", "Filled", "Filler", "Tagged", "Tagger"]
