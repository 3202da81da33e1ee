"""A short storm of kills; tests/bench/kill_storm.py is the long one."""

import subprocess
import sys
from pathlib import Path


def test_runs_that_are_killed_lose_nothing_that_was_committed() -> None:
    # In a process of its own: runners are forks of one that has not computed yet.
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.kill_storm", "1", "3"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    at_boundaries, at_random = done.stdout.splitlines()[-2:]
    assert at_boundaries == "file boundaries: 3 runs, 3 killed, 3 ended with the same weights"
    assert at_random.startswith("random moments: 1 runs")
    assert at_random.endswith("1 ended with the same weights")
