"""Messages to token ids and back: formats, encoding, grammars, routing, and the models behind one protocol."""
