"""Token ids in, token ids out: weights, kernels, KV ledger and the decode loop. Knows no message and no tool."""
