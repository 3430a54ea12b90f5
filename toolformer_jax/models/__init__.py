"""The decoder: one architecture, with every model family a configuration of it.

A suffix of an array's name gives its shape, one letter for each dimension:

    B  rows of the batch             N  query heads
    T  tokens of a row               K  key/value heads
    S  slots of a cache or prefix    G  query heads that share one key/value head
    L  layers                        H  size of a head
    D  size of the embedding         P  rows of a shared prefix
    F  size of the MLP's hidden layer
    V  size of the vocabulary        M  tokens of a row at which logits are computed

`logits_BTV` are the logits of every token of every row.
"""
