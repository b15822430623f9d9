"""Tools: schemas from signatures, loading, running in a sandbox. Knows no model and no retrieval."""
