"""Documents: a report, a page, a picture. Each appears whole or not at all."""

import errno
import os
from contextlib import suppress
from pathlib import Path

from rfmstream.engine.core.checkpoint.created import create
from rfmstream.engine.files.output import part_of, target_of
from rfmstream.schemas.errors import ConfigError, TransportError


def write_document(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, force it to the disk and give it its name.

    Errors  ConfigError     no such folder, a directory or a device, not allowed to write there
            TransportError  the disk is full or failed
    """
    target = target_of(path)
    part = part_of(target)
    try:
        create(part, like=target)
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except OSError as error:
        words = os.strerror(error.errno) if error.errno else str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise TransportError(
                f"writing broke off: {words}", endpoint=str(path), fix="make room"
            ) from error
        raise ConfigError(
            f"cannot be written: {words}", file=path, fix="name another file or folder"
        ) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
