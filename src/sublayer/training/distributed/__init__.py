"""A training in several processes, which `torchrun` starts: who they are, what each holds, and how they save it.

ranks.py           the processes of a run, and what they tell each other
processes.py       what the loop asks: one process alone, or many (`many.py`)
layout.py          which part of a tensor a process holds: whole tensors to parts, and back
tensor.py          matrices shared out over processes (`nn/tensor_parallel.py` is what the parts say of it)
sharded.py         checkpoints that all processes write together
"""
