"""Fuzz the readers of what users give (atheris on libFuzzer) and print executions and coverage of each target."""

import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from cancernet.errors import InputError, explained
from cancernet.options import OptionParser
from scripts.fuzzing.targets import MAKERS

SLOWEST = 30
"""Seconds after which an input counts as a finding: the reader hangs."""
MEMORY = 3072
"""Megabytes, likewise."""


@dataclass(frozen=True)
class Outcome:
    """What a session of one target came to."""

    target: str
    seconds: float
    executions: int
    edges: int
    finding: str

    @property
    def row(self) -> str:
        """A row of a Markdown table."""
        cells = (self.target, f"{self.seconds:.0f}", f"{self.executions:,}", str(self.edges), self.finding or "none")
        return f"| {' | '.join(cells)} |"


def fuzz(target: str, corpus: Path, seconds: int) -> Outcome:
    """Fuzz one target until the time is over or something is found; its output goes to `CORPUS/TARGET.log`."""
    inputs, log = corpus / target, corpus / f"{target}.log"
    inputs.mkdir(parents=True, exist_ok=True)
    options = [
        f"-max_total_time={seconds}",
        f"-timeout={SLOWEST}",
        f"-rss_limit_mb={MEMORY}",
        f"-artifact_prefix={corpus}/{target}-",
        "-max_len=20000",
        "-len_control=20",
        "-print_final_stats=1",
    ]
    command = [sys.executable, "-m", "scripts.fuzzing.worker", target, str(inputs), *options]
    start = time.monotonic()
    with log.open("w", encoding="utf-8") as file:
        subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False)
    text = log.read_text(encoding="utf-8", errors="replace")
    counts = re.findall(r"^#(\d+).*?cov: (\d+)", text, re.MULTILINE)
    executions = re.findall(r"number_of_executed_units: (\d+)", text) or [counts[-1][0] if counts else "0"]
    found = re.findall(r"Test unit written to (\S+)", text)
    if not found and "Uncaught Python exception" in text:  # found in the seeds
        found = [str(log)]
    if not found and not counts:
        raise InputError(f"{target}: the session did not start; see {log}")
    edges = max((int(edge) for _, edge in counts), default=0)
    return Outcome(target, time.monotonic() - start, int(executions[-1]), edges, found[-1] if found else "")


@explained("fuzz")
def main(arguments: list[str]) -> int:
    """Run from the command line; see `scripts/fuzz`."""
    parser = OptionParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"all where not given: {', '.join(MAKERS)}")
    parser.add_argument("--seconds", type=int, default=300, help="of each target (300)")
    parser.add_argument("--corpus", type=Path, help="folder of inputs, logs and findings; a temporary one if not given")
    given = parser.parse_args(arguments)
    if unknown := sorted(set(given.targets) - set(MAKERS)):
        raise InputError(f"no target {', '.join(unknown)}; targets are {', '.join(MAKERS)}")
    if find_spec("atheris") is None:
        raise InputError("atheris is not installed: .venv/bin/python -m pip install -e '.[fuzz]'")
    corpus = given.corpus or Path(tempfile.mkdtemp(prefix="cancernet-fuzz-"))
    print("| target | seconds | executions | edges | finding |\n|---|---|---|---|---|")
    outcomes = []
    for target in given.targets or MAKERS:
        outcomes.append(fuzz(target, corpus, given.seconds))
        print(outcomes[-1].row, flush=True)
    print(corpus)
    return int(any(outcome.finding for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
