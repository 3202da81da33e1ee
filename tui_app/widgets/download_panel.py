"""What a download would fetch, and how it is doing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.content import Content

from core.models.checkpoint_files import hub_cache
from core.models.hub_client import page_of
from core.text import human_bytes, human_count, human_duration, safe
from tui_app.widgets.fact_list import BLANK, Fact, FactList, heading

if TYPE_CHECKING:
    from core.errors import SftuiError
    from core.models.download import DownloadOffer, DownloadProgress
    from core.models.hub import HubModelDetails
    from tui_app.downloads import DownloadState

_BAR_CELLS = 24
_MOST_FILES = 12
_MOST_NAMED = 4


@dataclass(frozen=True, slots=True)
class Asked:
    """A model that the hub was asked about, and its answer; neither offer nor problem while there is none."""

    name: str = ""
    offer: DownloadOffer | None = None
    problem: SftuiError | None = None

    def can_start(self, name: str) -> bool:
        """Whether this model can be downloaded."""
        return self.name == name and self.offer is not None and self.offer.details.problem is None and self.offer.fits

    def is_waiting(self, name: str) -> bool:
        """Whether the hub has not answered yet."""
        return self.name == name and self.offer is None and self.problem is None


class DownloadPanel(FactList):
    """A model of the hub that is not here, or not whole."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(14, id=id)

    def show_model(self, name: str, state: DownloadState | None, asked: Asked) -> None:
        """Show the download, else what the hub has answered, else what to do."""
        if state is not None:
            self.show_state(state)
        elif asked.name != name:
            does = "ask the hub what a download would fetch" if "/" in name else "search the hub for it"
            self.show([_title(f"{name} is not here, or not whole"), _keys("Enter", does)])
        elif asked.problem is not None:
            self.show([_title(name), *_words(asked.problem), _keys("Enter", "ask again")])
        elif asked.offer is not None:
            self.show_offer(name, asked.offer)
        else:
            asking = Content.styled("Asking the hub what a download would fetch …", "$secondary")
            self.show([_title(name), Fact("", asking)])

    def show_offer(self, name: str, offer: DownloadOffer) -> None:
        """Say what would be fetched, and which key does it."""
        model, details = offer.details.model, offer.details
        here = f"{human_bytes(offer.here_bytes)} of {human_bytes(details.total_bytes)} are here already"
        facts = [_title(f"{name} is on the hub")]
        if details.problem is not None:
            facts.append(Fact("", Content.styled(f"✗ {safe(details.problem)}", "bold $error")))
        elif not offer.fits:
            room = "✗ Not enough room: make some, or let HF_HUB_CACHE name a folder on a larger disk."
            facts.append(Fact("", Content.styled(room, "bold $error")))
        else:
            facts.append(_keys("Enter", "go on with the download" if offer.here_bytes else "download it"))
        if model.gated:
            terms = f"! Gated: accept its terms at {page_of(model.id)}, then log in: hf auth login"
            facts.append(Fact("", Content.styled(safe(terms), "$warning")))
        if details.needs_code and details.problem is None:
            facts.append(Fact("", Content.styled(safe(_own_code(details)), "$warning")))
        facts += [
            Fact("To download", human_bytes(offer.missing_bytes), here if offer.here_bytes else ""),
            Fact("Free disk", human_bytes(offer.free_bytes), f"at {hub_cache()}"),
            Fact("Parameters", human_count(model.parameters)),
            Fact("License", model.license or "the card names none"),
        ]
        facts += [BLANK, heading(f"{len(details.files)} files")]
        largest = sorted(details.files, key=lambda file: -file.size_bytes)
        facts += [Fact("", f"{human_bytes(file.size_bytes):>8}  {file.name}") for file in largest[:_MOST_FILES]]
        rest = largest[_MOST_FILES:]
        if rest:
            facts.append(
                Fact("", f"{human_bytes(sum(file.size_bytes for file in rest)):>8}  in {len(rest)} smaller ones")
            )
        self.show(facts)

    def show_state(self, state: DownloadState) -> None:
        """Say how far it is, or how it ended."""
        name, progress = state.model_id, state.progress
        if state.phase == "failed" and state.problem is not None:
            self.show([_title(name), *_words(state.problem), *_how_far(progress), _keys("Enter", "try again")])
        elif state.phase == "stopped":
            kept = Content.styled("! Stopped. What has arrived is kept.", "$warning")
            self.show([_title(name), Fact("", kept), *_how_far(progress), _keys("Enter", "go on from there")])
        elif state.phase == "done":
            self.show([_title(name), Fact("", Content.styled("✓ It is here.", "$success"))])
        else:
            doing = "Stopping …" if state.phase == "stopping" else "Downloading"
            moving = [Fact("", Content.styled("Asking the hub for its files …", "$secondary"))]
            if progress is not None:
                moving = [*_how_far(progress), *_speed(progress)]
            self.show([_title(f"{doing} {name}"), *moving, _keys("ctrl+x", "stop; what has arrived is kept")])


