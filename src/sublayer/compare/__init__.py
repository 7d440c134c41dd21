"""The Transformer against recurrent networks, measured on the user's own machine: `sublayer compare`.

Four parts, each a file: `parallel` (speed against length), `recall` (reach against distance), `translation` (quality
against time) and `positions` (kinds of positions beyond the length of training). Each measures into a `Ledger`, which
is kept as JSON; the report and its pictures are made of the ledgers alone, and say nothing that does not stand in them.
"""
