"""The Markdown model card of a report, with the front matter that model hubs read."""

import re
from collections.abc import Sequence

from .content import BuildReport, count, duration, machine, milliseconds, parity_words, percent, runtime
from .markdown import table, text
from .use import preprocessing_steps, snippet
from .views import View, view_of


def card(report: BuildReport) -> str:
    """The whole card. Texts that come from outside are escaped, so that no name breaks a table or becomes HTML."""
    view = view_of(report)
    sections = {
        "": [f"# {text(report.title)}", _summary(report, view)],
        "Results": [_results(report, view)],
        "Latency": [_latency(report)],
        "Preprocessing": [
            _numbered(preprocessing_steps(report.spec)),
            _fenced(snippet(report), "python"),
        ],
        "Classes": ["In the order of the outputs.", view.classes()],
        "Training data": [_data(report)],
        "Networks considered": [_candidates(report)],
        "Limits": [view.limits()],
        "How it was made": [_fenced(report.command, ""), _provenance(report)],
    }
    written = [f"## {title}\n\n" * bool(title) + "\n\n".join(filter(None, parts)) for title, parts in sections.items()]
    return f"---\n{_front_matter(report, view)}---\n\n" + "\n\n".join(part for part in written if part) + "\n"


def _front_matter(report: BuildReport, view: View) -> str:
    import yaml

    known = view.front_matter()
    result = {
        "task": {"type": known["task"]},
        "dataset": {"type": known["dataset"], "name": report.data.name},
        "metrics": known["metrics"],
    }
    matter = {
        "library_name": "pocketvision",
        "pipeline_tag": known["task"],
        "tags": [known["task"], "onnx", "pocketvision", report.spec.backbone.name],
        "metrics": [metric["type"] for metric in known["metrics"]],
        "model-index": [{"name": report.title, "results": [result]}],
    }
    return yaml.safe_dump(matter, sort_keys=False, allow_unicode=True, width=1000)


def _summary(report: BuildReport, view: View) -> str:
    spec, file, budget = (
        report.spec,
        report.artifact,
        {True: "It meets its budget.", False: "It misses its budget.", None: ""}[report.met],
    )
    return (
        f"An {view.kind} for {len(report.data.classes)} classes: {text(spec.backbone.name)} at "
        f"{spec.preprocessing.size} × {spec.preprocessing.size} pixels, {count(report.cost.params)} parameters, "
        f"{count(report.cost.madds)} multiply-adds an image, {file.size_mb:.2f} MB as {text(file.path.name)}. "
        f"Training started from: {text(report.weights)}. {budget}"
    ).strip()


def _results(report: BuildReport, view: View) -> str:
    met = {True: "yes", False: "no", None: "not asked"}
    budget = table(
        ["budget", "wanted", "got", "met"],
        [(line.what, line.wanted, line.got, met[line.met]) for line in report.budget],
    )
    parity = text(parity_words(report.parity)) if report.parity else ""
    return "\n\n".join(filter(None, [view.results(), budget, parity]))


def _latency(report: BuildReport) -> str:
    rows = [
        (runtime(row), row.threads, *map(milliseconds, (row.min_ms, row.median_ms, row.p90_ms)), row.n, machine(row))
        for row in report.latency
    ]
    return table(["runtime", "threads", "min", "median", "p90", "runs", "machine"], rows, "lrrrrrl") or "Not measured."


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
