"""Text that was prepared for training: a folder of token ids, made by several processes, read a part at a time."""
