"""Tools: schemas from signatures, loading, policy-free running in a sandbox. Knows no model and no retrieval."""
