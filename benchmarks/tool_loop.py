"""Ten steps of a tool loop with a tool prompt of about 1,500 tokens, against smolagents' TransformersModel.

    python benchmarks/tool_loop.py               # prints a table, writes docs/benchmarks/tool_loop.json

Both get the same system prompt, question, calls and tool results, and write as many tokens a step: agentkit makes a
call under the tools' grammar, smolagents generates exactly as many tokens from the same messages, and agentkit's call
goes into both histories. What smolagents writes is thrown away: only its work is measured, not its wisdom. Both are
timed from outside: encoding the messages, and here making the grammar, are part of it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

from machine import positive, write

from agentkit import load_model
from agentkit.assets import asset_path
from agentkit.events import Notice
from agentkit.llm.formats import GENERIC
from agentkit.messages import Completion, Message, ToolSpec

STEPS = 10
PROMPT = "You are the assistant of a small web shop. Use the tools to help the customer; one call at a time."
QUESTION = "My order 1042 has not arrived. Find out where it is, and if it is lost, send it again."


def tool(name: str, description: str, /, **parameters: str) -> ToolSpec:
    """A tool whose parameters are texts, described one by one."""
    properties = {key: {"type": "string", "description": text} for key, text in parameters.items()}
    return ToolSpec(
        name, description, {"type": "object", "properties": properties, "required": list(parameters)}
    )


TOOLS = [
    tool("order_status", "Look up the state of an order.", order_id="The number printed on the receipt."),
    tool(
        "track_parcel",
        "Ask the carrier where a parcel is.",
        carrier="The carrier's name.",
        code="The tracking code.",
    ),
    tool("find_customer", "Find a customer record.", email="The address the customer registered with."),
    tool("stock_level", "How many pieces of an article are in the warehouse.", article="The article number."),
    tool(
        "reserve",
        "Reserve an article for a customer.",
        article="The article number.",
        customer="The customer's id.",
    ),
    tool(
        "create_shipment",
        "Send an order again.",
        order_id="The order's number.",
        reason="Why it is sent again.",
    ),
    tool("refund", "Pay money back.", order_id="The order's number.", amount="The amount with its currency."),
    tool(
        "send_mail", "Write to a customer.", to="The address.", subject="The subject line.", body="The text."
    ),
    tool(
        "open_ticket",
        "Hand a case to a colleague.",
        summary="What it is about.",
        urgency="low, normal or high.",
    ),
    tool("search_help", "Search the help centre.", query="What the customer wants to know."),
    tool(
        "price_of",
        "The price of an article today.",
        article="The article number.",
        country="Two-letter code.",
    ),
    tool(
        "change_address",
        "Change where an order goes, as long as it has not left the warehouse.",
        order_id="The order's number.",
        street="Street and house number.",
        city="The city, with the postal code before it.",
    ),
    tool("invoice", "Make an invoice again.", order_id="The order's number.", name="To whom it is made out."),
    tool(
        "return_label",
        "Make a label for a return.",
        order_id="The order's number.",
        article="What comes back.",
    ),
    tool("voucher", "Make a voucher.", amount="The amount with its currency.", customer="The customer's id."),
    tool("opening_hours", "When the showroom is open.", day="The day of the week."),
]
RESULT = {
    "state": "in transit",
    "carrier": "An Post",
    "code": "LX55 1042 7IE",
    "last_seen": "Portlaoise, 09:40",
}


def ours(model: Any, messages: list[Message]) -> tuple[Message, dict[str, Any]]:
    # A call's first tokens are forced by the grammar and cost nothing: the time to the first token that the model
    # itself chooses is taken with free text, and counted on top.
    free, first_token, free_seconds = timed(model, messages, tool_choice="none", max_new_tokens=1)
    out, _, seconds = timed(model, messages, tool_choice="required", max_new_tokens=120)
    both = (free.usage, out.usage)
    return Message("assistant", "", out.tool_calls), {
        "prefilled": sum(usage.prompt_tokens - usage.cached_tokens for usage in both),
        "generated": sum(usage.completion_tokens for usage in both),
        "seconds": free_seconds + seconds,
        "first_token": first_token,
        "prompt": free.usage.prompt_tokens,
    }


def timed(model: Any, messages: list[Message], **options: Any) -> tuple[Completion, float, float]:
    """The answer, seconds to the first event that comes of a token, seconds to the end."""
    started, first = time.perf_counter(), 0.0
    for event in model.stream(messages, tools=TOOLS, **options):
        if not isinstance(event, Notice):
            first = first or time.perf_counter() - started
        if isinstance(event, Completion):
            return event, first, time.perf_counter() - started
    raise SystemExit("an answer ended without a completion")


class Clock:
    """A logits processor that notes when the first token's logits are there."""

    def __init__(self) -> None:
        self.first = 0.0

    def __call__(self, ids: Any, scores: Any) -> Any:
        self.first = self.first or time.perf_counter()
        return scores


