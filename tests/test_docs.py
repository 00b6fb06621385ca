"""The documentation's code runs, and its commands are ones that the command line accepts.

Python blocks of one page share their names, as a reader would run them: in order, in an empty folder. A block under the
line ``<!-- not run: REASON -->`` is only compiled. Shell blocks are not run here (``.ci/run`` runs the README's second
one); each ``pocketvision`` command in them is parsed by the command line itself.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(
    r"(?:^<!-- (?P<mark>not run): (?P<reason>.+?) -->\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


def blocks(page: Path, language: str) -> list[tuple[str, bool]]:
    """Code of ``page`` in ``language``, and whether it is meant to run."""
    return [
        (found["code"], found["mark"] is None)
        for found in FENCE.finditer(page.read_text())
        if found["language"] == language
    ]


def commands() -> list[str]:
    """Every command in the shell blocks that calls pocketvision."""
    lines = [
        line for page in PAGES for code, _ in blocks(page, "sh") for line in code.replace("\\\n", " ").splitlines()
    ]
    parts = [part.strip() for line in lines for part in re.split(r"&&|\||;", line.partition(" #")[0])]
    parts = [re.sub(r"^torchrun .*? -m (?=pocketvision )", "", part) for part in parts]
    return [part for part in parts if re.match(r"(\S*/)?pocketvision( |$)", part)]


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=lambda page: page.name)
def test_python_blocks_run(page: Path, tmp_path: Path):
    runnable = list[str]()
    for code, runs in blocks(page, "python"):
        compile(code, page.name, "exec")
        if runs:
            runnable.append(code)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(runnable)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", sorted(set(commands())))
def test_shell_commands_parse(line: str):
    from typer.main import get_command

    from pocketvision.app.cli import app

    name, *arguments = shlex.split(line)[1:] or ["--help"]
    if name == "--help":
        return
    group = get_command(app)
    with group.make_context("pocketvision", [name, *arguments], resilient_parsing=True) as context:
        command = group.get_command(context, name)  # pyright: ignore[reportAttributeAccessIssue]
        assert command is not None, f"pocketvision has no command {name}"
        command.make_context(name, arguments, parent=context)


def test_readme_starts_with_its_two_commands():
    first, second = (code for code, _ in blocks(ROOT / "README.md", "sh")[:2])
    assert "pocketvision build sample:digits" in first
    assert "pytest" in second
    for command in (first, second):
        assert "venv" in command
        assert "install" in command
