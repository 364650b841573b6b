"""Read YAML within bounds: a small file can describe a structure that no machine holds."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from cancernet.errors import InputError, brief

LARGEST = 1 << 20
"""Bytes of a file and letters of a text."""
DEEPEST = 64
"""Levels; ours have six. The parser itself recurses, and overflows its stack below some thousand."""
MOST = 20_000
"""Nodes, those that aliases repeat counted again; the longest configuration has some 200."""
LONGEST_PLAIN = 4000
"""Letters of a value without quotes: a number is computed from them in quadratic time."""

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, where PyYAML was built with it


def check_yaml(text: str) -> None:
    r"""Refuse a text that is no YAML, or whose structure is out of bounds, in time that its length bounds.

    Nothing is constructed: the events of the parser are counted, the size that an alias repeats with them.

    Raises:
        yaml.YAMLError: Says what is wrong.

    >>> check_yaml("data: {seed: 1}")
    >>> check_yaml("a: &a [1, 2]\nb: [*a, *b]")
    Traceback (most recent call last):
    yaml.error.YAMLError: line 2: alias b stands before its anchor, or in it
    """
    if len(text) > LARGEST:
        raise yaml.YAMLError(f"has {len(text):,} letters, expected {LARGEST:,} or fewer")
    sizes: dict[str, int] = {}  # of the structure at each anchor that is complete
    open_nodes: list[tuple[str | None, int]] = []  # anchor and number of nodes before
    nodes = 0
    for event in yaml.parse(text, Loader=_Loader):
        line = 1 + (event.start_mark.line if event.start_mark else 0)
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor is not None:
                sizes[anchor] = nodes - before
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise yaml.YAMLError(f"line {line}: alias {event.anchor} stands before its anchor, or in it")
            nodes += sizes[event.anchor]
        elif isinstance(event, yaml.CollectionStartEvent):
            sizes.pop(event.anchor or "", None)
            open_nodes.append((event.anchor, nodes))
            nodes += 1
        elif isinstance(event, yaml.ScalarEvent):
            if not event.style and len(event.value) > LONGEST_PLAIN:
                raise yaml.YAMLError(f"line {line}: holds a value of {len(event.value):,} letters without quotes")
            sizes[event.anchor or ""] = 1
            nodes += 1
        if len(open_nodes) > DEEPEST:
            raise yaml.YAMLError(f"line {line}: is nested more than {DEEPEST} levels deep")
        if nodes > MOST:
            raise yaml.YAMLError(f"line {line}: describes more than {MOST:,} values, those of aliases counted")


def read_yaml(path: str | Path) -> Any:
    """Read a YAML file.

    Returns:
        Dicts, lists, strings, numbers, booleans and None.

    Raises:
        InputError: It cannot be read, is no YAML, or its structure is out of bounds.
    """
    path = Path(path).expanduser()
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise yaml.YAMLError(f"has more than {LARGEST:,} bytes")
        text = content.decode("utf-8-sig")
        check_yaml(text)
        return yaml.load(text, Loader=_Loader)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is no YAML (not UTF-8 text at byte {error.start}); give a text file") from error
    # An impossible date, for one, is a ValueError.
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise InputError(f"{path}: cannot be read as YAML ({brief(error)}); correct it") from error


@cache
def bound_parsers() -> None:
    """Make the parsers of jsonargparse read YAML, in files and on the command line, within the bounds."""
    # `set_loader` would not do: values of options are read by this one in any case.
    from jsonargparse import _loaders_dumpers

    class BoundedLoader(_loaders_dumpers.get_yaml_default_loader()):  # type: ignore[misc]
        def __init__(self, stream: str) -> None:
            check_yaml(stream)
            super().__init__(stream)

    _loaders_dumpers.yaml_default_loader = BoundedLoader  # type: ignore[assignment]
