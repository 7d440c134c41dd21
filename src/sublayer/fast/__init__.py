"""What makes a part fast on this machine: what the processor is good at, measured, and what is chosen by it."""
