"""A model from the Hugging Face hub into the ordinary cache: watched, stopped and taken up again at any time."""

import os
import shutil
import time
import uuid
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread
from urllib.parse import quote

from core.errors import SftuiError
from core.models.blobs import Blob, DownloadCancelledError, fetch, file_size
from core.models.checkpoint_files import hub_cache, read_config
from core.models.hub import HubFile, HubModelDetails, model_info
from core.models.hub_client import endpoint, in_words, too_large
from core.models.remote_code import find_remote_code, is_allowed
from core.text import human_bytes, safe

# One connection gets but a part of a server's bandwidth; more than a few take from one another.
_CONNECTIONS = 4
_REPORT_SECONDS = 0.2
_FAREWELL_SECONDS = 1.0
_SPEED_SECONDS = 5.0
# File systems get slow and fail in other places when they are full to the last byte.
_SPARE = 1.05
_LARGEST_FILE = 50_000_000_000


@dataclass(frozen=True, slots=True)
class DownloadProgress:
    """How far a download is."""

    file: str
    """The file that moved last; several are fetched at once."""
    done_bytes: int
    """Here by now, with what was here before the download."""
    total_bytes: int
    bytes_per_second: float
    """Over the last five seconds."""
    seconds_left: float | None
    """At this speed; None when nothing moves."""
    files_done: int
    files_total: int


@dataclass(frozen=True, slots=True)
class DownloadOffer:
    """What a download would fetch, and whether there is room for it."""

    details: HubModelDetails
    here_bytes: int
    """Here already: of another revision, or of a download that was stopped."""
    free_bytes: int
    """Free on the cache's disk."""

    @property
    def missing_bytes(self) -> int:
        """What would come over the network."""
        return self.details.total_bytes - self.here_bytes

    @property
    def fits(self) -> bool:
        """Whether there is room for what is missing."""
        return self.free_bytes >= int(self.missing_bytes * _SPARE)


def offer_download(model_id: str, revision: str | None = None) -> DownloadOffer:
    """Ask the hub what a download would fetch; nothing is written. Raises SftuiError."""
    details = model_info(model_id, revision)
    repository = _repository(model_id)
    blobs = {file.digest: Blob(model_id, "", file.digest, file.size_bytes, repository) for file in details.files}
    free = in_words(partial(_free_bytes, repository))
    return DownloadOffer(details, sum(blob.bytes_here for blob in blobs.values()), free)


class Download:
    """One download of a model at one revision; used once. `cancel` may be called from any thread."""

    def __init__(
        self,
        model_id: str,
        revision: str | None = None,
        on_progress: Callable[[DownloadProgress], object] | None = None,
    ) -> None:
        self.model_id = model_id
        self.revision = revision or "main"
        self._on_progress = on_progress
        self._cancelled = Event()

    def cancel(self) -> None:
        """Make `run` raise DownloadCancelledError, within a second or so."""
        self._cancelled.set()

    def run(self) -> Path:
        """Fetch what is not here yet and return the snapshot's folder, of the commit that the revision stands for now.

        Of the model's own code, that which config.json names and what this imports, if the user has allowed it at this
        commit; else none of it.
        `on_progress` is called in this thread, five times a second at the most. Raises SftuiError, and
        DownloadCancelledError when it was stopped; what has arrived is kept in both cases and not fetched again.
        """
        details = model_info(self.model_id, self.revision)
        if details.problem is not None:
            raise SftuiError("Not a model to train", f"“{safe(self.model_id)}”: {details.problem}")
        repository = _repository(self.model_id)
        snapshot = repository / "snapshots" / details.sha
        self._bring(details.files, details, snapshot)
        code = list(details.code)
        # What a file imports is known once it is here.
        while wanted := _allowed_code(snapshot, code):
            self._bring(wanted, details, snapshot)
            code = [file for file in code if file not in wanted]
        in_words(partial(name_revision, repository, self.revision, details.sha))
        return snapshot

    def _bring(self, files: Collection[HubFile], details: HubModelDetails, snapshot: Path) -> None:
        bring(self.model_id, files, snapshot, self._cancelled, self._on_progress)


def bring(
    repository_id: str,
    files: Collection[HubFile],
    snapshot: Path,
    cancelled: Event,
    on_progress: Callable[[DownloadProgress], object] | None = None,
) -> None:
    """Fetch what is not here yet of a repository's files into a snapshot's folder of the cache, named by the commit.

    `repository_id` as in an address of the hub: a dataset's begins with datasets/. Raises SftuiError, and
    DownloadCancelledError soon after `cancelled` is set; what has arrived is kept in both cases.
    """
    repository = snapshot.parent.parent
    jobs = [(file, _blob(repository_id, file, snapshot.name, repository)) for file in files]
    in_words(partial(_check_room, repository, {blob.digest: blob for _, blob in jobs}.values()))
    # Small ones first: a refusal shows at once, and the model is known by its config.json soon.
    jobs.sort(key=lambda job: job[1].size)
    meter = _Meter([blob for _, blob in jobs], len(jobs))
    stop = Event()
    if cancelled.is_set():
        raise DownloadCancelledError
    futures = _in_threads([partial(_fetch_one, file, blob, snapshot / file.name, meter, stop) for file, blob in jobs])
    try:
        waiting: set[Future[None]] = set(futures)
        while waiting and not cancelled.is_set():
            done, waiting = wait(waiting, timeout=_REPORT_SECONDS, return_when=FIRST_EXCEPTION)
            if any(future.exception() for future in done):
                break
            if on_progress is not None:
                on_progress(meter.read())
    finally:
        stop.set()
        # A silent connection ends at its timeout only, and nobody is kept waiting for that.
        wait(futures, timeout=_FAREWELL_SECONDS)
    if cancelled.is_set():
        raise DownloadCancelledError
    ended = [future for future in futures if future.done() and not future.cancelled()]
    problems = [error for future in ended if (error := future.exception()) is not None]
    # The others were stopped because of the first.
    for problem in sorted(problems, key=lambda error: isinstance(error, DownloadCancelledError)):
        raise problem


