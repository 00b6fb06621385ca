"""One short adapter per runtime: an artifact or a model in, a callable on uint8 images out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from ..errors import ConfigurationError, ExportError
from ..spec.heads import FasterRCNNHead, SSDHead, TaskName, task_of

Answer = TypeVar("Answer")
Run = Callable[[np.ndarray], list[np.ndarray]]  # uint8 images -> a file's outputs, in their order

if TYPE_CHECKING:
    from ..exporting.artifact import Artifact
    from ..nn.model import Model
    from ..tasks.coco import Found


@dataclass(frozen=True, slots=True)
class Session(Generic[Answer]):
    """A network ready to run on uint8 images [N, S, S, 3] (RGB).

    A classifier's answers are float32 scores [N, classes], which sum to 1; a detector's a ``Found`` for each image; a
    segmenter's the class of each pixel, uint8 [N, S, S].
    """

    runtime: str
    version: str
    threads: int
    image_shape: tuple[int, int, int]
    run: Callable[[np.ndarray], Answer]

    def __call__(self, images: np.ndarray) -> Answer:
        """Raises ConfigurationError for images of another type or shape."""
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != self.image_shape:
            expected = ", ".join(map(str, self.image_shape))
            raise ConfigurationError(
                f"this network takes uint8 images [N, {expected}], not {images.dtype} {list(images.shape)}; "
                "data.transforms.prepare makes them"
            )
        return self.run(images)


@dataclass(frozen=True, slots=True)
class Runtime:
    """A way to run networks: the package that carries it, the command that installs it, the file format it opens.

    ``open`` takes the number of threads, and makes of uint8 images the file's outputs in their order.
    """

    name: str
    package: str
    install: str
    format: str | None
    open: Callable[[Artifact, int], Run] | None

    def version(self) -> str | None:
        """The installed version, or None when it is not installed."""
        try:
            return metadata.version(self.package)
        except metadata.PackageNotFoundError:
            return None


def open_artifact(artifact: Artifact, *, threads: int = 1) -> Session[np.ndarray]:
    """A classifier's file, loaded into the runtime of its format with ``threads`` threads.

    Raises ConfigurationError for a file of another task, when that runtime is not installed or threads is below 1,
    ExportError when the runtime cannot load the file.
    """
    _check_task(str(artifact.path), artifact.task, "classify")
    return _session(artifact, threads, lambda run, images: run(images)[0])


def open_detector(artifact: Artifact, *, threads: int = 1) -> Session[list[Found]]:
    """A detector's file of any form; boxes that the file itself does not select are selected here, in the same way.

    Errors as ``open_artifact``.
    """
    _check_task(str(artifact.path), artifact.task, "detect")
    return _session(artifact, threads, _selected(artifact))


def open_segmenter(artifact: Artifact, *, threads: int = 1) -> Session[np.ndarray]:
    """A segmenter's file of any form. Errors as ``open_artifact``."""
    _check_task(str(artifact.path), artifact.task, "segment")
    if artifact.form == "classes":
        return _session(artifact, threads, lambda run, images: run(images)[0])
    classes = artifact.outputs[0].layout.index("C")
    return _session(artifact, threads, lambda run, images: run(images)[0].argmax(classes).astype(np.uint8))


def open_file(artifact: Artifact, *, threads: int = 1) -> Session[list[np.ndarray]]:
    """Any file, with its outputs as they are: what is timed. Errors as ``open_artifact``."""
    return _session(artifact, threads, lambda run, images: list(run(images)))


def _session(artifact: Artifact, threads: int, answer: Callable[[Run, np.ndarray], Answer]) -> Session[Answer]:
    check_threads(threads)
    runtime = next((one for one in RUNTIMES.values() if one.open and one.format == artifact.format), None)
    if runtime is None or runtime.open is None:
        raise ConfigurationError(f"no runtime on this kind of machine opens {artifact.path} ({artifact.format})")
    version = runtime.version()
    if version is None:
        raise ConfigurationError(f"{artifact.path} needs {runtime.name}, which is not installed: {runtime.install}")
    run = runtime.open(artifact, threads)
    return Session(runtime.name, version, threads, artifact.image_shape, lambda images: answer(run, images))


def runtime_of(artifact: Artifact) -> Runtime | None:
    """The installed runtime that opens a file; None where there is none."""
    openers = (one for one in RUNTIMES.values() if one.open and one.format == artifact.format and one.version())
    return next(openers, None)


def _selected(artifact: Artifact) -> Callable[[Run, np.ndarray], list[Found]]:
    """How the outputs of a detector's file become what it found."""
    head, (height, width, _) = artifact.spec.head, artifact.image_shape
    assert isinstance(head, SSDHead | FasterRCNNHead)
    from ..tasks.coco import Found

    def each_alone(run: Run, images: np.ndarray) -> list[Found]:
        return [Found(*run(image[None])) for image in images]

    def of_every_anchor(run: Run, images: np.ndarray) -> list[Found]:
        import torch

        from ..nn.heads.ssd import SSDOutputs, decode, selected
        from ..tasks.detection import to_arrays

        first, second = map(torch.from_numpy, run(images))
        if artifact.form == "raw":
            assert isinstance(head, SSDHead)
            anchors = torch.tensor(artifact.anchors)
            first, second = decode(SSDOutputs(first, second, anchors, (height, width), head))
        return [to_arrays(selected(*image, head.selection)) for image in zip(first, second, strict=True)]

    return each_alone if artifact.form == "nms" else of_every_anchor


