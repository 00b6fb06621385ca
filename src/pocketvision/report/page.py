"""The HTML page of a report."""

import json

from ..spec.model import to_data
from .content import BuildReport, count, duration, machine, milliseconds, parity_words, percent, runtime
from .html import Html, document, join, picture, table, tag
from .plots import DARK, LIGHT, curve_plots
from .use import preprocessing_steps, snippet
from .views import view_of

SKIPPED = 200  # shown at most


def page(report: BuildReport) -> str:
    """The whole page. Every text that comes from outside (class and file names, commands) is escaped."""
    view = view_of(report)
    sections: list[tuple[str, Html]] = [
        ("What was asked, what came out", _budget(report)),
        ("How to use the model", _use(report)),
        ("How well it recognises", view.accuracy()),
        ("Its worst mistakes", view.mistakes()),
        ("How fast it is", _latency(report)),
        ("Which networks were considered", _candidates(report)),
        ("Training", _training(report)),
        ("The data", _data(report)),
        ("Is the exported file the trained network?", _parity(report)),
        ("How this was made", _provenance(report)),
    ]
    body = join(
        [
            _header(report, *view.headline),
            *(tag("section", tag("h2", title), content) for title, content in sections if content),
        ]
    )
    return document(report.title, body)


def _header(report: BuildReport, accuracy: str, meaning: str) -> Html:
    spec = report.spec
    tiles = [
        (accuracy, meaning),
        *(
            (milliseconds(row.median_ms), f"{row.runtime}, {_threads(row.threads)}, median")
            for row in report.latency[:2]
        ),
        (f"{report.artifact.size_mb:.2f} MB", f"{report.artifact.path.name}, {report.artifact.precision}"),
        (count(report.cost.params), f"parameters; {count(report.cost.madds)} multiply-adds an image"),
    ]
    verdict = Html()
    if report.met is not None:
        words = ("✓ Meets the budget", "yes") if report.met else ("✗ Misses the budget", "no")
        verdict = tag("p", words[0], class_=f"verdict {words[1]}")
    facts = (
        f"{spec.backbone.name} · {len(report.data.classes)} classes · {spec.preprocessing.size} px · {report.created}"
    )
    return join(
        [
            tag("h1", report.title),
            tag("p", facts, class_="quiet"),
            verdict,
            tag(
                "div", *(tag("div", tag("b", b), tag("span", text), class_="tile") for b, text in tiles), class_="tiles"
            ),
        ]
    )


def _budget(report: BuildReport) -> Html:
    met = {True: tag("b", "✓ yes", class_="yes"), False: tag("b", "✗ no", class_="no"), None: "not asked"}
    rows = [(line.what, line.wanted, line.got, met[line.met]) for line in report.budget]
    return table(["", "wanted", "got", "met"], rows) if rows else Html()


def _use(report: BuildReport) -> Html:
    names = join(tag("li", name) for name in report.data.classes)
    return join(
        [
            tag("p", "The model sees what it was trained on only when the app prepares a photo in exactly this way:"),
            tag("ol", *(tag("li", step) for step in preprocessing_steps(report.spec))),
            tag("pre", tag("code", snippet(report))),
            tag(
                "details",
                tag("summary", f"The {len(report.data.classes)} class names, in the order of the outputs"),
                Html(f'<ol start="0">{names}</ol>'),
            ),
        ]
    )


def _latency(report: BuildReport) -> Html:
    rows = [
        (
            runtime(row),
            row.threads,
            *map(milliseconds, (row.min_ms, row.median_ms, row.p90_ms)),
            f"{row.n:,}",
            machine(row),
        )
        for row in report.latency
    ]
    headers = ["runtime", "threads", "min", "median", "p90", "runs", "machine"]
    text = "One image at a time, after warm-up. Another device has other numbers: measure there before you promise any."
    return join([tag("p", text), table(headers, rows, "lrrrrrl")]) if rows else Html()


def _candidates(report: BuildReport) -> Html:
    rows = [
        (
            tag("b", line.name, class_="chosen") if line.chosen else line.name,
            milliseconds(line.latency_ms),
            percent(line.accuracy) + (f" ({line.accuracy_is})" if line.accuracy is not None else ""),
            tag("b", "chosen: ", line.decision) if line.chosen else line.decision,
        )
        for line in report.candidates
    ]
    return table(["network", "latency", "accuracy", "decision"], rows, "lrrl") if rows else Html()


def _training(report: BuildReport) -> Html:
    light, dark = (curve_plots(report.curve, theme) for theme in (LIGHT, DARK))
    plots = [tag("figure", tag("figcaption", name), picture(png, dark[name], name)) for name, png in light.items()]
    advice = tag("ul", *(tag("li", text) for text in report.advice)) if report.advice else Html()
    start = tag("p", f"Started from: {report.weights}.")
    return join([start, advice, tag("div", *plots, class_="plots")]) if plots else Html()


def _data(report: BuildReport) -> Html:
    data, counts = report.data, report.counts()
    total = [tag("b", "all"), *(tag("b", f"{split.total():,}") for split in counts.values())]
    named = () if data.task == "segment" else enumerate(data.classes)  # an image has several
    rows = [[name, *(f"{split[index]:,}" for split in counts.values())] for index, name in named]
    parts: list[object] = [
        tag("p", tag("b", data.name), f": {data.description}"),
        table(["class", *counts], [total, *rows], "l" + "r" * len(counts)),
    ]
    if report.findings:
        parts += [tag("h3", "What the check found"), tag("ul", *(tag("li", finding) for finding in report.findings))]
    if data.skipped:
        listed = table(["left out", "why"], [(skip.image, skip.reason) for skip in data.skipped[:SKIPPED]])
        more = f"; the first {SKIPPED}" if len(data.skipped) > SKIPPED else ""
        summary = f"{len(data.skipped):,} {'file was' if len(data.skipped) == 1 else 'files were'} left out{more}"
        parts.append(tag("details", tag("summary", summary), listed))
    return join(parts)


def _parity(report: BuildReport) -> Html:
    return tag("p", parity_words(report.parity)) if report.parity else Html()


def _provenance(report: BuildReport) -> Html:
    spec = json.dumps(to_data(report.spec), indent=1)
    times = [(stage, duration(seconds)) for stage, seconds in report.seconds.items()]
    return join(
        [
            tag("p", "The command:"),
            tag("pre", tag("code", report.command), class_="wrap"),
            table(["stage", "time"], [*times, ("all", duration(sum(report.seconds.values())))], "lr")
            if times
            else Html(),
            table(["software", "version"], list(report.versions.items())) if report.versions else Html(),
            tag("p", f"sha256 of {report.artifact.path.name}: ", tag("code", report.artifact.sha256), class_="quiet"),
            tag("details", tag("summary", "The network, row by row (JSON)"), tag("pre", tag("code", spec))),
        ]
    )


def _threads(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"
