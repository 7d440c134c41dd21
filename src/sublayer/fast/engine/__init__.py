"""The engine: a model's step as a program, run by one executor in C++ (`cpp/`).

program.py     what a model lowers itself to
packing.py     from there to plain data: matrices packed in a weight format, buffers placed
executable.py  that data
engine.py      runs it
library.py     the shared library: finding it, its functions
file.py        the programs of a model in a file that is mapped; checks.py, that they stay within their memory
decoder.py     an encoder-decoder from such a file, which the engine runs alone
threads.py     how many threads compute

Only program.py and packing.py need torch.
"""
