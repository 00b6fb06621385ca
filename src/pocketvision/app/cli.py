"""The command line. Only typer is imported here; each command imports its work when it is called."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import BudgetError, PocketvisionError
from .arguments import command_line, with_dashes
from .flags import (
    OF_QAT,
    AllowLeak,
    AsJson,
    Batch,
    Data,
    Device,
    Epochs,
    Head,
    MaxDrop,
    Minutes,
    Name,
    Outputs,
    OutputStride,
    Project,
    Qat,
    Rate,
    Recipe,
    Runtime,
    Seed,
    Settings,
    Size,
    Source,
    Targets,
    Task,
    Teachers,
    Threads,
    Weights,
    Width,
    WidthRule,
    Workers,
)

if TYPE_CHECKING:
    from .options import TrainOptions

app = typer.Typer(
    help="Your images and a latency budget in; a trained, exported and measured mobile vision model out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.command()
def build(
    context: typer.Context,
    data: Data,
    max_ms: Annotated[float | None, typer.Option(help="Latency budget: median milliseconds of one image")] = None,
    max_mb: Annotated[float | None, typer.Option(help="Size budget of the exported file in megabytes")] = None,
    max_drop: Annotated[float, typer.Option(help="Accuracy points that the exported file may lose")] = 1.0,
    runtime: Runtime = "onnxruntime",
    threads: Threads = 1,
    model: Annotated[str | None, typer.Option(help="Use this model instead of choosing one")] = None,
    head: Head = "auto",
    output_stride: OutputStride = None,
    weights: Weights = "auto",
    recipe: Recipe = "auto",
    settings: Settings = [],  # noqa: B006  typer reads it, nobody writes
    teacher: Teachers = [],  # noqa: B006
    imgsz: Size = None,
    epochs: Epochs = None,
    batch: Batch = None,
    time: Minutes = None,
    workers: Workers = None,
    seed: Seed = None,
    project: Project = Path("runs"),
    name: Name = None,
    allow_leak: AllowLeak = False,
    as_json: AsJson = False,
) -> None:
    """Train, export and verify the most accurate model that meets a budget. Exit code 2: the budget is not met."""
    from .build import Budget, run_build

    budget = Budget(max_ms=max_ms, max_mb=max_mb, max_drop=max_drop, runtime=runtime, threads=threads)
    result = run_build(data, budget, _options(context), model=model, command=command_line())
    _print(result.to_dict(), str(result), as_json)
    if not result.met:
        raise typer.Exit(2)


@app.command()
def train(
    context: typer.Context,
    data: Annotated[str | None, typer.Argument(help="Folder of class folders, a CSV, or sample:digits")] = None,
    model: Annotated[str, typer.Option(help="A name from `pocketvision models`, or a JSON file of rows")] = (
        "mobilenet_v3_small"
    ),
    head: Head = "auto",
    output_stride: OutputStride = None,
    weights: Weights = "auto",
    width: Width = 1.0,
    width_rule: WidthRule = "torchvision",
    recipe: Recipe = "auto",
    settings: Settings = [],  # noqa: B006  typer reads it, nobody writes
    teacher: Teachers = [],  # noqa: B006
    imgsz: Size = None,
    epochs: Epochs = None,
    batch: Batch = None,
    lr: Rate = None,
    time: Minutes = None,
    patience: Annotated[int | None, typer.Option(help="Stop after so many epochs without a better one")] = None,
    device: Device = "auto",
    workers: Workers = None,
    seed: Seed = None,
    project: Project = Path("runs"),
    name: Name = None,
    allow_leak: AllowLeak = False,
    resume: Annotated[Path | None, typer.Option(help="Go on with this run folder; DATA is read from it")] = None,
    qat: Qat = None,
    as_json: AsJson = False,
) -> None:
    """Train a model on a data set."""
    from .training import resume_training
    from .training import train as run_training

    if resume is not None:
        _only(context, "--resume goes on with the run as it began", "resume", "as_json")
        result = resume_training(resume)
    elif qat is not None:
        _only(context, "--qat keeps the run's data and network", *OF_QAT)
        from .qat import train_for_int8

        result = train_for_int8(qat, _options(context))
    elif data is None:
        raise typer.BadParameter("give DATA, --resume RUN or --qat RUN")
    else:
        result = run_training(data, model, _options(context))
    _print(result.to_dict(), str(result), as_json)
    if result.reason == "interrupted":
        raise SystemExit(130)  # not typer's, so that main does not say it again


@app.command()
def advise(
    data: Annotated[str, typer.Argument(help="Folder of class folders, a CSV, sample:digits, or a run folder")],
    max_ms: Annotated[float | None, typer.Option(help="Latency budget: median milliseconds of one image")] = None,
    max_mb: Annotated[float | None, typer.Option(help="Size budget of the exported file in megabytes")] = None,
    runtime: Runtime = "onnxruntime",
    threads: Threads = 1,
    model: Annotated[str | None, typer.Option(help="Explain this model instead of choosing one")] = None,
    weights: Weights = "auto",
    imgsz: Size = None,
    epochs: Epochs = None,
    batch: Batch = None,
    time: Minutes = None,
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """What to train with these images, and why, and the accuracy to expect; or what went wrong in a run."""
    from .advise import advise as run
    from .options import TrainOptions

    options = TrainOptions(weights=weights, imgsz=imgsz, epochs=epochs, batch=batch, minutes=time, seed=seed)
    result = run(data, max_ms=max_ms, max_mb=max_mb, runtime=runtime, threads=threads, model=model, options=options)
    _print(result.to_dict(), str(result), as_json)


@app.command()
def evaluate(
    source: Source,
    data: Data,
    split: Annotated[str, typer.Option(help="train, val, test or all")] = "val",
    threads: Annotated[int, typer.Option(help="Threads of the runtime; 0: all cores")] = 0,
    imgsz: Size = None,
    multi_scale: Annotated[
        bool, typer.Option("--multi-scale", help="Masks: mean over six scales, mirrored too")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Accuracy of a run or an exported file on a data set."""
    from .commands import evaluate as run

    result = run(source, data, split=split, threads=threads, imgsz=imgsz, multi_scale=multi_scale)
    _print(result.to_dict(), str(result), as_json)


