"""The typed tree that describes a model, one file a kind of part. A part's type selects the variant.

Each part's class holds its description and its arithmetic: parameters, operations, memory. Nothing here touches torch,
so a model that would not fit is described before any tensor exists. Read from the shapes down: `shapes` (and their
recurrent rivals, `recurrent_shapes`), `stack`, `block`, then the parts in the order in which the paper has them.
"""

from sublayer.config.model.attention import *
from sublayer.config.model.block import *
from sublayer.config.model.embedding import *
from sublayer.config.model.feed_forward import *
from sublayer.config.model.heads import *
from sublayer.config.model.kinds import *
from sublayer.config.model.norm import *
from sublayer.config.model.position import *
from sublayer.config.model.recurrent import *
from sublayer.config.model.recurrent_shapes import *
from sublayer.config.model.shapes import *
from sublayer.config.model.stack import *