def _blob(repository_id: str, file: HubFile, sha: str, repository: Path) -> Blob:
    if file.size_bytes > _LARGEST_FILE:
        raise too_large(file.name, file.size_bytes)
    url = f"{endpoint()}/{repository_id}/resolve/{sha}/{quote(file.name)}"
    return Blob(repository_id, url, file.digest, file.size_bytes, repository)


def _fetch_one(file: HubFile, blob: Blob, pointer: Path, meter: "_Meter", stop: Event) -> None:
    if stop.is_set():
        raise DownloadCancelledError
    if file_size(pointer) != blob.size:
        fetch(blob, partial(meter.arrived, file), stop)
        in_words(partial(_link, blob.path, pointer))
    meter.finished(file)


class _Meter:
    """What has arrived, told by the connections and read by the reporter: each entry has one writer."""

    def __init__(self, blobs: Collection[Blob], files_total: int) -> None:
        self._here = {blob.digest: blob.bytes_here for blob in blobs}
        self._total = sum({blob.digest: blob.size for blob in blobs}.values())
        self._files_total = files_total
        self._finished: set[str] = set()
        self._latest = ""
        self._moments = deque([(time.monotonic(), sum(self._here.values()))])

    def arrived(self, file: HubFile, count: int) -> None:
        self._latest = file.name
        self._here[file.digest] = count

    def finished(self, file: HubFile) -> None:
        self.arrived(file, file.size_bytes)
        self._finished.add(file.name)

    def read(self) -> DownloadProgress:
        now, done = time.monotonic(), sum(self._here.values())
        self._moments.append((now, done))
        while now - self._moments[0][0] > _SPEED_SECONDS and len(self._moments) > 2:
            self._moments.popleft()
        since, before = self._moments[0]
        speed = max(0.0, (done - before) / max(now - since, 1e-3))
        left = (self._total - done) / speed if speed else 0.0 if done == self._total else None
        return DownloadProgress(self._latest, done, self._total, speed, left, len(self._finished), self._files_total)


def _allowed_code(snapshot: Path, code: Collection[HubFile]) -> list[HubFile]:
    """Return the Python files that are not here yet and that the user lets the model run."""
    try:
        remote = find_remote_code(snapshot, read_config(snapshot))
        missing = remote.missing if remote is not None and is_allowed(remote) else ()
    except SftuiError:
        # It is said where the model is read, and only if the code is needed.
        return []
    return [file for file in code if file.name in missing]


def _repository(model_id: str) -> Path:
    return hub_cache() / f"models--{model_id.replace('/', '--')}"


def _in_threads(jobs: list[Callable[[], None]]) -> list[Future[None]]:
    """Do the jobs, some at a time.

    An executor's threads are joined when the program ends, which a silent connection would hold up.
    """
    waiting: SimpleQueue[tuple[Callable[[], None], Future[None]]] = SimpleQueue()
    futures: list[Future[None]] = []
    for job in jobs:
        futures.append(Future())
        waiting.put((job, futures[-1]))

    def work() -> None:
        while True:
            try:
                job, future = waiting.get_nowait()
            except Empty:
                return
            try:
                job()
            except BaseException as error:  # noqa: BLE001 - it is raised again by who waits
                future.set_exception(error)
            else:
                future.set_result(None)

    for number in range(min(_CONNECTIONS, len(jobs))):
        Thread(target=work, name=f"download-{number}", daemon=True).start()
    return futures


def _free_bytes(repository: Path) -> int:
    folder = next(path for path in (repository, *repository.parents) if path.exists())
    return shutil.disk_usage(folder).free


def _check_room(repository: Path, blobs: Collection[Blob]) -> None:
    missing = sum(blob.size - blob.bytes_here for blob in blobs)
    needed = int(missing * _SPARE)
    free = _free_bytes(repository)
    if free < needed:
        raise SftuiError(
            "Not enough room on the disk",
            f"{safe(str(repository.parent))} needs {human_bytes(needed)} and has {human_bytes(free)} free.",
            "Make room, or let HF_HUB_CACHE name a folder on a larger disk.",
        )


def _link(blob: Path, pointer: Path) -> None:
    pointer.parent.mkdir(parents=True, exist_ok=True)
    new = _beside(pointer)
    try:
        new.symlink_to(os.path.relpath(blob, pointer.parent))
    except OSError:
        # A file system without symbolic links: huggingface_hub moves the content there too.
        new = blob
    new.replace(pointer)


def name_revision(repository: Path, revision: str, sha: str) -> None:
    """Let a branch stand for a commit in the cache. Raises OSError."""
    # Last of all: until then a whole older version keeps the name.
    reference = repository / "refs" / revision
    if revision == sha or ".." in reference.parts:
        return
    reference.parent.mkdir(parents=True, exist_ok=True)
    new = _beside(reference)
    new.write_text(sha, encoding="utf-8")
    new.replace(reference)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
