"""The stages between an image and a decision, as a golden pack has them and as this program computes them."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

FAULTS = {
    "bgr": "red and blue are exchanged (BGR instead of RGB)",
    "no-antialias": "the resize has no antialiasing",
    "crop-first": "the image is cropped before it is resized",
    "mean": "the normalisation has other constants (mean, std or the scale of 1 / 255)",
    "layout": "the layout is transposed (NHWC and NCHW exchanged)",
    "labels": "labels are shifted by one",
}
PIXELS = ("decoded", "resized", "cropped", "input")  # stages of 8-bit pixels; the first is compared as a whole
STAGES = (*PIXELS, "normalised", "outputs", "decision")
CONSTANTS = (  # mean, std and scale that programs have, for the guess
    ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 1 / 255),
    ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 1 / 255),
    ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 1 / 255),
    ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 1.0),
    ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 1.0),
)
AGAIN = "export the run again with --golden"
ENDINGS = (".png", ".bin", ".json")  # of stage files
Stages = dict[str, Any]  # by name: arrays; "outputs": a list of arrays; "decision": a dictionary
Run = Callable[[Stages], list[np.ndarray]]


class PackError(Exception):
    """A pack or a stage file that cannot be used, and why."""


class Pack:
    """A golden pack: ``manifest``, and the expected result of every stage of every image."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            self.images: list[dict[str, Any]] = self.manifest["images"]
            self.contract: dict[str, Any] = self.manifest["contract"]
            self.tolerances: dict[str, Any] = self.manifest["tolerances"]
            self.labels: list[str] = self.manifest["labels"]
            if self.manifest["golden"] != 1:
                raise ValueError(f"version {self.manifest['golden']}")
            _check(self.manifest)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            cause = f"{error} is missing" if isinstance(error, KeyError) else error
            raise PackError(f"{folder / 'manifest.json'} is no manifest of a golden pack ({cause}); {AGAIN}") from None

    def bytes_of(self, file: dict[str, Any]) -> bytes:
        """A file that the manifest names. Raises PackError where it is missing or another one."""
        path = self.folder / file["file"]
        try:
            content = path.read_bytes()
        except OSError as error:
            raise PackError(f"{path} cannot be read ({error.strerror}); {AGAIN}") from None
        if hashlib.sha256(content).hexdigest() != file["sha256"]:
            raise PackError(f"{path} is not the file that manifest.json describes; {AGAIN}")
        return content

    def checked(self, model: Path) -> Path:
        """``model``, if it is the file whose pack this is. Raises PackError where it is not."""
        if not model.exists():
            raise PackError(f"{model} is not there; give the model with --model")
        if model.is_file() and hashlib.sha256(model.read_bytes()).hexdigest() != self.manifest["artifact"]["sha256"]:
            raise PackError(
                f"{model} is not the file whose pack {self.folder} is; export the model again with --golden"
            )
        return model

    def pixels(self, number: int) -> np.ndarray:
        """An image: uint8 [H, W, 3], RGB."""
        image = self.images[number]
        self.bytes_of(image)
        return read_pixels(self.folder / image["file"])

    def expected(self, number: int) -> Stages:
        """What each stage gives for an image."""
        image = self.images[number]
        stages: Stages = {"decoded": self.pixels(number)}
        for stage in ("resized", "cropped"):
            if stage in image:
                self.bytes_of(image[stage])
                stages[stage] = read_pixels(self.folder / image[stage]["file"])
        stages |= tensors(stages.get("cropped", stages["resized"]), self.contract, None)
        normalised = np.frombuffer(self.bytes_of(image["normalised"]), "<f4")
        stages["normalised"] = normalised.reshape(stages["normalised"].shape)
        stages["outputs"] = outputs_from(self.bytes_of(image["outputs"]), self.contract["outputs"])
        if image["decision"] is not None:
            stages["decision"] = image["decision"]
        return stages