@app.command()
def predict(
    source: Source,
    images: Annotated[list[Path], typer.Argument(help="Images, videos and folders of them")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for predictions.json, predictions.csv, pictures and masks")
    ] = None,
    min_score: Annotated[float | None, typer.Option(help="Boxes that score less are not told; 0.25 by default")] = None,
    threads: Annotated[int, typer.Option(help="Threads; 0: all cores")] = 0,
    as_json: AsJson = False,
) -> None:
    """Label images, or box or outline what is in them, one line each; files that cannot be read are skipped, named and
    counted."""
    from .commands import predict as run
    from .predicted import SkippedFile, light, summary

    results = list[Any]()
    for item in run(source, images, threads=threads, min_score=min_score, out=out):
        results.append(light(item))
        if not as_json:
            typer.echo(item)
    skipped = [item.to_dict() for item in results if isinstance(item, SkippedFile)]
    predictions = [item.to_dict() for item in results if not isinstance(item, SkippedFile)]
    data = {"predictions": predictions, "skipped": skipped, "out": out and str(out)}
    _print(data, summary(results) + (f"; written to {out}" if out else ""), as_json)


@app.command()
def export(
    source: Source,
    to: Targets = ["onnx"],  # noqa: B006  typer reads it
    int8: Annotated[bool, typer.Option("--int8", help="8 bits, calibrated with images of the training split")] = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="Weights of 16 bits")] = False,
    max_drop: MaxDrop = None,
    outputs: Outputs = None,
    imgsz: Size = None,
    golden: Annotated[
        bool, typer.Option("--golden", help="Also images and the result of every stage, for `verify` and for apps")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="File to write; beside the weights by default")] = None,
    as_json: AsJson = False,
) -> None:
    """Fold, convert and check a trained model. Exit code 2: no remedy keeps int8 within --max-drop."""
    from .deploy import export as run
    from .deploy import precision_asked

    precision = precision_asked(int8, fp16)
    names = [name.strip() for each in to for name in each.split(",")]
    places: Any = {"imgsz": imgsz, "out": out}
    result = run(source, to=names, precision=precision, max_drop=max_drop, outputs=outputs, golden=golden, **places)
    _print(result.to_dict(), str(result), as_json)
    if not result.met:
        raise typer.Exit(2)


@app.command()
def verify(
    artifact: Annotated[str, typer.Argument(help="An exported file with its golden pack (export --golden)")],
    runtime: Annotated[str | None, typer.Option(help="Runtime, where several open the file")] = None,
    stages: Annotated[Path | None, typer.Option(help="Folder of stage files that an app wrote, to be compared")] = None,
    as_json: AsJson = False,
) -> None:
    """Replay a file's golden images stage by stage, or an app's stages. Exit code 1: a stage differs, it is named."""
    from .verify import verify as run

    result = run(artifact, runtime=runtime, stages=stages)
    _print(result.to_dict(), str(result), as_json)
    if not result.verdict.passed:
        raise typer.Exit(1)


