"""OpenAI's API: completions, chat, embeddings, models."""
