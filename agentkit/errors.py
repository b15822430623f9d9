"""The exception tree: one root, one line per error, cause first and remedy second.

::

    AgentkitError                  exit code 1: something failed while running
    ├── UsageError                 exit code 2: the caller can fix it by asking differently
    │   ├── SettingsError          agentkit.toml, AGENTKIT_* or an option is wrong
    │   ├── ProjectError           a project folder, tool file or prompt file is wrong
    │   ├── SchemaError            a tool schema cannot be expressed as a grammar
    │   └── NotFoundError          a named model, tool, session, document or adapter does not exist
    ├── AssetError                 an embedded asset is missing, corrupt or cannot be fetched
    ├── ModelError                 a model cannot be loaded or failed while decoding
    ├── KnowledgeError             a document cannot be read, or the index not read or written
    │   └── IndexDamaged           the index has to be made anew from the documents
    │       └── IndexOutdated      because an older agentkit made it
    ├── StoreError                 the session database cannot be read or written
    ├── MissingBackendError        an optional program or package is not installed
    └── TrainingError              a fine-tuning job cannot start or failed

A tool that fails is not an exception: it is a `ToolResult` with ``ok=False``.
"""


class AgentkitError(Exception):
    """Root of everything agentkit raises on purpose.

    Args:
        cause: What is wrong, naming the file, key or value.
        remedy: What the user can do about it; may be empty only where nothing can be done.
    """

    exit_code = 1

    def __init__(self, cause: str, remedy: str = "") -> None:
        self.cause = cause.rstrip(".; ")
        self.remedy = remedy.rstrip(".; ")
        super().__init__(f"{self.cause}; {self.remedy}" if self.remedy else self.cause)


class UsageError(AgentkitError):
    """The request itself is wrong: options, arguments, configuration."""

    exit_code = 2


class SettingsError(UsageError):
    """A setting is unknown or has the wrong type."""


class ProjectError(UsageError):
    """A project folder, a tool file or a prompt template cannot be used."""


class SchemaError(UsageError):
    """A tool's JSON schema cannot be expressed as a grammar; names the path in the schema."""


class NotFoundError(UsageError):
    """Something that was asked for by name does not exist."""


class AssetError(AgentkitError):
    """An embedded model asset is missing, has the wrong checksum or cannot be fetched."""


class ModelError(AgentkitError):
    """A model cannot be loaded, or failed while decoding."""


class KnowledgeError(AgentkitError):
    """A document cannot be read, or the knowledge index is damaged."""


class IndexDamaged(KnowledgeError):
    """The index cannot be used any more; it is made anew from the documents."""


class IndexOutdated(IndexDamaged):
    """The index was made by another version of agentkit."""


class StoreError(AgentkitError):
    """The session database cannot be read or written."""


class MissingBackendError(AgentkitError):
    """A program or package that a tool needs is not installed; the remedy is the install command."""


class TrainingError(AgentkitError):
    """A fine-tuning job cannot start, or failed."""
