"""Commands of the system that only some machines let a test run."""

import subprocess

import pytest


def run_or_skip(program: str, *arguments: str, otherwise: str) -> None:
    """Run a program; skip the test where there is none, or with the reason `otherwise` where it fails."""
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip(f"there is no {program} on this system")
    if done.returncode:
        pytest.skip(f"{otherwise}: {done.stderr.strip()}")
