"""What viewers ask of a runner: one line each, appended to a file that the runner reads."""

import json
import os
import secrets
import typing
from dataclasses import dataclass
from pathlib import Path

from core.errors import SftuiError
from core.runs.events import Command
from core.runs.folder import RunFolder

_LENGTHS: dict[str, Command] = {
    **dict.fromkeys(("step", "steps", "max_steps"), "set_max_steps"),
    **dict.fromkeys(("epoch", "epochs", "num_train_epochs"), "set_num_train_epochs"),
}
COMMANDS: tuple[Command, ...] = typing.get_args(Command)


@dataclass(frozen=True, slots=True)
class Request:
    """One command as read back."""

    id: str
    command: Command
    value: float | None = None


def parse_length(text: str) -> tuple[Command, float] | None:
    """The command for a length as people write it: "600 steps", "max_steps=600", "2 epochs"; None for no length."""
    words = text.replace("=", " ").lower().split()
    if len(words) != 2:
        return None
    name, number = words if not words[0][0].isdigit() else reversed(words)
    command = _LENGTHS.get(name)
    try:
        value = (
            float(number.replace(",", "")) if command == "set_num_train_epochs" else float(int(number.replace(",", "")))
        )
    except ValueError:
        return None
    return (command, value) if command is not None and 0 < value < float("inf") else None


def send(folder: RunFolder, command: Command, value: float | None = None) -> str:
    """Ask the runner for something; the id comes back in CommandAccepted. Raises SftuiError if there is no runner.

    `value` is how many steps or epochs, for the commands that set them.
    """
    if not folder.is_alive():
        raise SftuiError("The run is not running", f"No runner holds {folder.id}.", "`sftui runs` shows its state.")
    request_id = secrets.token_hex(6)
    asked = {"id": request_id, "command": command, **({} if value is None else {"value": value})}
    line = json.dumps(asked) + "\n"
    # One write to a file opened for appending: two viewers at once cannot mix their lines.
    file = os.open(folder.commands_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)
    return request_id


class CommandReader:
    """Reads the commands that came since the last call, beginning with those sent after it was made."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # Commands of an earlier runner on the same folder are not ours to obey.
        self._offset = path.stat().st_size if path.exists() else 0

    def read_new(self) -> list[Request]:
        """New commands in order; unreadable lines and unknown commands are passed over."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        requests: list[Request] = []
        for line in whole.splitlines():
            try:
                fields = json.loads(line)
                value = fields.get("value")
                request = Request(str(fields["id"]), fields["command"], None if value is None else float(value))
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
            if request.command in COMMANDS:
                requests.append(request)
        return requests
