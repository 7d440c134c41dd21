"""How weights begin: each part fills its own (`reset_parameters`), as this table has it.

parameter                              distribution
token embeddings                       normal, std E ** -0.5 (E the table's width): with the sqrt(D) of section 3.4,
                                       inputs of size 1; std 0.02 where they are not scaled, as in BERT and GPT-2
kinds of token, learned positions      normal, std 0.02
relative bias                          normal, std 0.02
matrices                               normal, Glorot's std, sqrt(2 / (fan in + fan out)) of each projection
... that write to an unnormalized      the same, divided by sqrt(number of sub-layers of the stack), so that the
    stream (pre, parallel)             stream's size does not grow with the depth (as in GPT-2)
output projection, when not tied       normal, std D ** -0.5
pooler, convolution                    normal, Glorot's std
labels of a head                       normal, std 0.02
recurrent layers: input to each gate   normal, Glorot's std
... state to each gate                 orthogonal (Saxe et al. 2014), so that what is passed on from step to step
                                       neither grows nor fades at once
... bias of an LSTM's forget gate      1 (Jozefowicz et al. 2015, section 2.2), so that it begins by remembering
biases                                 0
norms                                  weight 1, bias 0 (weight 0 where the scale is 1 + weight)
"""

from __future__ import annotations

from torch import nn

from sublayer.models.stack import Stack
from sublayer.nn.initial import glorot, zero_bias
from sublayer.nn.linear import Linear
from sublayer.nn.part import Part


def initialize(model: nn.Module) -> None:
    """Fill every parameter of a model by the table above.

    Raises:
        NotProvided: a part does not say how its weights begin.
    """
    for module in model.modules():
        if isinstance(module, Part):
            module.reset_parameters()
    for module in model.modules():
        if isinstance(module, Stack):
            module.quieten()
    pooler = getattr(model, "pooler", None)
    if isinstance(pooler, Linear):
        glorot(pooler)
    # Last, and only where it is a matrix of its own: a tied one is an embedding, and begins as one.
    output = getattr(model, "output", None)
    if isinstance(output, Linear):
        tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
        if id(output.weight) not in tables:
            nn.init.normal_(output.weight, std=output.in_features**-0.5)
        zero_bias(output)
