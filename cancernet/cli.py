"""The command line: says what there is at once, and imports only what the chosen command needs."""

import argparse
import os
import sys
from collections.abc import Callable
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any, get_args, get_origin

from cancernet import __version__
from cancernet.errors import InputError, explained
from cancernet.options import OneLineErrors, OptionParser
from cancernet.preflight import preflight
from cancernet.signals import Stopped

DESCRIPTION = """\
Train and evaluate CancerNet on patches of invasive ductal carcinoma (IDC) histology.
Research software: never a diagnosis."""

LIGHTNING_COMMANDS = {
    "fit": "train a model; writes a run folder with checkpoints, split and TensorBoard events",
    "validate": "evaluate a checkpoint on the validation part",
    "test": "evaluate a checkpoint on the test part; writes metrics, predictions and confusion matrix",
    "predict": "write the probability of IDC for every patch of a data set",
}
"""Subcommands of the Lightning command line."""
OWN_COMMANDS = {
    "prepare": ("cancernet.data.audit:prepare", "check an archive, pack it into a store and print what is in it"),
    "calibrate": (
        "cancernet.training.calibrate:calibrate",
        "choose threshold and temperature of a checkpoint on its validation part; `fit` does so at its end",
    ),
    "convert": (
        "cancernet.training.weights:convert",
        "make a checkpoint of a CancerNet that Keras or tf.keras saved",
    ),
    "export": (
        "cancernet.export.command:export",
        "write a checkpoint's model for Keras, ONNX or torch, checked there",
    ),
    "synthesize": (
        "cancernet.data.synthetic.archive:synthesize",
        "write a synthetic archive in the layout of the real one",
    ),
    "report": (
        "cancernet.evaluation.report:report",
        "build the page of a tested run again, or pool folds into one page",
    ),
    "map": ("cancernet.slides.command:map_files", "predict regions and whole slides; writes maps, GeoJSON and pages"),
    "stitch": (
        "cancernet.slides.stitch:stitch",
        "write a slide of an archive as a pyramidal TIFF with its labels",
    ),
    "compare": ("cancernet.evaluation.report.comparison:compare", "put runs on the same test patches side by side"),
    "serve": ("cancernet.app.command:serve", "serve a page in the browser to try a model"),
    "context": (
        "cancernet.evaluation.context:context",
        "correct each patch by its neighbours on the slide, next to the patch-wise result",
    ),
}
"""Subcommands of our own: the function behind each, whose arguments are its options, and what it does."""


@explained("cancernet")
def main(arguments: list[str]) -> int:
    """Run a command.

    Args:
        arguments: Command-line arguments without the program's name; those of the process where not given.

    Returns:
        The exit status (see `errors.explained`).
    """
    if not arguments or arguments[0].startswith("-"):
        return _answer_without_command(arguments)
    command, rest = arguments[0], arguments[1:]
    if command not in {**LIGHTNING_COMMANDS, **OWN_COMMANDS}:
        names = ", ".join([*LIGHTNING_COMMANDS, *OWN_COMMANDS])
        raise InputError(f"unknown command {command!r}; use one of {names}")
    preflight(command, rest)
    return _run_lightning(command, rest) if command in LIGHTNING_COMMANDS else _run_function(command, rest)


def console() -> None:
    """Entry point of the console script."""
    sys.exit(main())


def _answer_without_command(arguments: list[str]) -> int:
    parser = OptionParser(
        prog="cancernet",
        description=DESCRIPTION,
        epilog="Each command explains its options: cancernet COMMAND --help",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"cancernet {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, summary in LIGHTNING_COMMANDS.items():
        commands.add_parser(name, help=summary)
    for name, (_, summary) in OWN_COMMANDS.items():
        commands.add_parser(name, help=summary)
    if any(argument in ("-h", "--help", "--version") for argument in arguments):
        try:
            parser.parse_args(arguments)
        except SystemExit as done:
            return int(done.code or 0)
    raise InputError("a command comes first; see cancernet --help")


def _run_lightning(command: str, rest: list[str]) -> int:
    # The network is a Keras model that runs on torch; the choice has to be made before the first `import keras`.
    os.environ["KERAS_BACKEND"] = "torch"
    from cancernet.training.cli import run

    if command == "predict":
        from cancernet.slides.packing import pack_root

        return _exit_status(lambda: run(command, pack_root(rest)))
    return _exit_status(lambda: run(command, rest))


def _run_function(command: str, rest: list[str]) -> int:
    from docstring_parser import parse as parse_docstring
    from jsonargparse import ArgumentParser

    from cancernet.yaml_files import bound_parsers

    class Parser(OneLineErrors, ArgumentParser):
        pass

    target, summary = OWN_COMMANDS[command]
    module, name = target.split(":")
    function: Callable[..., object] = getattr(import_module(module), name)
    bound_parsers()
    parser = Parser(prog=f"cancernet {command}", description=summary)
    # A list without a default is what stands on the command line one after another, as files do.
    several = {
        name: get_args(parameter.annotation)[0]
        for name, parameter in signature(function).parameters.items()
        if get_origin(parameter.annotation) is list and parameter.default is parameter.empty
    }
    # A checkpoint with a default may be left out: the included model takes its place.
    left_out = {
        name: parameter
        for name, parameter in signature(function).parameters.items()
        if name == "checkpoint" and parameter.default is not parameter.empty
    }
    described = {entry.arg_name: entry.description for entry in parse_docstring(function.__doc__ or "").params}
    parser.add_function_arguments(function, as_positional=True, skip={*several, *left_out})
    for name, parameter in left_out.items():
        kind, default = parameter.annotation, parameter.default
        parser.add_argument(name, nargs="?", type=kind, default=default, help=described.get(name))
    # After those that stand alone: what stands several times takes all that is left.
    for name, kind in several.items():
        parser.add_argument(name, nargs="+", type=kind, metavar=name.upper(), help=described.get(name))

    # A switch may stand alone on the command line: --name means --name true.
    switches = {f"--{name}" for name, given in signature(function).parameters.items() if given.annotation is bool}
    following = [*rest, "--"][1:]
    rest = [
        f"{word}=true" if word in switches and after.startswith("-") else word
        for word, after in zip(rest, following, strict=True)
    ]

    def call() -> None:
        given = parser.instantiate_classes(parser.parse_args(rest)).as_dict()
        function(**{name: _at_home(value) for name, value in given.items()})

    return _exit_status(call)


def _at_home(value: Any) -> Any:
    """Write out the home folder in a path or a list of paths: after `--name=` no shell does."""
    if isinstance(value, list):
        return [_at_home(item) for item in value]
    return value.expanduser() if isinstance(value, Path) else value


def _exit_status(call: Callable[[], object]) -> int:
    """Run a call whose parser may leave by `SystemExit` (after `--help`)."""
    try:
        call()
    except Stopped:
        raise
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    return 0
