"""`sftui doctor`: what is installed, what works, what to do about the rest."""

import argparse
import dataclasses
import json
import os
from collections.abc import Callable

from core.text import safe

_MARKS = {"ok": "✓", "warning": "!", "missing": "✗"}


def add_doctor_command(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command; `command` makes a parser of a name, an action and a help."""
    command("doctor", _doctor, "What is installed, what works, and what to do about the rest.")


def _doctor(options: argparse.Namespace) -> int:
    from core.doctor import examine

    findings = examine(os.environ)
    is_whole = all(finding.level != "missing" for finding in findings)
    if options.json:
        print(json.dumps({"ok": is_whole, "findings": [dataclasses.asdict(one) for one in findings]}, indent=2))
    else:
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            print(safe(f"{_MARKS[finding.level]} {finding.level:8} {finding.name:{width}}  {finding.found}"))
            if finding.advice:
                print(safe(f"{'':{width + 13}}→ {finding.advice}"))
    return 0 if is_whole else 1
