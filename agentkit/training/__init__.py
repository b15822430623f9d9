"""Fine-tuning: chats to LoRA adapters, in a process of its own, rendered by the very code that serves.

`jobs` starts and watches runs, `adapters` holds their results; both load no torch. `data`, `loop` and
`worker` are what happens inside a run.
"""
