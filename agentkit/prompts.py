"""Prompt templates: ``prompts/*.md`` of a project, in sandboxed Jinja2 where every variable must exist."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentkit.errors import ProjectError

if TYPE_CHECKING:
    from jinja2 import Template
    from jinja2.sandbox import SandboxedEnvironment


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """One template, compiled."""

    path: Path
    template: Template

    def render(self, **variables: object) -> str:
        """The text, without blank space at its ends.

        Raises:
            ProjectError: The template asks for a variable that is not given, or fails otherwise.
        """
        try:
            return self.template.render(**variables).strip()
        except Exception as error:  # a template may raise anything its expressions can
            known = ", ".join(sorted(variables)) or "none"
            cause = f"prompt {self.path}{_line(error, self.path)}: {_first_line(error)}"
            raise ProjectError(cause, f"variables given: {known}") from error


def load_prompt(folder: Path, name: str) -> PromptTemplate:
    """Read and compile ``folder/name.md``.

    Raises:
        ProjectError: The file is missing, unreadable or not a valid template.
    """
    from jinja2 import TemplateSyntaxError

    path = folder / f"{name}.md"
    known = sorted(file.stem for file in folder.glob("*.md"))
    if name not in known:  # also keeps names from leaving the folder
        remedy = f"known here: {', '.join(known)}" if known else "copy the starter's with `agentkit init DIR`"
        raise ProjectError(f"no prompt {name!r} in {folder}", remedy)
    environment = _environment()
    try:
        source = path.read_text(encoding="utf-8-sig")
        code = environment.compile(source, name, str(path))
    except TemplateSyntaxError as error:
        raise ProjectError(
            f"prompt {path}, line {error.lineno}: {error.message}", "fix the template"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ProjectError(f"cannot read prompt {path}: {error}", "save it as UTF-8 text") from error
    return PromptTemplate(path, environment.template_class.from_code(environment, code, environment.globals))


def render_text(source: str, **variables: object) -> str:
    """Render a template given as text, such as a tool's reply.

    Raises:
        ProjectError: It is no valid template, or fails.
    """
    try:
        return _environment().from_string(source).render(**variables).strip()
    except Exception as error:  # as in `PromptTemplate.render`
        raise ProjectError(
            f"template {source[:60]!r}: {_first_line(error)}", "fix the tool's reply"
        ) from error


def check_template(source: str) -> None:
    """Parse a template given as text.

    Raises:
        ProjectError: It is no valid template.
    """
    from jinja2 import TemplateSyntaxError

    try:
        _environment().parse(source)
    except TemplateSyntaxError as error:
        cause = f"template {source[:60]!r}, line {error.lineno}: {error.message}"
        raise ProjectError(cause, "fix the template") from error


def _environment() -> SandboxedEnvironment:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Environment(ImmutableSandboxedEnvironment):
        def getattr(self, obj: Any, attribute: str) -> Any:
            """``result.items`` is the tool's key before it is a method of dictionaries."""
            if isinstance(obj, dict) and attribute in obj:
                return obj[attribute]
            return super().getattr(obj, attribute)

    # Prompts are read by a model, not a browser: escaping HTML would only garble them.
    return Environment(undefined=StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True)


def _line(error: BaseException, path: Path) -> str:
    """``, line N`` of the template, from the traceback that Jinja2 rewrites to template lines."""
    trace, number = error.__traceback__, None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            number = trace.tb_lineno
        trace = trace.tb_next
    return f", line {number}" if number else ""


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
