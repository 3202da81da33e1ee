"""Whether the system ends a user's processes when the user logs out, and with them every run."""

import getpass
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

# A file of a later folder goes before one of the same name in an earlier one.
_FOLDERS = ("usr/lib/systemd", "usr/local/lib/systemd", "run/systemd", "etc/systemd")
_PATIENCE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Logout:
    """What happens to this user's processes at logout; None where nobody tells."""

    kills: bool | None
    lingers: bool | None
    """Whether the user's own services go on after it (`loginctl enable-linger`)."""


def read_logout(root: Path = Path("/")) -> Logout:
    """Ask logind, or read what it is configured to do where it does not answer. `root` holds etc, run, usr and var."""
    if not (root / "run/systemd/system").is_dir():
        # Without systemd there is no logind to do it.
        return Logout(False, None)
    user = _user()
    settings = _settings(root)
    told = _ask("show-session", "KillUserProcesses") or settings.get("KillUserProcesses")
    kills = None if told is None else told.lower() in ("yes", "true", "1", "on")
    only, excluded = (settings.get(name, "").split() for name in ("KillOnlyUsers", "KillExcludeUsers"))
    if kills and (user in excluded or (only and user not in only)):
        kills = False
    lingers = _ask("show-user", "Linger", user)
    if lingers is None:
        return Logout(kills, (root / "var/lib/systemd/linger" / user).exists())
    return Logout(kills, lingers == "yes")


def _settings(root: Path) -> dict[str, str]:
    """What logind's files set; a line that is commented out tells the default that it was built with."""
    main = [root / folder / "logind.conf" for folder in _FOLDERS]
    drop_ins = {path.name: path for folder in _FOLDERS for path in (root / folder / "logind.conf.d").glob("*.conf")}
    found = {"KillExcludeUsers": "root"}
    texts = [_text(path) for path in main]
    for text in texts:
        found |= dict(_assignments(text, commented=True))
    for text in (*texts, *(_text(drop_ins[name]) for name in sorted(drop_ins))):
        found |= dict(_assignments(text, commented=False))
    return found


def _assignments(text: str, *, commented: bool) -> list[tuple[str, str]]:
    lines = [line.strip() for line in text.splitlines()]
    chosen = [line.lstrip("#; ") for line in lines if line.startswith(("#", ";")) == commented and "=" in line]
    return [(name.strip(), value.strip()) for name, _, value in (line.partition("=") for line in chosen)]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _ask(what: str, property: str, *names: str) -> str | None:
    program = shutil.which("loginctl")
    if program is None:
        return None
    command = [program, what, *names, f"--property={property}", "--value"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_PATIENCE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
