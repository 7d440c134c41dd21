"""A decoder's step without its modules: the step contract fulfilled by plain functions over prepared weights."""
