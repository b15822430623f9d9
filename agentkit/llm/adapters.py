"""The adapters of one loaded model: which one a turn runs with, and how another takes its place while it runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agentkit.engine.peft_files import CONFIG, WEIGHTS
from agentkit.errors import AgentkitError, ModelError, NotFoundError, UsageError
from agentkit.events import Notice
from agentkit.llm.guide import FULL, Strength
from agentkit.settings import expanded

if TYPE_CHECKING:
    from agentkit.engine.peft_files import PreparedLora
    from agentkit.engine.weights import LoadedModel

LOADED = ""
"""The specification of whatever a model was loaded with; no adapter can be called that."""


@dataclass(frozen=True, slots=True)
class Traits:
    """What an adapter was trained for, as far as serving goes by it."""

    reads: bool = False
    """It can judge whether a passage states an answer; see `llm.reading`."""
    strength: Strength = FULL
    """Of the evidence in calls that are made with it."""
    decides: bool = False
    """It can tell whether a turn needs tools, and which, from their descriptions alone."""


PLAIN = Traits()


@dataclass(frozen=True, slots=True)
class AdapterFolder:
    """Where an adapter lies."""

    name: str
    """How it is called in messages."""
    path: Path
    traits: Traits = PLAIN


Resolve = Callable[[str], AdapterFolder | None]
"""What a specification (``auto``, ``none``, a name, a path) means at this moment; ``None`` for the bare model."""
_Stamp = tuple[str, tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class AdapterChoice:
    """What a whole turn runs with, however many times the model is asked in it."""

    adapter: PreparedLora | None
    strength: Strength = FULL
    reads: bool = False
    """It can judge whether a passage states an answer; see `llm.reading`."""
    decides: bool = False
    """It can tell whether a turn needs tools, and which, from their descriptions alone."""


@dataclass(slots=True)
class _State:
    """What became of a specification."""

    stamp: _Stamp | None
    """Of the files that were loaded."""
    name: str
    adapter: PreparedLora | None
    traits: Traits = PLAIN
    refused: _Stamp | str | None = None
    """The later state of the files that could not be used, or why there is none."""

    def choice(self) -> AdapterChoice:
        """For one turn."""
        traits = self.traits
        return AdapterChoice(self.adapter, traits.strength, traits.reads, traits.decides)


class Adapters:
    """Loads adapters beside a model's weights when they are asked for, and again when their files have changed.

    Args:
        loaded: The model.
        resolve: What specifications mean; by default only ``none`` and paths mean something.
        spec: What a turn runs with unless it asks for another.
        folder: What ``spec`` meant when the model was loaded.
    """

    KEPT = 8
    """Adapters that are held though no conversation goes on with them, besides the default and what was loaded."""

    def __init__(
        self,
        loaded: LoadedModel,
        resolve: Resolve | None = None,
        spec: str = LOADED,
        folder: AdapterFolder | None = None,
    ) -> None:
        self._loaded, self._resolve = loaded, resolve or _resolve_path
        self._spec = spec
        name = folder.name if folder else loaded.adapter.name if loaded.adapter else ""
        first = _State(_stamp(folder), name, loaded.adapter, folder.traits if folder else PLAIN)
        self._states = {LOADED: first, spec: first}
        self._held = {first.stamp: loaded.adapter} if folder else {}
        self._untold: dict[str, tuple[Notice, ...]] = {}
        """What quiet looks at a specification have found."""
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """Of the adapter that a turn runs with by default; empty for none."""
        return self._states[self._spec].name

    @property
    def reads(self) -> bool:
        """Whether that adapter was trained to judge what passages state."""
        return self._states[self._spec].traits.reads

    def use(self, spec: str) -> None:
        """Let turns run with another adapter by default.

        Raises:
            AgentkitError: It cannot be used; the one before stays.
        """
        with self._lock:
            self._states[spec] = self._load(self._resolve(spec))
            self._spec = spec
            self._untold.pop(spec, None)

    def choose(
        self, spec: str | None = None, *, quiet: bool = False
    ) -> tuple[AdapterChoice, tuple[Notice, ...]]:
        """What a turn that begins now runs with, and what has changed since the last look.

        Costs a look at a few small files. A specification that has worked before and does no longer, be it that the
        new adapter is damaged or was trained for another model, goes on as it was, with a notice.

        Args:
            spec: What the turn asks for.
            quiet: Nobody would see a notice: the next look that is not quiet gives it.

        Raises:
            AgentkitError: The specification has never worked, or so long ago that its adapter was dropped.
        """
        with self._lock:
            spec = self._spec if spec is None else spec
            before = self._states.get(spec)
            if before is None:
                self._states[spec] = self._load(self._resolve(spec))
                return self._states[spec].choice(), ()
            if before.stamp in self._held:
                self._held[before.stamp] = self._held.pop(before.stamp)  # the last used stands last
            notices = () if spec == LOADED else self._look_again(spec, before)
            notices = (*self._untold.pop(spec, ()), *notices)
            if quiet and notices:
                self._untold[spec], notices = notices, ()
            return self._states[spec].choice(), notices

    def _look_again(self, spec: str, before: _State) -> tuple[Notice, ...]:
        """Follow what has changed since the specification was last looked at; each change is told once."""
        found: _Stamp | None = None
        try:
            folder = self._resolve(spec)
            found = _stamp(folder)
            if found == before.stamp or (found is not None and found == before.refused):
                return ()
            now = self._states[spec] = self._load(folder)
        except AgentkitError as error:
            known, before.refused = before.refused, found or str(error)
            told = f"{error}; {self._loaded.name} still runs {_with(before.name)}"
            return () if known == before.refused else (Notice("adapter_refused", told),)
        return (Notice("adapter", f"{self._loaded.name} now runs {_with(now.name)}"),)

    def _load(self, folder: AdapterFolder | None) -> _State:
        stamp = _stamp(folder)
        if folder is None:
            return _State(stamp, "", self._get(folder, stamp))
        return _State(stamp, folder.name, self._get(folder, stamp), folder.traits)

    def _get(self, folder: AdapterFolder | None, stamp: _Stamp | None) -> PreparedLora | None:
        if stamp in self._held:
            self._held[stamp] = self._held.pop(stamp)  # the last used stands last
            return self._held[stamp]
        if folder is None:
            if self._loaded.fixed:
                cause = f"{self._loaded.name} has an adapter in its weights: it cannot run without"
                raise UsageError(cause, "start again with --adapter none")
            return None
        try:
            self._held[stamp] = self._loaded.load_adapter(folder.path, folder.name)
        except AgentkitError:
            raise
        except Exception as error:  # whatever its files hold, and if there is no memory for it
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ModelError(
                f"adapter {folder.name} cannot be loaded: {reason}", "see to its files"
            ) from error
        self._drop()
        return self._held[stamp]

    def _drop(self) -> None:
        """Let go of the adapters that nobody has asked for longest; what led to them is looked up anew."""
        needed = {self._states[spec].stamp for spec in (LOADED, self._spec)}
        for old in [stamp for stamp in self._held if stamp not in needed][: -self.KEPT]:
            dropped = self._held.pop(old)
            for spec in [spec for spec, state in self._states.items() if state.adapter is dropped]:
                del self._states[spec]
                self._untold.pop(spec, None)


def _with(name: str) -> str:
    return f"with the {name} adapter" if name else "without an adapter"


def _stamp(folder: AdapterFolder | None) -> _Stamp | None:
    """What tells one state of an adapter's files from another."""
    if folder is None:
        return None
    sizes: list[tuple[int, ...]] = []
    for name in (CONFIG, WEIGHTS):
        try:
            found = (folder.path / name).stat()
            sizes.append((found.st_mtime_ns, found.st_size, found.st_ino))
        except OSError:  # told where it is loaded
            sizes.append(())
    return str(folder.path), sizes[0], sizes[1]


def _resolve_path(spec: str) -> AdapterFolder | None:
    if spec == "none":
        return None
    path = expanded(spec)
    if not path.is_dir():
        raise NotFoundError(f"no adapter in {spec}", "name the folder of one, or `none`")
    return AdapterFolder(path.name, path)
