"""Fine-tuning jobs beside a chat: how far they are, and which have ended since the last look."""

from __future__ import annotations

import threading

from agentkit.errors import AgentkitError
from agentkit.ui.messages import JobsSeen
from agentkit.ui.protocol import ChatWorkspace


class JobWatch:
    """Looks at the jobs of a project.

    Args:
        workspace: The opened project.
    """

    def __init__(self, workspace: ChatWorkspace) -> None:
        self._workspace = workspace
        self._lock = threading.Lock()
        self._active: set[str] = set()
        self._has_failed = False

    def look(self) -> JobsSeen:
        """The job that trains, and those that were active at the last look and are no more."""
        with self._lock:
            try:
                jobs = self._workspace.jobs()
            except AgentkitError as error:  # told once: it must neither end the chat nor fill it
                told = [] if self._has_failed else [f"jobs cannot be read: {error}"]
                self._has_failed = True
                return JobsSeen("", told)
            ended = [
                f"{job.name}: {job.progress()}" for job in jobs if job.id in self._active and not job.active
            ]
            active = [job for job in jobs if job.active]
            self._active = {job.id for job in active}
            training = [job for job in active if job.status == "running"] or active[-1:]
            return JobsSeen(f"{training[0].name}: {training[0].progress()}" if training else "", ended)
