"""Zip-based files: refused before they are unpacked where they would unpack to too much."""

from __future__ import annotations

import io
import zipfile
import zlib

from agentkit.errors import KnowledgeError
from agentkit.retrieval.loaders.limits import Limits

SMALL = 1 << 20
"""Bytes: the ratio of a member that unpacks to less is of no concern."""
MEMBERS = 10_000
_STEP = 1 << 20


def check_archive(data: bytes, limits: Limits) -> None:
    """Hold a zip file to the limits, first by its directory, then by unpacking it piece by piece.

    Raises:
        KnowledgeError: It is damaged or encrypted, or unpacks to more than the limits allow.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            _check_directory(members, len(data), limits)
            left = limits.expanded
            for member in members:
                left -= _unpack(archive, member, left, limits)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, ValueError) as error:
        reason = str(error).strip() or type(error).__name__
        raise KnowledgeError(f"is damaged or cut off: {reason}", "get a whole copy of it") from error


def _check_directory(members: list[zipfile.ZipInfo], size: int, limits: Limits) -> None:
    if len(members) > MEMBERS:
        raise _bomb(f"holds {len(members):,} files, more than the limit of {MEMBERS:,}")
    if any(member.flag_bits & 1 for member in members):
        raise KnowledgeError("is encrypted", "save it without a password")
    packed, unpacked = sum(m.compress_size for m in members), sum(m.file_size for m in members)
    if unpacked > limits.expanded:
        raise _bomb(_too_much(unpacked, limits))
    if packed > size:
        raise _bomb("holds files that share their bytes")
    if unpacked > SMALL and unpacked > limits.ratio * max(packed, 1):
        raise _bomb(_too_dense(unpacked, packed, limits))
    for member in members:
        if member.file_size > SMALL and member.file_size > limits.ratio * max(member.compress_size, 1):
            raise _bomb(_too_dense(member.file_size, member.compress_size, limits))


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo, left: int, limits: Limits) -> int:
    """Bytes of one member; the directory may have lied about them."""
    count = 0
    with archive.open(member) as file:
        while piece := file.read(_STEP):
            count += len(piece)
            if count > left:
                raise _bomb(_too_much(limits.expanded - left + count, limits))
    return count


def _too_much(unpacked: int, limits: Limits) -> str:
    return f"unpacks to {unpacked >> 20:,} MB or more, over the limit of {limits.expanded >> 20:,} MB"


def _too_dense(unpacked: int, packed: int, limits: Limits) -> str:
    return (
        f"unpacks to {unpacked // max(packed, 1):,} times its size, over the limit of {limits.ratio:,} times"
    )


def _bomb(cause: str) -> KnowledgeError:
    return KnowledgeError(cause, "it looks like a zip bomb: remove it, or save the document anew")