def open_model(model: Model, *, threads: int = 1) -> Session[np.ndarray]:
    """A classifier (eval mode) in torch: folded on a copy, channels-last, on the CPU, ``threads`` threads in each call.

    Raises ConfigurationError for a model of another task or in train mode, or threads below 1.
    """
    _check_task(f"this {model.spec.backbone.name}", task_of(model.spec.head), "classify")
    return _torch_session(model, threads, lambda logits: logits.softmax(1).numpy())


def open_model_detector(model: Model, *, threads: int = 1) -> Session[list[Found]]:
    """The same for a detector."""
    from ..tasks.detection import found_in, to_arrays

    _check_task(f"this {model.spec.backbone.name}", task_of(model.spec.head), "detect")
    return _torch_session(model, threads, lambda outputs: [to_arrays(found) for found in found_in(outputs)])


def open_model_segmenter(model: Model, *, threads: int = 1) -> Session[np.ndarray]:
    """The same for a segmenter."""
    _check_task(f"this {model.spec.backbone.name}", task_of(model.spec.head), "segment")
    return _torch_session(model, threads, lambda outputs: outputs.logits.argmax(1).byte().numpy())


def open_any_model(model: Model, *, threads: int = 1) -> Session[np.ndarray] | Session[list[Found]]:
    """One of the three, as the model is."""
    match task_of(model.spec.head):
        case "classify":
            return open_model(model, threads=threads)
        case "detect":
            return open_model_detector(model, threads=threads)
        case "segment":
            return open_model_segmenter(model, threads=threads)


def _check_task(what: str, task: TaskName, wanted: TaskName) -> None:
    nouns = {"classify": "a classifier", "detect": "a detector", "segment": "a segmenter"}
    if task != wanted:
        raise ConfigurationError(f"{what} is {nouns[task]}; {nouns[wanted]} is needed here")


def _torch_session(model: Model, threads: int, answer: Callable[[Any], Answer]) -> Session[Answer]:
    import torch

    from ..nn.fold import fold
    from ..nn.layers import Normalize

    check_threads(threads)
    preprocessing = model.spec.preprocessing
    network = torch.nn.Sequential(Normalize(preprocessing), fold(model).float())
    network = network.cpu().eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(images: np.ndarray) -> Answer:
        writable = images if images.flags.writeable else images.copy()
        with torch_threads(threads), torch.inference_mode():
            return answer(network(torch.from_numpy(writable).permute(0, 3, 1, 2)))

    return Session("torch", torch.__version__, threads, (preprocessing.size, preprocessing.size, 3), run)


def _open_onnx(artifact: Artifact, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # threads that spin while they wait take the processor from whatever is measured next
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(artifact.path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - onnxruntime's exceptions have no other common base
        raise ExportError(f"ONNX Runtime cannot load {artifact.path}: {error}; export the model again") from None
    feed, fetch = artifact.input.name, [output.name for output in artifact.outputs]
    return lambda images: session.run(fetch, {feed: images})  # type: ignore[return-value]  (no sparse tensors here)


def _open_litert(artifact: Artifact, threads: int) -> Run:
    from ..exporting.litert import open_file

    return open_file(artifact.path.read_bytes(), threads)


def _open_executorch(artifact: Artifact, threads: int) -> Run:
    from ..exporting.executorch import open_file

    return open_file(artifact.path.read_bytes(), threads)


def _open_openvino(artifact: Artifact, threads: int) -> Run:
    from ..exporting.openvino import open_file

    xml, weights = (file.read_bytes() for file in artifact.files)
    return open_file(xml, weights, threads)


def _open_ncnn(artifact: Artifact, threads: int) -> Run:
    from ..exporting.ncnn import open_file

    param, weights = (file.read_bytes() for file in artifact.files)
    return open_file(param, weights, threads)


RUNTIMES: dict[str, Runtime] = {
    runtime.name: runtime
    for runtime in (
        Runtime("torch", "torch", "pip install torch torchvision", None, None),
        Runtime("onnxruntime", "onnxruntime", "pip install onnxruntime", "onnx", _open_onnx),
        Runtime("litert", "ai-edge-litert", 'pip install "pocketvision[litert]"', "litert", _open_litert),
        Runtime("executorch", "executorch", 'pip install "pocketvision[executorch]"', "executorch", _open_executorch),
        Runtime("openvino", "openvino", 'pip install "pocketvision[openvino]"', "openvino", _open_openvino),
        Runtime("ncnn", "ncnn", 'pip install "pocketvision[ncnn]"', "ncnn", _open_ncnn),
    )
}

ALWAYS_THERE = ("torch", "onnxruntime")  # what a network is built for and measured in that is no other file yet


def check_threads(threads: int) -> None:
    """Raise ConfigurationError unless ``threads`` is a whole number of 1 or more."""
    if not isinstance(threads, int) or threads < 1:
        raise ConfigurationError(f"threads={threads!r} must be a whole number of 1 or more; nearest valid: 1")


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """torch's thread count is global to the process: set for one call, then put back."""
    import torch

    before = torch.get_num_threads()
    if before == threads:
        yield
        return
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
