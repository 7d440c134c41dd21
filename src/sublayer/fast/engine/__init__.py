"""The engine: a model's step as a program, run by one executor in C++ (`cpp/`).

program.py   what a model lowers itself to
library.py   the shared library: finding it, building it, its functions
engine.py    a program with its matrices in a weight format, ready to run
"""
