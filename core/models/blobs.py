"""One file's content from the hub into the Hugging Face cache: resumed, verified, and moved into place whole.

huggingface_hub 2.4 itself downloads into a file of a random name and deletes it when the connection breaks or the
download is stopped; its faster protocol, Xet, cannot be stopped within a file. So the bytes are fetched here, over HTTP
with ranges, into `blobs/<digest>.incomplete`, under the lock that huggingface_hub takes too.
"""

import fcntl
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event

from core.errors import SftuiError
from core.models.hub_client import in_words, response_to

# Seconds before trying again; after so many tries in a row that brought nothing, the connection is given up.
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
_LOCK_POLL = 0.2
_READ = 1 << 20


class DownloadCancelledError(SftuiError):
    """A download that was stopped by request."""

    def __init__(self) -> None:
        super().__init__("The download was stopped", "What has arrived is kept.", "Start it again to go on from there.")


@dataclass(frozen=True, slots=True)
class Blob:
    """A file's content, and where it belongs in the cache."""

    model_id: str
    url: str
    digest: str
    size: int
    repository: Path
    """The model's folder in the cache."""

    @property
    def path(self) -> Path:
        """Where the content lies when it is whole."""
        return self.repository / "blobs" / self.digest

    @property
    def partial(self) -> Path:
        """Where it lies before."""
        return self.repository / "blobs" / f"{self.digest}.incomplete"

    @property
    def lock(self) -> Path:
        """The file that every program which downloads this content locks, as huggingface_hub does."""
        return self.repository.parent / ".locks" / self.repository.name / f"{self.digest}.lock"

    @property
    def is_whole(self) -> bool:
        """Whether all of it is here."""
        return file_size(self.path) == self.size

    @property
    def bytes_here(self) -> int:
        """How much of it is here."""
        return self.size if self.is_whole else min(file_size(self.partial) or 0, self.size)


def file_size(path: Path) -> int | None:
    """Return a file's size in bytes, None when there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def fetch(blob: Blob, arrived: Callable[[int], None], stop: Event) -> None:
    """Fetch what is missing of a blob, telling `arrived` how many of its bytes are here.

    Raises DownloadCancelledError soon after `stop` is set, and SftuiError otherwise; what has arrived is kept in both
    cases.
    """
    in_words(partial(_fetch, blob, arrived, stop), blob.model_id)


def _fetch(blob: Blob, arrived: Callable[[int], None], stop: Event) -> None:
    blob.path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(blob.lock, stop):
        # Another program may have fetched it while we waited.
        if not blob.is_whole:
            blob.partial.touch()
            _complete(blob, arrived, stop)
            _verify(blob, stop)
            blob.partial.replace(blob.path)
    arrived(blob.size)


def _complete(blob: Blob, arrived: Callable[[int], None], stop: Event) -> None:
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    tries = 0
    while (before := blob.partial.stat().st_size) != blob.size:
        problem: Exception
        try:
            _receive(blob, arrived, stop)
            problem = SftuiError("The connection broke", "The hub sent less than it had promised.", "Try again.")
        except (httpx2.TimeoutException, httpx2.NetworkError, httpx2.RemoteProtocolError) as error:
            problem = error
        except HfHubHTTPError as error:
            if error.response.status_code < 500:
                raise
            problem = error
        here = blob.partial.stat().st_size
        if here == blob.size:
            return
        tries = 0 if here > before else tries
        if tries == len(PAUSES):
            raise problem
        if stop.wait(PAUSES[tries]):
            raise DownloadCancelledError
        tries += 1


def _receive(blob: Blob, arrived: Callable[[int], None], stop: Event) -> None:
    with blob.partial.open("ab") as file:
        here = file.tell()
        if here > blob.size:
            here = file.truncate(0)
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={here}-"} if here else {})
        with response_to(blob.url, headers=headers) as response:
            if here and response.status_code != 206:
                # The range was passed over: this is the file from its beginning.
                here = file.truncate(0)
            for chunk in response.iter_raw():
                if stop.is_set():
                    raise DownloadCancelledError
                file.write(chunk)
                here += len(chunk)
                if here > blob.size:
                    raise ValueError(here)
                arrived(here)
        file.flush()
        os.fsync(file.fileno())


def _verify(blob: Blob, stop: Event) -> None:
    if re.fullmatch(r"[0-9a-f]{64}", blob.digest):
        digest = hashlib.sha256()
    else:
        # What git hashes of a file: a header with its size, then its content.
        digest = hashlib.sha1(b"blob %d\0" % blob.size, usedforsecurity=False)
    with blob.partial.open("rb") as file:
        while block := file.read(_READ):
            if stop.is_set():
                raise DownloadCancelledError
            digest.update(block)
    if digest.hexdigest() != blob.digest:
        blob.partial.unlink()
        raise SftuiError(
            "A file arrived damaged",
            "Its checksum is not the one that the hub names, so it was thrown away.",
            "Start the download again; the other files are kept.",
        )


@contextmanager
def _locked(path: Path, stop: Event) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Others who share the cache must be able to open it: mode 0664, as huggingface_hub makes it.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o664)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if stop.wait(_LOCK_POLL):
                    raise DownloadCancelledError from None
            except OSError:
                # A file system without locks: the checksum tells if two have written at once.
                break
        yield
    finally:
        os.close(descriptor)