def _own_code(details: HubModelDetails) -> str:
    files = ", ".join(file.name for file in details.code[:_MOST_NAMED])
    more = f" and {len(details.code) - _MOST_NAMED} more" if len(details.code) > _MOST_NAMED else ""
    brought = f": {files}{more}" if files else ""
    return (
        f"! transformers does not know this model: it runs code of its own{brought}. The weights come without it, and "
        f"you are asked for it then. Read it at {page_of(details.model.id)}/tree/{details.sha}"
    )


def in_one_line(state: DownloadState) -> str:
    """How far a download is, safe to show."""
    name, progress = safe(state.model_id), state.progress
    if state.phase == "stopping":
        return f"stopping {name} …"
    if progress is None:
        return f"↓ {name}"
    left = f", {human_duration(round(progress.seconds_left))} left" if progress.seconds_left is not None else ""
    return f"↓ {_percent(progress)}{left}  {name}  ctrl+x stops"


def bar(done: int, total: int, cells: int = _BAR_CELLS) -> str:
    """A bar of so many cells, in eighths."""
    eighths = cells * 8 if done >= total else min(done * cells * 8 // total, cells * 8 - 1)
    whole, rest = divmod(eighths, 8)
    return f"▕{('█' * whole + (' ▏▎▍▌▋▊▉'[rest] if rest else '')).ljust(cells)}▏"


def _how_far(progress: DownloadProgress | None) -> list[Fact]:
    if progress is None:
        return []
    done, total = progress.done_bytes, progress.total_bytes
    files = f"{progress.files_done} of {progress.files_total} files"
    return [
        Fact("", Content.assemble((bar(done, total), "$accent"), f" {_percent(progress)}")),
        Fact("", f"{human_bytes(done)} of {human_bytes(total)}, {files}"),
    ]


def _speed(progress: DownloadProgress) -> list[Fact]:
    seconds = progress.seconds_left
    left = "nothing moves" if seconds is None else f"{human_duration(round(seconds))} left"
    return [Fact("", f"{human_bytes(progress.bytes_per_second)}/s, {left}", progress.file)]


def _percent(progress: DownloadProgress) -> str:
    done, total = progress.done_bytes, progress.total_bytes
    # 100 % is what is all here.
    return "100 %" if done >= total else f"{min(99, 100 * done // total)} %"


def _title(text: str) -> Fact:
    return Fact("", Content.styled(safe(text), "bold"))


def _words(problem: SftuiError) -> list[Fact]:
    hint = [Fact("", Content.styled(safe(problem.hint), "$secondary"))] if problem.hint else []
    return [Fact("", Content.styled(f"✗ {safe(problem.title)}", "bold $error")), Fact("", problem.message), *hint]


def _keys(key: str, does: str) -> Fact:
    return Fact("", Content.assemble((key, "$accent bold"), f"  {does}"))
