"""How soon the app paints, against a bare Textual app with Header and Footer; both headless, in turn, in one sitting.

    python tests/bench/first_frame.py [ROUNDS]

Prints one JSON object: median seconds of each from process start to first frame, and their ratio.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

_HARNESS = """
import os, time
{create}
class Timed(Measured):
    def on_ready(self) -> None:
        # Textual sends Ready when the first frame is on the screen.
        print(time.time() - float(os.environ["BENCH_STARTED"]), flush=True)
        os._exit(0)
Timed({arguments}).run(headless=True, size=(120, 40))
"""
_BARE = """
from textual.app import App, ComposeResult
from textual.widgets import Footer, Header
class Measured(App[None]):
    def compose(self) -> ComposeResult:
        yield Header()
        yield Footer()
"""
_SFTUI = "from tui_app.app import SftuiApp as Measured"


def seconds_to_first_frame(create: str, arguments: str = "") -> float:
    """Start a process that paints one frame, and take the time from before its start."""
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "XDG_DATA_HOME": home, "BENCH_STARTED": str(time.time())}
        code = _HARNESS.format(create=create, arguments=arguments)
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        return float(done.stdout)


def main() -> None:
    """Measure in turn, so that a busy moment of the machine meets both."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    bare, sftui = [], []
    for _ in range(rounds):
        bare.append(seconds_to_first_frame(_BARE))
        sftui.append(seconds_to_first_frame(_SFTUI, "warm=False"))
    figures = {
        "bare_seconds": round(statistics.median(bare), 3),
        "sftui_seconds": round(statistics.median(sftui), 3),
        "ratio": round(statistics.median(s / b for s, b in zip(sftui, bare, strict=True)), 3),
        "rounds": rounds,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