@app.command()
def measure(
    targets: Annotated[list[str], typer.Argument(help="Model names, run folders, exported files")],
    runtime: Annotated[list[str], typer.Option(help="onnxruntime, torch; may be given again; a file has its own")] = [],  # noqa: B006
    threads: Threads = 1,
    imgsz: Size = None,
    n: Annotated[int, typer.Option("-n", "--n", help="Timed calls of each")] = 100,
    as_json: AsJson = False,
) -> None:
    """Latency of one image, candidates interleaved: min, median, p90 and where it was measured."""
    from .commands import measure as run

    result = run(targets, runtimes=runtime, threads=threads, imgsz=imgsz, n=n)
    _print(result.to_dict(), str(result), as_json)


@app.command()
def models(
    name: Annotated[str | None, typer.Argument(help="A name, a pattern such as *v3*, or a JSON file of rows")] = None,
    width: Width = 1.0,
    width_rule: WidthRule = "torchvision",
    imgsz: Size = None,
    hidden: Annotated[int | None, typer.Option(help="Hidden layer of the classifier")] = None,
    as_json: AsJson = False,
) -> None:
    """Networks that can be trained: parameters, multiply-adds, weights at hand."""
    from .models import models as run

    result = run(name, width=width, width_rule=width_rule, imgsz=imgsz, hidden=hidden)
    _print(result.to_dict(), str(result), as_json)


@app.command()
def data(
    data: Data,
    out: Annotated[Path, typer.Option(help="HTML page to write")] = Path("data_report.html"),
    seed: Seed = None,
    task: Task = None,
    as_json: AsJson = False,
) -> None:
    """Find copies, leaks, wrong labels and bad files in a data set, and show them on a page."""
    from .data_report import data_report

    result = data_report(data, out=out, seed=seed or 0, task=task)
    _print(result.to_dict(), str(result), as_json)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """What works on this machine, and how to get what does not."""
    from .doctor import doctor as run

    result = run()
    _print(result.to_dict(), str(result), as_json)


def _print(data: dict[str, Any], text: str, as_json: bool) -> None:
    """The result for a program or for a person, on standard output."""
    from .progress import speaks

    if speaks():
        typer.echo(json.dumps(data, default=str) if as_json else text)


def _options(context: typer.Context) -> "TrainOptions":
    """The command's options that are TrainOptions' too; on the command line a teacher is given one at a time."""
    from .options import TrainOptions

    renamed = {"time": "minutes", "teacher": "teachers"}
    given: dict[str, Any] = {renamed.get(name, name): value for name, value in context.params.items()}
    known = {name: given[name] for name in TrainOptions.__slots__ if name in given}
    known |= {name: tuple(value) for name, value in known.items() if isinstance(value, list)}
    return TrainOptions(**known)


def _only(context: typer.Context, why: str, *names: str) -> None:
    """Refuse what was given beside ``names``."""
    for name in context.params.keys() - set(names):
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise typer.BadParameter(f"{why}: leave out {name}")


def main(command: Callable[..., Any] = app) -> None:
    """Entry point. Exit code 0: done; 1: an error, said in one line; 2: a promise such as a budget is broken;
    130: interrupted."""
    # Threads that wait by spinning take the core from whoever has work: on two cores with one busy neighbour, the
    # forward passes of a probe took 10.8 s that way and 1.7 s with threads that sleep. Sleeping at once costs a fifth
    # of a training step where nobody else works; 1,000 turns are the better of both. Read when torch is imported.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    sys.argv[1:] = with_dashes(sys.argv[1:])
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and "train" not in sys.argv[1:2]:
        sys.exit(_refuse_together())
    try:
        code = command(standalone_mode=False)
        if code == 130:  # typer's answer to Ctrl-C
            code = _fail("interrupted", 130)
    except BudgetError as error:
        code = _fail(str(error), 2)
    except PocketvisionError as error:
        code = _fail(str(error))
    except KeyboardInterrupt:
        code = _fail("interrupted", 130)
    except BrokenPipeError:
        code = 1
    except Exception as error:
        # typer's own usage errors know how to say themselves; anything else is a defect and keeps its traceback
        if not hasattr(error, "format_message"):
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            typer.echo(error.format_message())  # type: ignore[attr-defined]
            sys.exit(0)
        code = _fail(error.format_message().replace("Value error, ", ""))  # type: ignore[attr-defined]
    sys.exit(code if isinstance(code, int) else 0)


def _refuse_together() -> int:
    """Only training can be shared by processes."""
    from .progress import speaks

    count, command = os.environ["WORLD_SIZE"], " ".join(["pocketvision", *sys.argv[1:2]])
    message = (
        f"torchrun is for training: run `{command}` as one process, after "
        f"`torchrun --nproc-per-node {count} -m pocketvision train ...`"
    )
    return _fail(message) if speaks() else 1


def _fail(message: str, code: int = 1) -> int:
    """Say an error on standard error, and with --json also as an object on standard output."""
    typer.echo(f"error: {message}", err=True)
    if "--json" in sys.argv:
        typer.echo(json.dumps({"error": message}))
    return code
