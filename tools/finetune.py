"""Starts a fine-tuning job on a file of chats."""

from __future__ import annotations

from typing import Any

from agentkit import tool

EXAMPLES = (
    ("Fine-tune the model on chats.jsonl", {"data": "chats.jsonl"}),
    (
        "Train an adapter called polite on data/support.jsonl",
        {"data": "data/support.jsonl", "name": "polite"},
    ),
    ("Start training on tickets.jsonl for 5 epochs", {"data": "tickets.jsonl", "epochs": 5}),
    (
        "Please teach the model our tone from exports/tone.jsonl, two passes, and name it tone-v2.",
        {"data": "exports/tone.jsonl", "name": "tone-v2", "epochs": 2},
    ),
    (
        "Run a training job named spring on spring.jsonl, epochs 4",
        {"data": "spring.jsonl", "name": "spring", "epochs": 4},
    ),
    ("Learn from the conversations in /srv/chats/june.jsonl", {"data": "/srv/chats/june.jsonl"}),
)


REPLY = (
    "Training of {{ result.name }} has started as job {{ result.job }}; follow it with /jobs in the chat, or with "
    "`{{ result.follow }}`."
)


@tool(side_effect=True, examples=EXAMPLES, reply=REPLY)
def finetune(data: str, name: str | None = None, epochs: int = 0) -> dict[str, Any]:
    """Start fine-tuning the chat model (training a LoRA adapter) on a JSONL file of conversations.

    The job runs in its own process; this returns at once.

    Args:
        data: Path of the JSONL file with the training conversations.
        name: What to call the new adapter.
        epochs: How many times to go through the data; 0 goes by its size.
    """
    from agentkit import start_finetune

    job = start_finetune(data=data, name=name, epochs=epochs or None)
    return {"job": job.id, "name": job.name, "status": str(job.status), "follow": "agentkit finetune status"}
