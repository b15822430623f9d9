"""`agentkit doctor`: is everything there that is needed, and what to do where it is not."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agentkit.cli.common import Common, command_app, common
from agentkit.cli.output import data, json_line, one_line
from agentkit.ui.clean import first_of

if TYPE_CHECKING:
    from agentkit.assets import Asset

app = command_app()

NEEDED_BYTES = 1_000_000_000
"""Free disk that the embedded models, an index and a small adapter take, with some to spare."""
PACKAGES = {
    "torch": "torch",
    "transformers": "transformers",
    "faiss-cpu": "faiss",
    "llguidance": "llguidance",
    "textual": "textual",
    "spacy": "spacy",
    "peft": "peft",
}
"""Distribution and module, of what only some commands load."""


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of one check."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    needed: bool = True
    """Whether agentkit's main job fails without it."""


@app.command()
@common
def doctor(options: Common) -> int:
    """Check that everything needed is there; exit 1 where something is not."""
    failed = False
    for check in checks(options):
        failed = failed or (check.needed and not check.ok)
        if options.as_json:
            json_line(asdict(check))
            continue
        state = "ok" if check.ok else "missing" if check.needed else "optional"
        remedy = f"; {check.remedy}" if check.remedy and not check.ok else ""
        data(f"{state:<8}  {check.name:<18}  {one_line(check.detail + remedy)}")
    return int(failed)


def checks(options: Common) -> Iterator[Check]:
    """Every check, in order; one that breaks is a failed check, not an error."""
    yield _python()
    yield _guarded("packages", _packages)
    yield _guarded("processor", _processor)
    yield from _assets()
    yield _apertium()
    yield _guarded("project", lambda: _project(options))
    yield from _server(options)
    yield _guarded("adapter", lambda: _adapter(options))
    yield _guarded("knowledge", lambda: _knowledge(options))
    yield _guarded("sessions", lambda: _sessions(options))
    yield _guarded("disk", _disk)


def _guarded(name: str, check: Callable[[], Check], needed: bool = True) -> Check:
    from agentkit.errors import AgentkitError

    try:
        return check()
    except AgentkitError as error:
        return Check(name, False, error.cause, error.remedy, needed)
    except Exception as error:  # the other checks still have to run
        return Check(name, False, f"{type(error).__name__}: {error}", "run again with --debug", needed)


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    return Check("python", sys.version_info >= (3, 11), version, "install Python 3.11 or newer")


def _packages() -> Check:
    missing = [name for name, module in PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        return Check("packages", False, f"without {', '.join(missing)}", f"pip install {' '.join(missing)}")
    found = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "transformers"))
    return Check("packages", True, found)


def _processor() -> Check:
    import torch

    capability = f"CPU {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
    if not torch.cuda.is_available():
        return Check("processor", True, f"{capability}; no CUDA, models run on the CPU")
    return Check(
        "processor", True, f"{torch.cuda.get_device_name()} (CUDA {torch.version.cuda}); {capability}"
    )


def _assets() -> Iterator[Check]:
    from agentkit.assets import ASSETS

    for asset in ASSETS.values():
        yield _guarded(asset.name, functools.partial(_asset, asset), needed=not asset.optional)


def _asset(asset: Asset) -> Check:
    from agentkit.assets import installed

    there = installed(asset.name)
    detail = f"{asset.use}, {asset.folder}" if there else f"{asset.use}: not installed"
    return Check(asset.name, there, detail, f"agentkit models pull {asset.name}", needed=not asset.optional)


def _apertium() -> Check:
    path = shutil.which("apertium")
    remedy = "on Debian or Ubuntu: sudo apt-get install apertium-eng-spa"
    return Check(
        "apertium", path is not None, path or "not found, no embedded translation", remedy, needed=False
    )


def _project(options: Common) -> Check:
    with options.workspace() as workspace:
        kind = "the starter" if workspace.project.is_starter else str(workspace.project.root)
        return Check("project", True, f"{kind}, {len(workspace.registry)} tools")


def _server(options: Common) -> Iterator[Check]:
    """Only where the project's model is on one."""
    from agentkit.errors import AgentkitError
    from agentkit.llm.openai.address import is_remote

    try:
        with options.workspace() as workspace:
            name = workspace.settings.model
    except AgentkitError:
        return  # told by the check of the project
    if is_remote(name):
        yield _guarded("server", lambda: _asked(options))


def _asked(options: Common) -> Check:
    with options.workspace(**{"agent.routing": "model"}) as workspace:
        body = workspace.model.info()
        return Check("server", True, f"{body['base_url']}, model {body['name']}")


def _adapter(options: Common) -> Check:
    """What the adapter setting means now, and whether it can be read."""
    from agentkit.build import adapter_folder
    from agentkit.engine.peft_files import beyond_low_rank, read_config
    from agentkit.llm.openai.address import is_remote
    from agentkit.training.adapters import use_of

    with options.workspace() as workspace:
        settings = workspace.settings
    if is_remote(settings.model):
        return Check("adapter", True, "none; the model is on a server")
    folder = adapter_folder(settings.adapter, settings.model)
    if folder is None:
        return Check("adapter", True, f"none for {settings.model}")
    other = beyond_low_rank(read_config(folder.path))
    how = f"merged into the weights ({other})" if other else "beside the weights where the pass is compiled"
    found = use_of(folder.path.parent, settings.model)
    if found and found.forced and found.adapter == folder.name:
        how += f"; in use by force since {found.forced}: {found.because}"
    return Check("adapter", True, f"{folder.name} for {settings.model}, {how}")


def _knowledge(options: Common) -> Check:
    with options.workspace() as workspace:
        index = workspace.project.data_dir / "knowledge.sqlite"
        if not workspace.settings.knowledge.index and not index.exists():
            return Check("knowledge", True, "not indexed yet; the first question does it")
        workspace.knowledge.verify()
        documents = workspace.knowledge.list()
        chunks = sum(document.chunks for document in documents)
        told = "".join(f"; {notice}" for notice in first_of(workspace.knowledge.notices))
        return Check("knowledge", True, f"{len(documents)} documents, {chunks} chunks{told}")


def _sessions(options: Common) -> Check:
    with options.workspace() as workspace:
        if not workspace.project.sessions_path.exists():
            return Check("sessions", True, "none yet")
        found = workspace.store.list()  # opening checks the whole file
        return Check("sessions", True, f"{len(found)} in {workspace.project.sessions_path}")


def _disk() -> Check:
    from agentkit.settings import cache_dir, data_dir

    free = min(shutil.disk_usage(_existing(folder)).free for folder in (cache_dir(), data_dir()))
    remedy = f"free space for {cache_dir()} and {data_dir()}"
    return Check("disk", free >= NEEDED_BYTES, f"{free / 1e9:.1f} GB free", remedy)


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())
