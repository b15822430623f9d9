"""`python -m agentkit`."""

from agentkit.cli.main import main

main()
