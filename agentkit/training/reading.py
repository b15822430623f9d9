"""Training files, line by line; every error names file and line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agentkit.errors import NotFoundError, UsageError
from agentkit.messages import no_json


def read_lines(path: Path, what: str) -> list[bytes]:
    """The lines of a file, without a byte order mark and without line ends.

    Args:
        path: The file.
        what: What it should hold, for the message.

    Raises:
        NotFoundError: There is no such file.
        UsageError: It cannot be read.
    """
    if not path.is_file():
        raise NotFoundError(f"no such file: {path}", f"name a file of {what}")
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", "check the file's rights") from error
    lines[0] = lines[0].removeprefix(b"\xef\xbb\xbf")
    return [line.removesuffix(b"\r") for line in lines]


def read_objects(path: Path, what: str, form: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Origin (``file, line n``) and object of each line of a JSONL file that is not blank.

    Args:
        path: The file.
        what: What it should hold, for the message.
        form: How a line is to be written: the remedy.
    """
    for number, line in enumerate(read_lines(path, what), 1):
        if line.strip():
            origin = f"{path}, line {number}"
            yield origin, _parse(line, origin, form)


def decode(line: bytes, origin: str) -> str:
    """Bytes as text.

    Raises:
        UsageError: They are not UTF-8.
    """
    try:
        return line.decode("utf-8")
    except UnicodeError as error:
        raise UsageError(f"{origin} is not UTF-8", "save the file as UTF-8") from error


def _parse(line: bytes, origin: str, form: str) -> dict[str, Any]:
    try:
        body = json.loads(decode(line, origin), parse_constant=no_json)
        json.dumps(body, ensure_ascii=False).encode("utf-8")  # JSON can spell half a character: \ud800
    except UnicodeError as error:
        raise UsageError(f"{origin} is not UTF-8", "save the file as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{origin} is not JSON ({error})", form) from error
    if not isinstance(body, dict):
        raise UsageError(f"{origin} is no JSON object", form)
    return body
