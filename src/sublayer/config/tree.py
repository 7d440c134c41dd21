"""All that the tree has, put together. Import it as `from sublayer import config`.

Each file says by its `__all__` what of it the tree has.
"""

from sublayer.config.adapter import *
from sublayer.config.data import *
from sublayer.config.decoding import *
from sublayer.config.filter import *
from sublayer.config.model import *
from sublayer.config.parallel import *
from sublayer.config.presets import *
from sublayer.config.recipe import *
from sublayer.config.sampling import *
from sublayer.config.task import *
from sublayer.config.tokenizer import *
from sublayer.config.training import *