def theirs(model: Any, messages: list[Message], tokens: int) -> dict[str, Any]:
    """smolagents generates ``tokens`` tokens from the same conversation."""
    system = "".join(GENERIC.system(messages[0].content, TOOLS))
    plain = [{"role": "system", "content": [{"type": "text", "text": system}]}]
    for message in messages[1:]:
        role = "assistant" if message.role == "assistant" else "user"
        text = "".join(GENERIC.result(message)) if message.role == "tool" else message.content
        text = "".join(GENERIC.calls(message.tool_calls)) or text
        plain.append({"role": role, "content": [{"type": "text", "text": text}]})
    clock = Clock()
    started = time.perf_counter()
    reply = model.generate(
        plain, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, logits_processor=[clock]
    )
    seconds = time.perf_counter() - started
    return {
        "prefilled": reply.token_usage.input_tokens,
        "generated": reply.token_usage.output_tokens,
        "seconds": seconds,
        "first_token": clock.first - started,
    }


def loop(model: Any, peer: Any) -> dict[str, list[dict[str, Any]]]:
    """One conversation of ten steps, each step by both."""
    messages = [Message("system", PROMPT), Message("user", QUESTION)]
    steps: dict[str, list[dict[str, Any]]] = {"agentkit": [], "smolagents": []}
    for number in range(1, STEPS + 1):
        call, step = ours(model, messages)
        steps["agentkit"].append(step)
        steps["smolagents"].append(theirs(peer, messages, step["generated"]))
        result = json.dumps({"step": number, **RESULT})
        messages += [call, Message("tool", result, (), call.tool_calls[0].id, call.tool_calls[0].name)]
    return steps


def summary(runs: list[list[dict[str, Any]]]) -> dict[str, float]:
    """Of one engine's runs: totals of a run and times to the first token, medians over the runs."""

    def median(value: Any) -> float:
        return round(statistics.median(value(run) for run in runs), 3)

    return {
        "prefilled": median(lambda run: sum(step["prefilled"] for step in run)),
        "generated": median(lambda run: sum(step["generated"] for step in run)),
        "seconds": median(lambda run: sum(step["seconds"] for step in run)),
        "first_token_step_2": median(lambda run: run[1]["first_token"]),
        "first_token_step_10": median(lambda run: run[9]["first_token"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=positive, default=3)
    options = parser.parse_args()
    import torch
    from smolagents import TransformersModel

    peer = TransformersModel(
        model_id=str(asset_path("smollm2-135m")), torch_dtype=torch.bfloat16, device_map="cpu"
    )
    runs = []
    for turn in range(options.rounds + 1):
        # A new model has an empty cache: nothing is left over from the round before.
        model = load_model("smollm2-135m", adapter="none")
        model.chat([{"role": "user", "content": "Hello"}], max_new_tokens=8)
        steps = loop(model, peer)
        if turn:  # the first round pays for allocation and threads
            runs.append(steps)
    engines = {name: summary([run[name] for run in runs]) for name in ("agentkit", "smolagents")}
    mine, other = engines["agentkit"], engines["smolagents"]
    ratios = {
        "prefilled": round(other["prefilled"] / mine["prefilled"], 2),
        "seconds": round(other["seconds"] / mine["seconds"], 2),
        "first_token_step_10_to_2": round(mine["first_token_step_10"] / mine["first_token_step_2"], 2),
    }
    body = {
        "steps": STEPS,
        "prompt_tokens": runs[0]["agentkit"][0]["prompt"],
        "quantization": model.info()["quantization"],
        "timed": "from outside",
        "engines": engines,
        "ratios": ratios,
    }
    write("tool_loop.json", body)
    print(json.dumps(body, indent=1))


if __name__ == "__main__":
    main()
