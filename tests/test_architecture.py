"""What keeps the code the way the design says: sizes, light imports, a frozen command line, portable and safe files."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAX_FILE_LINES, MAX_FUNCTION_LINES = 400, 60
HEAVY = {"torch", "torchvision", "timm", "torchmetrics", "onnx", "onnxruntime", "onnxscript", "sklearn", "matplotlib"}
HEAVY |= {"numpy", "PIL"}
CLI_OPTIONS = Path(__file__).with_name("cli_options.txt")
UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
# Written in parts, so that this file does not contain them.
MACHINE_PATHS = re.compile(r"(?<![\w.~}-])/(work|root|home)" + r"/\w")
REGISTRY_HOSTS = re.compile(
    r"(?i)\b(pypi\.|files\.python" + r"hosted\.|registry\.npm" + r"js\.|deb\.deb" + r"ian\.)(org|com)"
)


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tracked_files() -> list[Path]:
    """Files of the repository, new ones that git would not ignore included."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for line in listed.splitlines() if (path := ROOT / line).is_file()]


@pytest.mark.parametrize("path", python_files("src", "tests", "benchmarks", "examples"), ids=relative)
def test_files_and_functions_are_short(path: Path):
    lines = path.read_text().splitlines()
    assert len(lines) < MAX_FILE_LINES
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length < MAX_FUNCTION_LINES, f"{node.name} has {length} lines"


@pytest.mark.parametrize("module", ["pocketvision", "pocketvision.app.cli", "pocketvision.zoo"])
def test_import_is_light(module: str):
    program = f"import sys, {module}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "pocketvision" in done.stdout.split()
    assert not HEAVY & set(done.stdout.split())


def command_lines() -> Iterator[str]:
    """Each command of the command line with its arguments and options, one line each."""
    from typer.main import get_command

    from pocketvision.app.cli import app

    group = get_command(app)
    for name, command in sorted(getattr(group, "commands", {}).items()):
        arguments = [str(p.name).upper() for p in command.params if p.param_type_name == "argument"]
        options = [o for p in command.params if p.param_type_name == "option" for o in (*p.opts, *p.secondary_opts)]
        yield " ".join([name, *arguments, *sorted(options)])


def test_no_new_cli_options():
    now = "\n".join(command_lines()) + "\n"
    assert now == CLI_OPTIONS.read_text(), (
        "the command line changed; when that is wanted, document it in docs/cli.md and run:\n"
        "python tests/test_architecture.py > tests/cli_options.txt"
    )


@pytest.mark.parametrize("pattern", [MACHINE_PATHS, REGISTRY_HOSTS], ids=["machine paths", "registry hosts"])
def test_no_traces_of_one_machine(pattern: re.Pattern[str]):
    found = list[str]()
    for path in tracked_files():
        data = path.read_bytes()
        if b"\0" in data:
            continue
        lines = enumerate(data.decode(errors="replace").splitlines(), 1)
        found += [f"{relative(path)}:{number}: {line.strip()[:80]}" for number, line in lines if pattern.search(line)]
    assert not found


@pytest.mark.parametrize("path", python_files("src", "benchmarks", "examples"), ids=relative)
def test_nothing_is_unpickled(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names=names):
                assert not UNSAFE_MODULES & {alias.name.partition(".")[0] for alias in names}
            case ast.ImportFrom(module=str(module), level=0):
                assert module.partition(".")[0] not in UNSAFE_MODULES
            case ast.Call(func=ast.Attribute(value=ast.Name(id="torch"), attr="load"), keywords=keywords):
                assert "weights_only=True" in [ast.unparse(keyword) for keyword in keywords]
            case ast.Call(keywords=keywords):
                assert "allow_pickle=True" not in [ast.unparse(keyword) for keyword in keywords]


if __name__ == "__main__":
    sys.stdout.write("\n".join(command_lines()) + "\n")
