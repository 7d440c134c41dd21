"""One objective a file: the loss of a task, and how a model is judged at it."""
