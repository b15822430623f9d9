"""One file per tool-call format, with the same names in each: `OPEN`, `CLOSE`, `system`, `call`, `result`."""
