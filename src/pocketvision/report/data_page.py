"""The HTML page of a checked data set."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..data.check import Finding, class_counts, noun
from ..data.mask_check import class_shares
from ..data.sources import Dataset, Item
from .data_masks import masked_images
from .html import Html, document, join, table, tag, thumbnail

GROUPS, SUSPECTS, PER_GROUP, LISTED = 30, 60, 6, 200  # shown at most
_TITLES = {
    "unreadable": "Files that were skipped",
    "boxes": "Boxes that were changed or left out",
    "masks": "Masks that were changed, and those without an image",
    "small": "Images with small boxes",
    "tiny": "Tiny images",
    "leak": "The same picture in two splits",
    "contradiction": "One picture, two labels",
    "copies": "Copies in train",
}


def data_page(
    dataset: Dataset, findings: Sequence[Finding], suspects: Sequence[Mapping[str, object]], how: str, next_step: str
) -> str:
    """The whole page. ``suspects``: image, split, label, looks_like and probability; ``how`` they were found."""
    labels = {item.image: _contents(item, dataset.classes) for item in dataset.items}
    splits = {item.image: split for split in ("train", "val", "test") for item in getattr(dataset, split)}
    where = {image: ", ".join(filter(None, [split, labels[image]])) for image, split in splits.items()}
    sections = [("What was found", _list(findings))]
    if dataset.task == "segment":
        sections.append(("Images with their masks", masked_images(dataset)))
    for kind, title in _TITLES.items():
        found = [finding for finding in findings if finding.kind == kind]
        sections.append((title, join(_finding(dataset, finding, where) for finding in found)))
    sections += [("Labels to look at", _suspects(suspects, how)), ("The classes", _classes(dataset))]
    body = [_header(dataset, findings, suspects)]
    body += [tag("section", tag("h2", title), content) for title, content in sections if content]
    body.append(tag("section", tag("h2", "Next"), tag("pre", tag("code", next_step), class_="wrap")))
    return document(f"{dataset.name}: the data", join(body))


def _contents(item: Item, classes: Sequence[str]) -> str:
    if item.mask:
        return ""
    if item.boxes is None:
        return classes[item.label]
    return f"{len(item.boxes.labels)} {'box' if len(item.boxes.labels) == 1 else 'boxes'}"


def _header(dataset: Dataset, findings: Sequence[Finding], suspects: Sequence[object]) -> Html:
    errors = sum(finding.severity == "error" for finding in findings)
    warnings = sum(finding.severity == "warning" for finding in findings)
    verdict, kind = "✓ Ready for training", "verdict yes"
    if warnings:  # neither good nor bad: it can be trained, and may not be worth it
        verdict, kind = f"Can be trained, with {warnings} {noun(warnings, 'warning')}", "verdict"
    if errors:
        verdict, kind = f"✗ {errors} to be mended before training", "verdict no"
    leaked = sum(len(finding.groups) for finding in findings if finding.kind == "leak")
    images = len(dataset.train) + len(dataset.val) + len(dataset.test)
    tiles = [
        (images, f"{noun(images, 'image')} in {len(dataset.classes)} classes; {len(dataset.skipped):,} skipped"),
        (leaked, f"{noun(leaked, 'image')} of one split also in another"),
        (len(suspects), f"{noun(len(suspects), 'label')} to look at"),
        (warnings, noun(warnings, "warning")),
    ]
    return join(
        [
            tag("h1", f"{dataset.name}: the data"),
            tag("p", dataset.description, class_="quiet"),
            tag("p", verdict, class_=kind),
            tag(
                "div",
                *(tag("div", tag("b", f"{n:,}"), tag("span", s), class_="tile") for n, s in tiles),
                class_="tiles",
            ),
        ]
    )


def _list(findings: Sequence[Finding]) -> Html:
    mark = {"error": tag("b", "error", class_="no"), "warning": "warning", "info": "good to know"}
    return table(["", "found", "what to do"], [(mark[f.severity], f.text, f.fix) for f in findings])


def _finding(dataset: Dataset, finding: Finding, where: Mapping[str, str]) -> Html:
    intro = tag("p", f"{finding.text}.", *([f" {finding.fix[0].upper()}{finding.fix[1:]}."] if finding.fix else []))
    if finding.kind == "unreadable":
        return join([intro, table(["file", "why"], [(s.image, s.reason) for s in dataset.skipped[:LISTED]])])
    more = f"The first {GROUPS} of {len(finding.groups):,}." if len(finding.groups) > GROUPS else ""
    groups = [tag("div", *(_photo(image, where) for image in g[:PER_GROUP]), class_="copies") for g in finding.groups]
    return join([intro, tag("p", more, class_="quiet") if more else "", tag("div", *groups[:GROUPS], class_="groups")])


def _photo(image: str, where: Mapping[str, str]) -> Html:
    place = where.get(image, "")
    name = tag("span", Path(image).name, class_="file", title=image)
    return tag("figure", thumbnail(image, place), tag("figcaption", tag("b", place), name))


def _suspects(suspects: Sequence[Mapping[str, object]], how: str) -> Html:
    if not suspects:
        return Html()
    shown = suspects[:SUSPECTS]
    surest = f", the {len(shown)} surest of them" if len(suspects) > len(shown) else ""
    intro = (
        f"{len(suspects):,} {noun(len(suspects), 'image')}{surest}, taken for another class, with confidence, by a "
        f"classifier that was trained without. Some are wrong labels, some are only hard: you decide. It saw: {how}."
    )
    figures = []
    for suspect in shown:
        image = str(suspect["image"])
        name = tag("span", Path(image).name, class_="file", title=image)
        label, other = tag("b", str(suspect["label"])), tag("b", str(suspect["looks_like"]))
        words = (
            "labelled ",
            label,
            ", looks like ",
            other,
            f" ({suspect['probability']:.0%}), {suspect['split']}",
            name,
        )
        picture = thumbnail(image, f"labelled {suspect['label']}, looks like {suspect['looks_like']}")
        figures.append(tag("figure", picture, tag("figcaption", *words)))
    return join([tag("p", intro), tag("div", *figures, class_="mistakes")])


def _classes(dataset: Dataset) -> Html:
    counts = {split: by_class for split, by_class in class_counts(dataset).items() if any(by_class.values())}
    rows = [(name, *(f"{by_class[name]:,}" for by_class in counts.values())) for name in dataset.classes]
    if dataset.task != "segment":
        return table(["class", *counts], rows, "l" + "r" * len(counts))
    shares = class_shares(dataset)
    headers = ["class", *(f"images of {split}" for split in counts), "share of train's pixels"]
    return table(headers, [(*row, f"{shares[row[0]]:.2%}") for row in rows], "l" + "r" * (len(counts) + 1))
