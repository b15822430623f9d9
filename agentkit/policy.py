"""Whether a tool call may run: allow, ask a person, or deny. Pure decisions; nothing runs here."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from agentkit.messages import ToolCall

Mode = Literal["ask", "all", "none"]
"""What happens to calls with side effects: a person decides, all run, none runs."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome for one call."""

    action: Literal["allow", "ask", "deny"]
    reason: str
    """For people, and for the model where the call was denied."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Calls that only read are allowed; calls that change something outside need approval."""

    def decide(self, tool_name: str, side_effect: bool, mode: Mode) -> Decision:
        """Decide about one call.

        Args:
            tool_name: For the reason's text.
            side_effect: Whether the tool declares that it changes something outside.
            mode: ``[agent] approve`` or ``--approve``.
        """
        if not side_effect:
            return Decision("allow", f"{tool_name} only reads")
        if mode == "all":
            return Decision("allow", f"{tool_name} changes something, and all such calls are approved")
        if mode == "none":
            return Decision("deny", f"{tool_name} changes something, and such calls are not approved here")
        return Decision("ask", f"{tool_name} changes something outside this conversation")


@dataclass(slots=True)
class Breaker:
    """Stops a model that repeats itself: the third identical call of a turn is denied. One per turn."""

    limit: int = 3
    """The call with this count, and every further one, is denied."""
    _counts: Counter[str] = field(default_factory=Counter)

    def decide(self, call: ToolCall) -> Decision:
        """Count a call; identical means the same name and the same arguments in any order."""
        key = f"{call.name} {json.dumps(call.arguments, sort_keys=True, ensure_ascii=False, default=repr)}"
        self._counts[key] += 1
        if self._counts[key] >= self.limit:
            reason = f"{call.name} was called {self._counts[key]} times with the same arguments in this turn"
            return Decision("deny", reason)
        return Decision("allow", "not a repetition")
