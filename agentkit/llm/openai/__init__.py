"""The OpenAI chat protocol, as a client speaks it: address, HTTP, server-sent events, request, answer, checks."""
