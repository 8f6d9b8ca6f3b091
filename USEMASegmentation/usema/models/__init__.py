"""A model on disk: ``model.json`` and ``weights.safetensors``, read, verified and written."""