def _check(manifest: Mapping[str, Any]) -> None:
    """Raises KeyError, TypeError, AttributeError or ValueError for a manifest without what is read of it later."""
    _has(manifest["artifact"], "file", "sha256")
    _has(manifest, "form", "size")
    _has(manifest["tolerances"], *STAGES)
    contract, labels = manifest["contract"], manifest["labels"]
    _has(contract["input"], "layout", "dtype")
    resize, *_, normalise = contract["preprocessing"]["steps"]
    _has(resize, "filter")
    _has(normalise, "mean", "std", "scale")
    for name, each in (("images", manifest["images"]), ("outputs", contract["outputs"]), ("labels", labels)):
        if not isinstance(each, list) or not each:
            raise ValueError(f"{name} is {each!r}, no list of some")
    for output in contract["outputs"]:
        _has(output, "name", "dtype", "layout", "shape")
    if manifest["form"] in ("nms", "dense"):
        _has(manifest["selection"], "min_score")
        _has(manifest["tolerances"]["decision"], "score", "iou")
    for image in manifest["images"]:
        _has(image, "width", "height", "decision")
        for file in (image, image["resized"], image["normalised"], image["outputs"]):
            _has(file, "file", "sha256")
        told = image["decision"] or {}
        named = [*([told["label"]] if "label" in told else []), *told.get("shares", {})]
        for label in named + [box["label"] for box in told.get("boxes", [])]:
            if label not in labels:
                raise ValueError(f"{label!r} is none of the labels")


def _has(part: Mapping[str, Any], *names: str) -> None:
    for name in names:
        part[name]


def read_pixels(path: Path) -> np.ndarray:
    """An image file as uint8 [H, W, 3], RGB."""
    with Image.open(path) as picture:
        return np.array(picture.convert("RGB"))


def outputs_from(content: bytes, described: Sequence[Mapping[str, Any]]) -> list[np.ndarray]:
    """The arrays that lie one after the other in ``content``, for one image.

    Sizes that are free (None) are the same number, but the first: that is the batch of one.
    """
    shapes = [
        [1 if axis == "N" else side for axis, side in zip(d["layout"], d["shape"], strict=True)] for d in described
    ]
    types = [np.dtype(one["dtype"]).newbyteorder("<") for one in described]
    widths = [
        int(np.prod([side for side in shape if side is not None])) * kind.itemsize
        for shape, kind in zip(shapes, types, strict=True)
    ]
    free = sum(width for width, shape in zip(widths, shapes, strict=True) if None in shape)
    count = (len(content) - sum(widths) + free) // free if free else 0
    needed = sum(widths) + (count - 1) * free if free else sum(widths)
    if needed != len(content):
        raise PackError(f"{len(content)} bytes of outputs, where {needed} are expected")
    arrays, start = list[np.ndarray](), 0
    for kind, shape, width in zip(types, shapes, widths, strict=True):
        full = [count if s is None else s for s in shape]
        end = start + width * (count if None in shape else 1)
        arrays.append(np.frombuffer(content[start:end], kind).reshape(full))
        start = end
    return arrays


# The preprocessing


def prepare(pixels: np.ndarray, contract: Mapping[str, Any], fault: str | None = None) -> Stages:
    """Every stage up to what the model takes, from uint8 [H, W, 3], RGB; ``fault``: a mistake to make."""
    if fault == "bgr":
        pixels = pixels[:, :, ::-1]
    stages: Stages = {"decoded": pixels}
    resize, *more = contract["preprocessing"]["steps"]
    crop = more[0] if more[0]["step"] == "crop" else None
    height, width = pixels.shape[:2]
    short = min(height, width)
    if fault == "crop-first":
        top, left = (height - short) // 2, (width - short) // 2
        pixels, target = pixels[top : top + short, left : left + short], crop or resize
        size = (target["height"], target["width"])
    elif crop:
        size = (round(resize["short_side"] * height / short), round(resize["short_side"] * width / short))
    else:
        size = (resize["height"], resize["width"])
    stages["resized"] = resized(pixels, size, resize["filter"], fault != "no-antialias")
    if crop:
        stages["cropped"] = cropped(stages["resized"], crop["height"], crop["width"])
    return stages | tensors(stages.get("cropped", stages["resized"]), contract, fault)


