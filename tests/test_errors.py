"""Every error of a command is one line, with the status of its kind and a way out that fits."""

import os
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch._utils import ExceptionWrapper
from torch.utils.data import DataLoader, Dataset

from cancernet.errors import InputError, explained
from scripts.benchmarks import __main__ as benchmark
from scripts.studies import ablate, leak, repeat

ROOT = Path(__file__).parent.parent


class Deadly(Dataset[int]):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        os._exit(1)


def refuse():
    raise InputError("cases.csv: no such part; name it")


def write_to_a_full_disk():
    with Path("/dev/full").open("w") as file:
        file.write("results")


def run(fail, capsys, *arguments):
    """Run a command that fails; return its status and what it printed on standard error."""

    @explained("cancernet")
    def command(arguments):
        assert "--debug" not in arguments
        fail()
        return 0

    status = command(["fit", *arguments])
    return status, capsys.readouterr().err


def refuse_in_a_worker():
    try:
        refuse()
    except InputError:
        ExceptionWrapper(where="in DataLoader worker process 0").reraise()


def die_in_a_worker():
    list(DataLoader(Deadly(), num_workers=1))


def take_too_much_memory():
    bytearray(1 << 62)


def take_too_large_a_tensor():
    torch.empty(1 << 60, dtype=torch.uint8)


def reach_nobody():
    torch.distributed.TCPStore("127.0.0.1", 1, is_master=False, timeout=timedelta(milliseconds=1))


def lose_the_link():
    raise RuntimeError("Application timeout caused pair closure")  # as gloo says it where the operation had begun


def import_nothing():
    import no_such_package  # type: ignore[import-not-found]  # noqa: F401


FAULTS = [
    (refuse, 2, "cases.csv: no such part; name it"),
    (refuse_in_a_worker, 2, "cases.csv: no such part; name it"),
    (die_in_a_worker, 1, "a process that loads data has died"),
    (take_too_much_memory, 1, "memory has run out (MemoryError)"),
    (take_too_large_a_tensor, 1, "memory has run out"),
    (write_to_a_full_disk, 1, "No space left on device; free the disk"),
    (lambda: (ROOT / "README.md" / "file").read_text(), 1, "README.md/file: Not a directory; check the path"),
    (reach_nobody, 1, "another process of this job has ended or cannot be reached"),
    (lose_the_link, 1, "another process of this job has ended or cannot be reached"),
    (import_nothing, 1, "No module named 'no_such_package': install that package"),
    (lambda: os.environ["WEIGHTS"], 1, "KeyError: 'WEIGHTS'; run again with --debug to see where"),
    (lambda: [][0], 1, "IndexError: list index out of range; run again with --debug to see where"),
]


@pytest.mark.parametrize(("fail", "status", "words"), FAULTS)
def test_an_error_of_any_package_is_one_line(fail, status, words, capsys):
    found, printed = run(fail, capsys)
    assert found == status
    assert printed.startswith("cancernet: error: ")
    assert printed.count("\n") == 1
    assert words in printed
    assert len(printed) < 600


def test_a_long_message_with_a_stack_of_another_language_is_cut(capsys):
    def fail():
        raise RuntimeError("the kernel failed\nException raised from x.cpp:1\nframe #0: one\n" + "word " * 999)

    assert "RuntimeError: the kernel failed; run again" in run(fail, capsys)[1]


def test_text_from_a_file_cannot_steer_the_terminal(capsys):
    def fail():
        raise InputError("case \x1b[2J and \udcff; rename them")

    assert run(fail, capsys) == (2, "cancernet: error: case \\x1b[2J and \\udcff; rename them\n")


def test_debug_shows_the_whole_chain_of_errors(capsys):
    def fail():
        try:
            [][0]
        except IndexError as error:
            raise InputError("an empty list; fill it") from error

    status, printed = run(fail, capsys, "--debug")
    assert status == 2
    assert "IndexError" in printed
    assert printed.splitlines()[-1] == "cancernet: error: an empty list; fill it"
    assert "Traceback" not in run(fail, capsys)[1]


def test_a_command_within_a_command_shows_tracebacks_too(capsys):
    @explained("inner")
    def inner(arguments):
        raise InputError("inside")

    assert "Traceback" in run(lambda: inner([]), capsys, "--debug")[1]
    assert "Traceback" not in run(lambda: inner([]), capsys)[1]


def test_the_log_keeps_the_traceback_of_a_fault(caplog, capsys):
    run(lambda: [][0], capsys)
    assert caplog.records[-1].exc_info[0] is IndexError


def test_a_full_folder_for_temporary_files_is_named(capsys, monkeypatch):
    monkeypatch.setenv("TMPDIR", "/proc")  # a file system without a free byte
    assert "(full: /proc" in run(write_to_a_full_disk, capsys)[1]


@pytest.mark.parametrize(
    ("main", "arguments"), [(ablate.main, []), (repeat.main, []), (leak.main, []), (benchmark.main, ["nosuch"])]
)
def test_scripts_offer_debug_and_say_errors_in_one_line(main, arguments, capsys):
    assert main(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "--debug" in capsys.readouterr().out
