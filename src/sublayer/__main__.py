"""`python -m sublayer`: the command, for `torchrun -m sublayer` and wherever the script is not on the path."""

from sublayer.cli.main import main

main()
