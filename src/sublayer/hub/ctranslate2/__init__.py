"""Models as CTranslate2 keeps them, out and in: `model.bin` with its settings beside it, and Argos packages.

model_bin.py    the binary file: named tensors, numbers, and second names
nearest.py      the nearest tree that CTranslate2 can express, and what it lacks of another
layout.py       the one table of a tree's numbers and tensors, both ways
writing.py      a model -> a folder
reading.py      a folder -> a model
argos.py        the same in a package for Argos Translate and LibreTranslate
"""
