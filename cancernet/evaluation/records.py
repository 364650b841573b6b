"""Records as JSON files: written whole, checked when read."""

from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from cancernet.errors import InputError, one_line
from cancernet.evaluation.values import Record
from cancernet.files import write_json

R = TypeVar("R", bound=Record)


def write_record(path: Path, record: Record) -> Path:
    """Write a record as JSON; fields that were not given are left out."""
    return write_json(path, record.model_dump(mode="json", exclude_unset=True))


def read_record(kind: type[R], path: Path, again: str) -> R:
    """Read a JSON file that a command wrote.

    Args:
        kind: Its type.
        path: The file.
        again: How to get a valid one, for the message.

    Raises:
        InputError: It is broken or of another version.
    """
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)}); {again}") from error
    except ValidationError as error:
        problems = error.errors(include_url=False)
        missing = [_place(problem["loc"]) for problem in problems if problem["type"] == "missing"]
        first = problems[0]
        if first["type"] == "json_invalid":
            reason = f"cannot be read ({first['msg']})"
        elif missing:
            reason = f"lacks {', '.join(missing[:4])}, so another version wrote it"
        elif not first["loc"]:
            reason = f"holds a {type(first['input']).__name__} where an object belongs"
        else:
            reason = f"{_place(first['loc'])} is {str(first['input'])[:40]!r} ({first['msg']})"
        raise InputError(f"{path}: {reason}; {again}") from error


def _place(location: tuple[int | str, ...]) -> str:
    return ".".join(map(str, location))
