"""Models behind HTTP: `sublayer serve`. Texts of many clients run in one batch, in a thread that owns the model."""
