"""The words of the command line, before and after they are read."""

import re
import shlex
import sys
from pathlib import Path


def command_line() -> str:
    """The command that is running, ready to be pasted into a shell."""
    return shlex.join(["pocketvision", *sys.argv[1:]])


def with_dashes(arguments: list[str]) -> list[str]:
    """``epochs=20`` as some peers write it -> ``--epochs=20``; files and folders with "=" in their names stay."""
    is_option = re.compile(r"[a-z][a-z_-]*=.*")
    before = ["", *arguments]  # what follows --name is a value, whatever it looks like
    return [
        "--" + argument.replace("_", "-", argument.partition("=")[0].count("_"))
        if is_option.fullmatch(argument)
        and not Path(argument).exists()
        and (previous == "--json" or "=" in previous or not previous.startswith("-"))
        else argument
        for previous, argument in zip(before, arguments, strict=False)
    ]
