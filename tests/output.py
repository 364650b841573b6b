"""What a command printed."""


def only_line(capsys) -> str:
    """The one line that a refused command leaves on standard error, notices of Lightning aside."""
    captured = capsys.readouterr()
    assert "Traceback" not in captured.out + captured.err
    lines = [line for line in captured.err.splitlines() if line.startswith("cancernet: ")]
    assert len(lines) == 1
    return lines[0]