def resized(pixels: np.ndarray, size: tuple[int, int], filter_name: str, antialias: bool = True) -> np.ndarray:
    """uint8 [H, W, 3] -> [*size, 3]. Pillow's resize has antialiasing, its transform has none."""
    picture, (height, width) = Image.fromarray(np.ascontiguousarray(pixels)), size
    how = Image.Resampling[filter_name.upper()]
    if antialias or (width >= picture.width and height >= picture.height):
        return np.array(picture.resize((width, height), how))
    steps = (picture.width / width, 0, 0, 0, picture.height / height, 0)
    assert how in (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)
    return np.array(picture.transform((width, height), Image.Transform.AFFINE, steps, how))


def cropped(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """The middle; offsets are rounded down."""
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]


def tensors(pixels: np.ndarray, contract: Mapping[str, Any], fault: str | None) -> Stages:
    """``normalised``, and before it ``input`` where the model takes pixels; without a batch, in the model's layout."""
    step = contract["preprocessing"]["steps"][-1]
    mean, std, scale = step["mean"], step["std"], step["scale"]
    if fault == "mean":
        mean, std, scale = next(c for c in CONSTANTS if not np.allclose([*c[0], *c[1]], [*mean, *std]))
    mean, std = np.array(mean, np.float32), np.array(std, np.float32)
    channels_first = contract["input"]["layout"].endswith("CHW")
    flip = fault == "layout"
    stages: Stages = {}
    if contract["input"]["dtype"] == "uint8":
        stages["input"] = _laid_out(pixels, channels_first, flip)
    normalised = ((pixels.astype(np.float32) * np.float32(scale) - mean) / std).astype(np.float32)
    stages["normalised"] = _laid_out(normalised, channels_first, flip)
    return stages


def _laid_out(pixels: np.ndarray, channels_first: bool, flip: bool) -> np.ndarray:
    first = pixels.transpose(2, 0, 1)
    shape = first.shape if channels_first else pixels.shape
    return np.ascontiguousarray(first if channels_first != flip else pixels).reshape(shape)


# What the outputs mean


def decide(
    outputs: Sequence[np.ndarray], manifest: Mapping[str, Any], image: Mapping[str, Any], fault: str | None = None
) -> dict[str, Any] | None:
    """What an app would show; None for raw outputs of a detector, which only the app decodes."""
    form, names = manifest["form"], manifest["labels"]
    if fault == "labels":
        names = [*names[-1:], *names[:-1]]
    if form == "scores":
        index = int(outputs[0][0].argmax())
        return {"label": names[index], "score": float(outputs[0][0][index])}
    if form in ("classes", "logits"):
        layout = manifest["contract"]["outputs"][0]["layout"]  # of logits NCHW, or NHWC
        classes = np.asarray(outputs[0] if form == "classes" else outputs[0].argmax(layout.index("C")))[0]
        shares = np.bincount(classes.ravel(), minlength=len(names)) / classes.size
        return {"shares": {names[i]: round(float(share), 6) for i, share in enumerate(shares) if share}}
    if form == "raw":
        return None
    boxes, scores, labels = found(outputs, form, manifest["selection"])
    x, y = (image[side] / manifest["size"] for side in ("width", "height"))
    told = zip(boxes.tolist(), scores.tolist(), labels.tolist(), strict=True)
    in_image = (x, y, x, y)
    return {"boxes": [{"label": names[n], "score": s, "box": [v * f for v, f in zip(b, in_image)]} for b, s, n in told]}  # noqa: B905


