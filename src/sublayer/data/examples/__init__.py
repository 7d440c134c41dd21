"""What a model is shown: encoded text, and how rows of it become a batch. One objective's shape a file."""
