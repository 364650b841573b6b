"""Fuzz one target in this process: TARGET CORPUS [options of libFuzzer]; `scripts.fuzzing` starts it."""

import os
import sys
import tempfile
import warnings
from pathlib import Path

import atheris


def main() -> None:
    """Instrument the readers while they are imported, and hand over to libFuzzer, which ends the process."""
    name, corpus, *options = sys.argv[1:]
    os.environ["KERAS_BACKEND"] = "torch"
    warnings.simplefilter("ignore")
    with atheris.instrument_imports(include=["cancernet", "zipfile", "json", "csv"], enable_loader_override=False):
        from scripts.fuzzing.targets import make_target

        folder = Path(tempfile.mkdtemp(prefix=f"cancernet-fuzz-{name}-"))
        target = make_target(name, folder)
    Path(corpus).mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (Path(corpus) / f"seed-{number}").write_bytes(seed)
    atheris.Setup([sys.argv[0], corpus, *options], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
