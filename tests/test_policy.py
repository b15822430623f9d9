"""Allow, ask, deny, and the breaker."""

from __future__ import annotations

import pytest

from agentkit.messages import ToolCall
from agentkit.policy import Breaker, Policy


@pytest.mark.parametrize(
    ("side_effect", "mode", "action"),
    [
        (False, "ask", "allow"),
        (False, "all", "allow"),
        (False, "none", "allow"),
        (True, "ask", "ask"),
        (True, "all", "allow"),
        (True, "none", "deny"),
    ],
)
def test_only_side_effects_need_approval(side_effect: bool, mode: str, action: str) -> None:
    decision = Policy().decide("finetune", side_effect, mode)  # type: ignore[arg-type]
    assert decision.action == action
    assert "finetune" in decision.reason


def test_the_third_identical_call_of_a_turn_is_denied() -> None:
    breaker = Breaker()
    same = [ToolCall(str(n), "look", {"a": 1, "b": 2} if n % 2 else {"b": 2, "a": 1}) for n in range(4)]
    assert [breaker.decide(call).action for call in same] == ["allow", "allow", "deny", "deny"]
    assert breaker.decide(ToolCall("5", "look", {"a": 1})).action == "allow"
    assert Breaker().decide(same[0]).action == "allow"
