"""Find what is wrong with files and folders before torch is imported: in half a second, not in ten.

It only looks, and leaves to the parser of options what it cannot tell from the words alone: jsonargparse parses.
"""

import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cancernet.errors import InputError
from cancernet.pretrained import is_checkpoint, is_included, locate
from cancernet.yaml_files import read_yaml

CONFIG = ("config", "c")
"""Names of the option that gives a configuration file."""
GROUPS = ("data", "model", "trainer")
"""Groups of options that may be given as a whole, in one value or file."""
CHECKPOINT_WORDS = ("best", "last", "hpc", "registry")
"""Values of `ckpt_path` that Lightning finds the file for; the last may be followed by a name."""
Settings = dict[str, Any]


def preflight(command: str, words: list[str]) -> None:
    """Look at the files and folders that a command names.

    Args:
        command: The command.
        words: What follows it on the command line.

    Raises:
        InputError: One of them cannot be used.
    """
    if any(word in ("-h", "--help") or word.startswith("--print_config") for word in words):
        return  # nothing is run, so nothing has to be there
    places, options = sort_words(words)
    if command in ("fit", "validate", "test", "predict"):
        settings = _environment(command) | _settings(options)
        _require_checkpoint_option(command, settings)
        if command != "fit":
            settings.setdefault("data.cache", recorded_cache(str(settings.get("ckpt_path"))))
        checks = {"ckpt_path": _check_resumed, "data.split": _check_split, "model.weights": _check_weights}
    else:
        settings = dict(options)
        first, further = _OF_PLACES.get(command, (None, False))
        if first is not None:
            for place in places if further else places[:1]:
                first(place)
        checks = {"split": _check_split}
        if command == "calibrate" and places:
            settings.setdefault("cache", recorded_cache(places[0]))
    for name, check in checks.items():
        if isinstance(value := settings.get(name), str) and value not in ("", "null"):
            check(value)
    for name, cache in (("data.root", "data.cache"), ("root", "cache")):
        _check_root(settings.get(name), settings.get(cache))
    if command == "prepare" and places:
        _check_root(places[0], settings.get("cache"))


def require_checkpoint(path: str | Path) -> Path:
    """Return the absolute path of a checkpoint file, which need not be a sound one, or of the included model.

    Raises:
        InputError: There is no such file.
    """
    path = locate(path).resolve()
    if not path.is_file():
        raise InputError(f"ckpt_path: no file {path}; give one that fit wrote, such as .../checkpoints/best.ckpt")
    return path


def needs_checkpoint(command: str) -> InputError:
    """Return the error of a command that evaluates a model and is given none."""
    return InputError(
        f"{command}: --ckpt_path is needed (without one, untrained weights would be evaluated); "
        "give .../checkpoints/best.ckpt of a run"
    )


def sort_words(words: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the words that stand for themselves, and the options with their values, in order."""
    places: list[str] = []
    options: list[tuple[str, str]] = []
    pending = list(reversed(words))
    while pending:
        word = pending.pop()
        name, given, value = word.lstrip("-").partition("=")
        if not word.startswith("-"):
            places.append(word)
        elif given or not pending or pending[-1].startswith("--"):
            options.append((name, value))
        else:
            options.append((name, pending.pop()))
    return places, options


def _settings(options: list[tuple[str, str]]) -> Settings:
    """Return the last value of each setting, of the options and of the configuration files among them."""
    settings: Settings = {}
    for name, value in options:
        if name in CONFIG:
            settings |= _read_config(value) if value else {}
        elif name in GROUPS:
            settings = {key: held for key, held in settings.items() if not key.startswith(f"{name}.")}
            settings |= _flatten({name: _read_group(value)})
        else:
            settings[name] = value
    return settings


def _read_config(file: str) -> Settings:
    if "://" in file or ": " in file or "\n" in file or file.lstrip().startswith("{"):
        return {"ckpt_path": None}  # from the network, or the content itself: it may name anything
    content = read_yaml(file)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(f"{file}: holds no options; expected YAML such as data: {{root: archive.zip}}")
    return _flatten(content)


def _read_group(value: str) -> Any:
    return read_yaml(value) if Path(value).suffix in (".yaml", ".yml", ".json") else None


def _flatten(content: Mapping[Any, Any], prefix: str = "") -> Settings:
    flat: Settings = {}
    for name, value in content.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _environment(command: str) -> Settings:
    """Return what environment variables set, where they are asked for; jsonargparse names them so."""
    if os.environ.get("JSONARGPARSE_DEFAULT_ENV", "").lower() != "true":
        return {}
    prefix = f"PL_{command.upper()}__"
    found = {
        name.removeprefix(prefix).lower().replace("__", "."): value
        for name, value in os.environ.items()
        if name.startswith(prefix)
    }
    return (_read_config(found["config"]) if "config" in found else {}) | found


def _require_checkpoint_option(command: str, settings: Settings) -> None:
    if command != "fit" and "ckpt_path" not in settings:
        raise needs_checkpoint(command)


def recorded_cache(checkpoint: str) -> Any:
    """Return the cache folder that a checkpoint's run used, by the configuration in its folder; None where unknown."""
    file = locate(checkpoint).resolve().parent.parent / "config.yaml"
    return _read_config(str(file)).get("data.cache") if file.is_file() else None


def _check_resumed(path: str) -> None:
    if path.partition(":")[0] not in CHECKPOINT_WORDS and "://" not in path:
        _check_checkpoint(path)


def _check_checkpoint(path: str) -> None:
    file = require_checkpoint(path)
    if not zipfile.is_zipfile(file):
        raise InputError(
            f"{file}: not a checkpoint that can be read safely (no archive of torch, or cut short); "
            "take another copy, or train again"
        )


def _check_weights(path: str) -> None:
    if is_checkpoint(path):
        _check_checkpoint(path)
    elif not Path(path).expanduser().is_file():
        raise InputError(f"model.weights: no file {path}; give a checkpoint, or what Keras saved")


def _check_first(path: str) -> None:
    """Check the first word of `map`, which is a checkpoint or the first input."""
    if is_checkpoint(path):
        _check_checkpoint(path)


def _check_file(path: str) -> None:
    if not Path(path).expanduser().exists():
        raise InputError(f"{path}: no file; check the path")


def _check_run(folder: str) -> None:
    if not is_included(folder) and not Path(folder).expanduser().is_dir():
        raise InputError(f"{folder}: no such folder; give a run folder that `cancernet test` wrote into")


def _check_split(split: str) -> None:
    from cancernet.data.split_files import find_split_file, read_split_file

    if (file := find_split_file(split)) is not None:
        read_split_file(file)


def _check_root(root: Any, cache: Any) -> None:
    # A list may be spelled in several ways, and a root that is there is looked at when it is read.
    roots = [root] if isinstance(root, str) and not root.startswith("[") else root if isinstance(root, list) else []
    for place in roots:
        if isinstance(place, str) and place and not Path(place).expanduser().exists():
            from cancernet.data.store.find import check_root

            check_root(place, cache if isinstance(cache, str) else None)


_OF_PLACES: dict[str, tuple[Callable[[str], None], bool]] = {
    "calibrate": (_check_checkpoint, False),
    "export": (_check_checkpoint, False),
    "map": (_check_first, False),
    "serve": (_check_checkpoint, False),
    "convert": (_check_file, False),
    "report": (_check_run, True),
    "compare": (_check_run, True),
    "context": (_check_run, False),
}
"""Command -> check of what its words name, and whether of all of them or of the first alone."""
