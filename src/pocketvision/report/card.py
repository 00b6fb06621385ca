"""The Markdown model card of a report, with the front matter that model hubs read."""

import re
from collections.abc import Iterable, Sequence

from ..data.check import noun
from .content import (
    BuildReport,
    count,
    duration,
    machine,
    milliseconds,
    parity_words,
    percent,
    preprocessing_steps,
    runtime,
    snippet,
)


def card(report: BuildReport) -> str:
    """The whole card. Texts that come from outside are escaped, so that no name breaks a table or becomes HTML."""
    sections = {
        "": [f"# {text(report.title)}", _summary(report)],
        "Results": [_results(report)],
        "Latency": [_latency(report)],
        "Preprocessing": [
            _numbered(preprocessing_steps(report.spec.preprocessing)),
            _fenced(snippet(report), "python"),
        ],
        "Classes": ["In the order of the outputs.", _classes(report)],
        "Training data": [_data(report)],
        "Networks considered": [_candidates(report)],
        "Limits": [_limits(report)],
        "How it was made": [_fenced(report.command, ""), _provenance(report)],
    }
    written = [f"## {title}\n\n" * bool(title) + "\n\n".join(filter(None, parts)) for title, parts in sections.items()]
    return f"---\n{_front_matter(report)}---\n\n" + "\n\n".join(part for part in written if part) + "\n"


def text(value: object) -> str:
    """Plain text as Markdown: one line, with what Markdown or HTML would act on escaped."""
    line = " ".join(str(value).split())
    line = re.sub(r"([\\`*\[\]<>|~&$]|(?<!\w)_|_(?!\w))", r"\\\1", line)
    return re.sub(r"^(\d*)([-+#=.)])(?=[-#=\s]|$)", r"\1\\\2", line)


def table(headers: Sequence[str], rows: Iterable[Sequence[object]], align: str = "") -> str:
    """A Markdown table; ``align`` has one letter a column, "l" or "r". Empty for no rows."""
    lines = ["| " + " | ".join(text(cell) for cell in row) + " |" for row in rows]
    marks = ["--:" if letter == "r" else ":--" for letter in align.ljust(len(headers), "l")]
    return "\n".join(["| " + " | ".join(headers) + " |", "|" + "|".join(marks) + "|", *lines]) if lines else ""


def _front_matter(report: BuildReport) -> str:
    import yaml

    accuracy = {"type": "accuracy", "value": round(report.accuracy, 4), "name": "top-1 accuracy"}
    result = {
        "task": {"type": "image-classification"},
        "dataset": {"type": "imagefolder", "name": report.data.name},
        "metrics": [accuracy],
    }
    matter = {
        "library_name": "pocketvision",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "onnx", "pocketvision", report.spec.backbone.name],
        "metrics": ["accuracy"],
        "model-index": [{"name": report.title, "results": [result]}],
    }
    return yaml.safe_dump(matter, sort_keys=False, allow_unicode=True, width=1000)


def _summary(report: BuildReport) -> str:
    spec, file, budget = (
        report.spec,
        report.artifact,
        {True: "It meets its budget.", False: "It misses its budget.", None: ""}[report.met],
    )
    return (
        f"An image classifier for {len(report.data.classes)} classes: {text(spec.backbone.name)} at "
        f"{spec.preprocessing.size} × {spec.preprocessing.size} pixels, {count(report.cost.params)} parameters, "
        f"{count(report.cost.madds)} multiply-adds an image, {file.size_mb:.2f} MB as {text(file.path.name)}. "
        f"Training started from: {text(report.weights)}. {budget}"
    ).strip()


def _results(report: BuildReport) -> str:
    low, high = report.interval
    summary = (
        f"Top-1 accuracy {percent(report.accuracy)} (95% interval {percent(low)} to {percent(high)}) on {report.n:,} "
        f"{noun(report.n, 'image')}: {text(report.measured_on)}. Always answering the most frequent class: "
        f"{percent(report.majority)}."
    )
    met = {True: "yes", False: "no", None: "not asked"}
    budget = table(
        ["budget", "wanted", "got", "met"],
        [(line.what, line.wanted, line.got, met[line.met]) for line in report.budget],
    )
    parity = text(parity_words(report.parity)) if report.parity else ""
    return "\n\n".join(filter(None, [summary, budget, parity]))


def _latency(report: BuildReport) -> str:
    rows = [
        (runtime(row), row.threads, *map(milliseconds, (row.min_ms, row.median_ms, row.p90_ms)), row.n, machine(row))
        for row in report.latency
    ]
    return table(["runtime", "threads", "min", "median", "p90", "runs", "machine"], rows, "lrrrrrl") or "Not measured."


def _classes(report: BuildReport) -> str:
    rows = [(row.index, row.name, percent(row.recall), percent(row.precision), row.n) for row in report.per_class()]
    return table(["no.", "class", "recall", "precision", "images"], rows, "rlrrr")


def _data(report: BuildReport) -> str:
    findings = "\n".join(f"- {text(finding)}" for finding in report.findings)
    return f"{text(report.data.name)}: {text(report.data.description)}." + (f"\n\n{findings}" if findings else "")


def _candidates(report: BuildReport) -> str:
    rows = [
        (
            line.name,
            milliseconds(line.latency_ms),
            percent(line.accuracy) + (f" ({line.accuracy_is})" if line.accuracy is not None else ""),
            ("chosen: " if line.chosen else "") + line.decision,
        )
        for line in report.candidates
    ]
    return table(["network", "latency", "accuracy", "decision"], rows, "lrrl") or "None but this one."


def _limits(report: BuildReport) -> str:
    small = [row.name for row in report.per_class() if row.n < 30]
    few = f" {len(small)} of the classes have fewer than 30 images to judge by." if small else ""
    return (
        "It knows only these classes and answers one of them for any image at all. The accuracy holds for photos like "
        f"those it was measured on, and the latency for the machine above.{few}"
    )


def _provenance(report: BuildReport) -> str:
    times = [(stage, duration(seconds)) for stage, seconds in report.seconds.items()]
    versions = ", ".join(f"{text(name)} {text(version)}" for name, version in report.versions.items())
    return "\n\n".join(
        filter(None, [table(["stage", "time"], times, "lr"), f"{text(report.created)}. {versions}".strip()])
    )


def _numbered(steps: Sequence[str]) -> str:
    return "\n".join(f"{number}. {text(step)}" for number, step in enumerate(steps, 1))


def _fenced(code: str, language: str) -> str:
    longest = max((len(run) for run in re.findall(r"`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{code.rstrip()}\n{fence}"
