"""Tokenizers and chat templates in the manner of the families whose tool-call formats there are.

They are made of SmolLM2's tokenizer: control tokens that its model never uses get the families' names, so that its
output head can write them.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
from typing import Any

from agentkit.llm.local import LocalModel

UNUSED = ("<repo_name>", "<reponame>", "<file_sep>", "<filename>", "<gh_stars>", "<issue_start>", "<issue_comment>",
          "<issue_closed>", "<jupyter_start>", "<jupyter_text>", "<jupyter_code>", "<jupyter_output>")  # fmt: skip

CHATML = """{%- for m in messages -%}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif %}"""
TEMPLATES = {
    "hermes": "{%- if tools -%}<tool_call>{{ tools }}</tool_call>{%- endif -%}" + CHATML,
    "llama3": """{%- if tools -%}{"name": f, "parameters": {{ tools }}}{%- endif -%}
{%- for m in messages -%}<|start_header_id|>{{ m.role }}<|end_header_id|>

{% if m.role == "ipython" %}{{ m.content | tojson }}{% else %}{{ m.content }}{% endif %}<|eot_id|>
{%- endfor -%}{%- if add_generation_prompt -%}<|start_header_id|>assistant<|end_header_id|>

{% endif %}""",
    "mistral": """{%- if tools -%}[TOOL_CALLS]{%- endif -%}
{%- for m in messages -%}
{%- if m.role == "system" -%}[SYSTEM_PROMPT]{{ m.content }}[/SYSTEM_PROMPT]
{%- elif m.role == "user" -%}[INST] {{ m.content }}[/INST]
{%- elif m.role == "assistant" -%}{{ m.content }}<|im_end|>
{%- else -%}{{ raise_exception("unknown role") }}{%- endif -%}{%- endfor -%}""",
    "gemma": """{%- for m in messages -%}<start_of_turn>{{ "model" if m.role == "assistant" else m.role }}
{{ m.content }}<end_of_turn>
{% endfor %}{%- if add_generation_prompt -%}<start_of_turn>model
{% endif %}""",
}
TEMPLATES["mistral-args"] = TEMPLATES["mistral"].replace("[TOOL_CALLS]", "[TOOL_CALLS]f[ARGS]{}")
TOKENS = {
    "hermes": ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"),
    "llama3": ("<|python_tag|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>"),
    "mistral": ("[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[AVAILABLE_TOOLS]",
                "[/AVAILABLE_TOOLS]", "[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[ARGS]"),
    "gemma": ("<start_function_declaration>", "<end_function_declaration>", "<start_function_call>",
              "<end_function_call>", "<start_function_response>", "<end_function_response>", "<escape>"),
}  # fmt: skip
TOKENS["mistral-args"] = TOKENS["mistral"]
RENAMED = {
    "llama3": {"<|im_end|>": "<|eot_id|>"},
    "gemma": {"<|im_start|>": "<start_of_turn>", "<|im_end|>": "<end_of_turn>"},
}
NAMES = tuple(TEMPLATES)


@functools.cache  # half a second each
def family(tokenizer: Any, name: str) -> Any:
    """The tokenizer with the family's control tokens and template."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    names = {**dict(zip(UNUSED, TOKENS[name], strict=False)), **RENAMED.get(name, {})}
    body = json.loads(tokenizer.backend_tokenizer.to_str())
    for token in body["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
        token["special"] = not token["content"].startswith(("<tool", "</tool", "<think", "</think"))
    vocab = body["model"]["vocab"]
    body["model"]["vocab"] = {names.get(token, token): id for token, id in vocab.items()}
    made = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(body)),
        eos_token=names.get("<|im_end|>", "<|im_end|>"),
    )
    made.chat_template = TEMPLATES[name]
    return made


def as_family(model: LocalModel, name: str, template: str | None = None) -> LocalModel:
    """The model with the family's tokenizer; it chooses the format by itself."""
    tokenizer = with_template(family(model.tokenizer, name), template or TEMPLATES[name])
    return LocalModel(dataclasses.replace(model._loaded, tokenizer=tokenizer))


def with_template(tokenizer: Any, template: str) -> Any:
    """A copy with another chat template."""
    made = copy.copy(tokenizer)
    made.chat_template = template
    return made
