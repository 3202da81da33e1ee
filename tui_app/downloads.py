"""The download of a model: one at a time, kept by the app, so that it goes on whatever screen is shown."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from core.errors import SftuiError
from core.text import safe
from tui_app.messages import DownloadMoved, ErrorRaised

if TYPE_CHECKING:
    from textual.message_pump import MessagePump

    from core.models.download import Download, DownloadProgress


@dataclass(frozen=True, slots=True)
class DownloadState:
    """How a download is doing."""

    model_id: str
    revision: str
    phase: Literal["running", "stopping", "done", "stopped", "failed"] = "running"
    progress: DownloadProgress | None = None
    problem: SftuiError | None = None
    """Why it failed."""

    @property
    def is_active(self) -> bool:
        """Whether it still fetches, or is about to end."""
        return self.phase in ("running", "stopping")


def in_words(state: DownloadState) -> str:
    """The end of a download, safe to show."""
    name = safe(state.model_id)
    if state.phase == "done":
        return f"{name} is here."
    if state.problem is not None:
        return safe(f"{name}: {state.problem.title}. {state.problem.message} {state.problem.hint}")
    return f"The download of {name} was stopped. What has arrived is kept."


class Downloads:
    """Fetches in daemon threads, which hold up nobody, and posts DownloadMoved to the app."""

    def __init__(self, target: MessagePump) -> None:
        self._target = target
        self._download: Download | None = None
        self._state: DownloadState | None = None
        self._lock = threading.Lock()

    def start(self, model_id: str, revision: str) -> None:
        """Fetch a model, or go on where it was stopped; does nothing while another is fetched."""
        from core.models.download import Download

        if self._state is not None and self._state.is_active:
            return
        self._download = Download(model_id, revision, self._moved)
        self._state = DownloadState(model_id, revision)
        self._tell(self._state)
        threading.Thread(target=self._work, args=(self._download,), name="sftui-download", daemon=True).start()

    def cancel(self) -> None:
        """Stop soon; what has arrived is kept."""
        with self._lock:
            if self._download is None or self._state is None or self._state.phase != "running":
                return
            self._state = replace(self._state, phase="stopping")
            self._download.cancel()
            self._tell(self._state)

    def _work(self, download: Download) -> None:
        from core.models.blobs import DownloadCancelledError

        try:
            download.run()
        except DownloadCancelledError:
            self._end("stopped")
        except SftuiError as error:
            self._end("failed", error)
        except Exception as error:  # noqa: BLE001 - a defect must not leave the screen waiting
            self._end("failed", SftuiError("The download failed", f"{type(error).__name__}: {error}"))
            with contextlib.suppress(RuntimeError):
                self._target.post_message(ErrorRaised(error))
        else:
            self._end("done")

    def _moved(self, progress: DownloadProgress) -> None:
        with self._lock:
            assert self._state is not None
            self._state = replace(self._state, progress=progress)
            self._tell(self._state)

    def _end(self, phase: Literal["done", "stopped", "failed"], problem: SftuiError | None = None) -> None:
        with self._lock:
            assert self._state is not None
            self._state = replace(self._state, phase=phase, problem=problem)
            self._tell(self._state)

    def _tell(self, state: DownloadState) -> None:
        # The loop is closed when the app has ended in the meantime.
        with contextlib.suppress(RuntimeError):
            self._target.post_message(DownloadMoved(state))
