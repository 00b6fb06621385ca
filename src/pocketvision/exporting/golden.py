"""The golden pack of an exported file: real images, what every stage makes of them, and programs that compare."""

import hashlib
import json
import os
import shlex
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from PIL import Image

from ..data.image import read_image
from ..data.sources import Item
from ..data.transforms import prepare, resized
from ..errors import DataError, ExportError
from ..files import write_text
from ..spec.heads import FasterRCNNHead, SSDHead
from ..spec.model import Preprocessing
from .artifact import Artifact
from .contract import contract_of, created_now, steps_of
from .runners.steps import FAULTS, Pack, Stages, decide, own_stages, tensors
from .runners.steps import prepare as prepare_by_runner
from .runners.verify import told, unmatched, verify

Run = Callable[[np.ndarray], list[np.ndarray]]  # uint8 [1, S, S, 3] -> the file's outputs
IMAGES, TRIED = 8, 48
LONG_SIDE, TIMES = 640, 2.5  # an image's longest side: 640, or more where the network's input is large
WIDEST = 3  # long side / short side: longer images are cut before the resize, which no other program need do
UNSTABLE = 50  # of so many boxes, one may be lost to rounding beside those that noise loses
MIN_SCORE = 0.25  # of boxes, as `predict` tells them
RUNNERS = ("README.md", "verify.py", "steps.py", "verify.mjs", "Verify.kt", "Verify.swift")
GREY = {
    "mean": 0.5,
    "p99": 3,
    "unit": "grey levels, 0 to 255: the mean of all differences, and the limit that 99% of them keep",
    "why": "resizes with the same filter and antialiasing differ by 0.2 in the mean and by 1 (Pillow, torch, floating "
    "point); without antialiasing by 1 and more, on the images that show it",
}
BASE = {"float32": 1e-3, "float16": 1e-2, "int8": 2e-2}  # of scores: what another processor or version may change


@dataclass(frozen=True, slots=True)
class Golden:
    """A pack that was written: its folder, how many images it has, and mistakes that these images cannot show."""

    path: Path
    n: int
    blind: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {"path": str(self.path), "n": self.n, "blind": list(self.blind)}

    def __str__(self) -> str:
        file = shlex.quote(str(self.path.with_suffix("")))
        text = f"{self.path}: golden pack of {self.n} images; pocketvision verify {file} replays it"
        if not self.blind:
            return text
        return f"{text}. It cannot show: " + "; ".join(f"{name} ({FAULTS[name]})" for name in self.blind)


@dataclass(frozen=True, slots=True)
class _Candidate:
    name: str
    pixels: np.ndarray
    outputs: list[np.ndarray]
    noisy: list[np.ndarray]  # outputs where half of the pixels' values are off by one


def pack_path(artifact: Path) -> Path:
    """Where the golden pack of an exported file lies: model.onnx -> model.onnx.golden."""
    return artifact.with_name(f"{artifact.name}.golden")


def write_pack(artifact: Artifact, items: Sequence[Item], run: Run, runtime: str) -> Golden:
    """Write the pack of ``artifact`` beside it, with images of ``items``; an older pack there is replaced.

    ``run``: the file in ``runtime`` (its name and version), whose outputs are what is expected.
    Raises DataError where no image can be read, ExportError when the folder cannot be written.
    """
    place = pack_path(artifact.path)
    temporary = place.with_name(f".{uuid4().hex[:12]}-{place.name[-80:]}")
    try:
        (temporary / "images").mkdir(parents=True)
        (temporary / "expected").mkdir()
        blind = _fill(temporary, artifact, _chosen(artifact, items, run), runtime)
        if place.exists():
            shutil.rmtree(place)
        os.replace(temporary, place)
    except OSError as error:
        raise ExportError(f"cannot write {place}: {error.strerror}; choose another place") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Golden(place, len(Pack(place).images), blind)


# Which images