def found(
    outputs: Sequence[np.ndarray], form: str, selection: Mapping[str, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes [M, 4] in pixels of the input, scores [M] and labels [M] that score ``min_score``, best first."""
    least = selection["min_score"]
    if form == "nms":
        boxes, scores, labels = outputs
        keep = scores >= least
        return boxes[keep], scores[keep], labels[keep]
    boxes, scores = outputs[0][0], outputs[1][0]
    kept = list[tuple[float, int, int]]()
    for label in range(scores.shape[1]):
        best = [i for i in np.argsort(-scores[:, label], kind="stable") if scores[i, label] >= least]
        chosen = list[int]()
        for i in best[: int(selection["candidates"])]:
            if not chosen or iou(boxes[i], boxes[chosen]).max() <= selection["iou"]:
                chosen.append(i)
        kept += [(-float(scores[i, label]), label, i) for i in chosen]
    kept = sorted(kept)[: int(selection["most"])]
    places, labels = [i for _, _, i in kept], np.array([label for _, label, _ in kept], np.int64)
    return boxes[places], np.array([-s for s, _, _ in kept], np.float32), labels


def iou(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Overlap of one box [4] with each of [M, 4], 0 to 1."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    both = np.prod(np.clip(high - low, 0, None), axis=1)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) + np.prod(box[2:] - box[:2])
    return both / np.maximum(areas - both, 1e-9)


# Where stages come from


def own_stages(pack: Pack, run: Run | None, fault: str | None = None) -> Callable[[int], Stages]:
    """This program's own stages, up to the input where there is no model."""

    def stages(number: int) -> Stages:
        made = prepare(pack.pixels(number), pack.contract, fault)
        if run is not None:
            made["outputs"] = run(made)
            made["decision"] = decide(made["outputs"], pack.manifest, pack.images[number], fault)
        return made

    return stages


def stage_files(folder: Path, pack: Pack) -> Callable[[int], Stages]:
    """Stages that an app wrote: NUMBER.STAGE.png or .bin, NUMBER.decision.json. Raises PackError without any."""
    if not any((folder / f"{n}.{s}{e}").is_file() for n in range(len(pack.images)) for s in STAGES for e in ENDINGS):
        raise PackError(f"{folder} has no stage files, such as 0.resized.png, 0.normalised.bin or 0.outputs.bin")

    def stages(number: int) -> Stages:
        given: Stages = {}
        for stage in STAGES:
            png, raw, text = ((folder / f"{number}.{stage}{ending}") for ending in ENDINGS)
            try:
                if stage == "decision" and text.is_file():
                    given[stage] = dict(json.loads(text.read_text(encoding="utf-8")))
                elif png.is_file() and stage in PIXELS:
                    given[stage] = read_pixels(png)
                elif raw.is_file() and stage == "outputs":
                    given[stage] = outputs_from(raw.read_bytes(), pack.contract["outputs"])
                elif raw.is_file():
                    given[stage] = _array(raw.read_bytes(), stage, pack, number)
            except (OSError, ValueError, TypeError, PackError) as error:
                raise PackError(
                    f"{folder}: stage {stage} of image {number} cannot be read: {error}; write it again"
                ) from None
        return given

    return stages


def _array(content: bytes, stage: str, pack: Pack, number: int) -> np.ndarray:
    """Raw numbers in the shape of the stage, or in a row where they are not as many."""
    image, size = pack.images[number], pack.manifest["size"]
    is_float = stage == "normalised" and len(content) % 4 == 0
    array = np.frombuffer(content, "<f4" if is_float else "u1")
    square = (size, size, 3)
    if stage in ("input", "normalised"):
        shapes = [(3, size, size) if pack.contract["input"]["layout"].endswith("CHW") else square]
    else:
        of = image if stage == "decoded" else image[stage]
        shapes = [(of["height"], of["width"], 3), square]
    return next((array.reshape(shape) for shape in shapes if array.size == np.prod(shape)), array)


def write_stages(folder: Path, pack: Pack, actual: Callable[[int], Stages]) -> None:
    """Write stages as an app would for ``stage_files``."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(len(pack.images)):
        for stage, made in actual(number).items():
            if stage == "decision":
                (folder / f"{number}.decision.json").write_text(json.dumps(made), encoding="utf-8")
            elif stage in ("resized", "cropped"):
                Image.fromarray(np.ascontiguousarray(made)).save(folder / f"{number}.{stage}.png")
            else:
                arrays = made if stage == "outputs" else [made]
                (folder / f"{number}.{stage}.bin").write_bytes(b"".join(array.tobytes() for array in arrays))