def _chosen(artifact: Artifact, items: Sequence[Item], run: Run) -> list[_Candidate]:
    """Images of different classes and shapes in which a missing antialias shows, first those that decide clearly."""
    p = artifact.spec.preprocessing
    step = max(1, len(items) // TRIED)
    tried = [(item, pixels) for item in items[::step][:TRIED] if (pixels := _readable(item.image, p)) is not None]
    if not tried:
        raise DataError("no validation image of the run can be read, of which a golden pack is made; check the paths")
    shows = [_aliasing(pixels, p) for _, pixels in tried]
    used, order = Counter[str | int](), list[int]()
    # neighbours in a split are often frames of one video, so a part of the split counts like a class
    kinds = [(_what(item), _shape(pixels), n * IMAGES // len(tried)) for n, (item, pixels) in enumerate(tried)]
    while len(order) < len(tried):
        rest = (index for index in range(len(tried)) if index not in order)
        best = min(rest, key=lambda index: (sum(used[kind] for kind in kinds[index]), -shows[index]))
        used.update(kinds[best])
        order.append(best)
    clear, others = list[_Candidate](), list[_Candidate]()
    for index in order:
        item, pixels = tried[index]
        candidate = _candidate(Path(item.image).name, pixels, run, p)
        (clear if _is_clear(candidate, artifact) else others).append(candidate)
        if len(clear) == IMAGES:
            break
    return (clear + others)[:IMAGES]


def _readable(image: str, p: Preprocessing) -> np.ndarray | None:
    """An image, reduced so that a pack stays small; None where it cannot be read or is very long."""
    try:
        pixels = read_image(image)
    except DataError:
        return None
    height, width = pixels.shape[:2]
    if max(height, width) > WIDEST * min(height, width):
        return None
    scale = max(LONG_SIDE, TIMES * (p.size if p.fit == "stretch" else p.resize)) / max(height, width)
    if scale >= 1:
        return pixels
    return resized(pixels, max(1, round(height * scale)), max(1, round(width * scale)), "bilinear")


def _aliasing(pixels: np.ndarray, p: Preprocessing) -> float:
    """How many grey levels an image differs in the mean when it is resized without antialiasing."""
    steps = _steps(p)
    whole, aliased = (prepare_by_runner(pixels, steps, fault)["resized"] for fault in (None, "no-antialias"))
    return float(np.abs(whole.astype(np.int16) - aliased).mean())


def _steps(p: Preprocessing) -> dict[str, Any]:
    """As much of a contract as a preprocessing needs."""
    return {"preprocessing": steps_of(p), "input": {"layout": "NHWC", "dtype": "uint8"}}


def _what(item: Item) -> str:
    if item.boxes is not None:
        return f"class {item.boxes.labels[0]}" if item.boxes.labels else "nothing"
    return f"class {item.label}"


def _shape(pixels: np.ndarray) -> str:
    ratio = pixels.shape[1] / pixels.shape[0]
    return "wide" if ratio > 1.1 else "high" if ratio < 1 / 1.1 else "square"


def _candidate(name: str, pixels: np.ndarray, run: Run, p: Preprocessing) -> _Candidate:
    image = prepare(pixels, p)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 2, image.shape) * rng.choice((-1, 1), image.shape)
    noisy = (image.astype(np.int16) + noise).clip(0, 255).astype(np.uint8)
    return _Candidate(name, pixels, run(image[None]), run(noisy[None]))


def _is_clear(candidate: _Candidate, artifact: Artifact) -> bool:
    """Whether the decision does not hang on a grey level."""
    one, other = candidate.outputs, candidate.noisy
    if artifact.form == "scores":
        best = np.sort(one[0][0])[-2:]
        return bool(one[0].argmax() == other[0].argmax() and best[-1] - best[0] > 0.1)
    if artifact.form in ("nms", "dense"):
        scores = one[1] if artifact.form == "nms" else one[1].max(-1)
        return bool((scores >= MIN_SCORE).any())
    return True


# What is written


def _fill(folder: Path, artifact: Artifact, chosen: list[_Candidate], runtime: str) -> tuple[str, ...]:
    """Write everything into ``folder``; the mistakes that the images cannot show."""
    manifest = _manifest(artifact, chosen, runtime)
    manifest["images"] = [_image(folder, number, one, artifact, manifest) for number, one in enumerate(chosen)]
    write_text(folder / "manifest.json", json.dumps(manifest, indent=1) + "\n")
    pack = Pack(folder)
    verdict = verify(pack, own_stages(pack, None))
    if not verdict.passed:
        raise ExportError(f"the golden pack of {artifact.path} does not hold for its own images: {verdict}")
    manifest["blind"] = [fault for fault in FAULTS if _is_blind(pack, fault)]
    write_text(folder / "manifest.json", json.dumps(manifest, indent=1) + "\n")
    templates = resources.files("pocketvision.exporting") / "runners"
    (folder / "runners").mkdir()
    for name in RUNNERS:
        text = (templates / name).read_text(encoding="utf-8")
        place = folder if name == "README.md" else folder / "runners"
        write_text(place / name, text.replace("from .steps import", "from steps import"))
    return tuple(manifest["blind"])


def _manifest(artifact: Artifact, chosen: list[_Candidate], runtime: str) -> dict[str, Any]:
    """Everything but the images."""
    spec, form = artifact.spec, artifact.form
    contract = contract_of(spec, form, artifact.precision, anchors=artifact.anchors, image=artifact.input)
    contract = {name: value for name, value in contract.items() if name not in ("spec", "labels", "created")}
    manifest: dict[str, Any] = {
        "golden": 1,
        "artifact": {"file": artifact.path.name, "format": artifact.format, "sha256": artifact.sha256},
        "task": artifact.task,
        "form": form,
        "size": spec.preprocessing.size,
        "labels": list(artifact.class_names),
        "contract": contract,
        "tolerances": _tolerances(artifact, chosen),
        "created": asdict(created_now()) | {"runtime": runtime, "numpy": np.__version__, "pillow": version("pillow")},
    }
    contract["outputs"] = [asdict(output) for output in artifact.outputs]
    if isinstance(spec.head, SSDHead | FasterRCNNHead):
        manifest["selection"] = asdict(spec.head.selection) | {"min_score": _min_score(artifact, chosen)}
    return manifest


def _min_score(artifact: Artifact, chosen: list[_Candidate]) -> float:
    """What boxes score at least: as `predict` tells them, or where few do, half of the usual best of an image."""
    if artifact.form == "raw":
        return MIN_SCORE
    best = [float(one.outputs[1].max(initial=0)) for one in chosen]
    return min(MIN_SCORE, round(float(np.median(best)) / 2, 3))


def _tolerances(artifact: Artifact, chosen: list[_Candidate]) -> dict[str, Any]:
    """How far each stage may be off, and where the figure comes from."""
    tolerances: dict[str, Any] = {"decoded": {"why": "PNG is lossless: every pixel is the same"}}
    tolerances |= dict.fromkeys(("resized", "cropped", "input", "normalised"), GREY)
    base = BASE.get(artifact.precision, BASE["int8"])
    outputs: dict[str, Any] = {}
    for place, output in enumerate(artifact.outputs):
        if artifact.form == "nms":
            break
        pairs = [(one.outputs[place], one.noisy[place]) for one in chosen]
        if artifact.form == "classes":
            outputs[output.name] = max(0.01, 2 * max(float((one != other).mean()) for one, other in pairs))
            continue
        off = max(float(np.abs(one - other).max()) for one, other in pairs)
        largest = 1.0 if output.name == "scores" else max(float(np.abs(one).max()) for one, _ in pairs)
        outputs[output.name] = max(base * largest, 2 * off)
    why = f"twice what noise of half a grey level does to these images, at least {base:g} of the largest"
    tolerances["outputs"] = outputs | {"why": why + "; of classes, the share of the pixels that differ"}
    words = {
        "classify": "the label is the same",
        "detect": "as sets: the same label, and boxes and scores that are as alike as this",
        "segment": "the share of the pixels that a class has",
    }
    score = _min_score(artifact, chosen) / 5 if artifact.task == "detect" else 0.0
    limits = {"classify": {}, "detect": {"score": score, "iou": 0.8}, "segment": {"share": 0.02}}
    tolerances["decision"] = limits[artifact.task] | {"why": words[artifact.task]}
    return tolerances


def _image(
    folder: Path, number: int, candidate: _Candidate, artifact: Artifact, manifest: dict[str, Any]
) -> dict[str, Any]:
    """Write the files of an image, and what the manifest says of it."""
    pixels, p = candidate.pixels, artifact.spec.preprocessing
    height, width = pixels.shape[:2]
    image = {"source": candidate.name, "width": width, "height": height}
    image |= _file(folder, f"images/{number}.png", pixels)
    places = [(0, 0), (width // 2, height // 2), (width - 1, height - 1)]
    samples = [{"x": x, "y": y, "rgb": pixels[y, x].tolist()} for x, y in places]
    image["decoded"] = {"sha256": hashlib.sha256(pixels.tobytes()).hexdigest(), "samples": samples}
    for stage, made in pixel_stages(pixels, p).items():
        size = {"width": made.shape[1], "height": made.shape[0]}
        image[stage] = _file(folder, f"expected/{number}.{stage}.png", made) | size
    normalised = tensors(prepare(pixels, p), manifest["contract"], None)["normalised"]
    image["normalised"] = _file(folder, f"expected/{number}.normalised.bin", normalised.astype("<f4").tobytes())
    outputs = b"".join(output.tobytes() for output in candidate.outputs)
    image["outputs"] = _file(folder, f"expected/{number}.outputs.bin", outputs)
    one, other = (decide(outputs, manifest, image) for outputs in (candidate.outputs, candidate.noisy))
    if one and other and "boxes" in one:
        limits, least = manifest["tolerances"]["decision"], manifest["selection"]["min_score"]
        image["unstable"] = max(unmatched(told(one), told(other), limits, least)) + len(one["boxes"]) // UNSTABLE
    return image | {"decision": one}


def pixel_stages(pixels: np.ndarray, p: Preprocessing) -> dict[str, np.ndarray]:
    """The stages of 8-bit pixels, as ``data.transforms.prepare`` makes them."""
    final = prepare(pixels, p)
    if p.fit == "stretch":
        return {"resized": final}
    height, width = pixels.shape[:2]
    short = min(height, width)
    size = round(p.resize * height / short), round(p.resize * width / short)
    return {"resized": resized(pixels, *size, p.interpolation), "cropped": final}


def _file(folder: Path, name: str, content: bytes | np.ndarray) -> dict[str, Any]:
    """Write bytes, or pixels as PNG, and what the manifest says of the file."""
    if isinstance(content, bytes):
        (folder / name).write_bytes(content)
    else:
        Image.fromarray(content).save(folder / name)
        content = (folder / name).read_bytes()
    return {"file": name, "sha256": hashlib.sha256(content).hexdigest()}


def _is_blind(pack: Pack, fault: str) -> bool:
    """Whether no image of the pack shows a mistake."""

    def stages(number: int) -> Stages:
        if fault != "labels":
            return prepare_by_runner(pack.pixels(number), pack.contract, fault)
        image = pack.images[number]
        decision = decide(pack.expected(number)["outputs"], pack.manifest, image, fault)
        return {"decision": decision} if decision else {}

    return verify(pack, stages).first is None
