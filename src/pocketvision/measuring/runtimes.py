"""One short adapter per runtime: an artifact or a model in, a callable on uint8 images out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ConfigurationError, ExportError, nearest

if TYPE_CHECKING:
    from ..exporting.artifact import Artifact
    from ..nn.model import Model


@dataclass(frozen=True, slots=True)
class Session:
    """A network ready to run: uint8 images [N, S, S, 3] (RGB) -> float32 scores [N, classes], which sum to 1."""

    runtime: str
    version: str
    threads: int
    image_shape: tuple[int, int, int]
    run: Callable[[np.ndarray], np.ndarray]

    def __call__(self, images: np.ndarray) -> np.ndarray:
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
    """A way to run networks: the package that carries it, the command that installs it, the file format it opens."""

    name: str
    package: str
    install: str
    format: str | None
    open: Callable[[Artifact, int], Session] | None

    def version(self) -> str | None:
        """The installed version, or None when it is not installed."""
        try:
            return metadata.version(self.package)
        except metadata.PackageNotFoundError:
            return None


def open_artifact(artifact: Artifact, *, threads: int = 1) -> Session:
    """The artifact, loaded into the runtime of its format with ``threads`` threads.

    Raises ConfigurationError when that runtime is not installed or threads is below 1, ExportError when the runtime
    cannot load the file.
    """
    check_threads(threads)
    openers = {runtime.format: runtime for runtime in RUNTIMES.values() if runtime.open}
    if artifact.format not in openers:
        raise ConfigurationError(
            f"no runtime opens the format {artifact.format!r}; {nearest(artifact.format, openers)}"
        )
    runtime = openers[artifact.format]
    if runtime.version() is None:
        raise ConfigurationError(f"{artifact.path} needs {runtime.name}, which is not installed: {runtime.install}")
    assert runtime.open is not None
    return runtime.open(artifact, threads)


def open_model(model: Model, *, threads: int = 1) -> Session:
    """A model (eval mode) in torch: folded on a copy, channels-last, on the CPU, with ``threads`` threads in each call.

    Raises ConfigurationError for a model in train mode or threads below 1.
    """
    import torch

    from ..nn.fold import fold
    from ..nn.layers import Normalize

    check_threads(threads)
    preprocessing = model.spec.preprocessing
    network = torch.nn.Sequential(Normalize(preprocessing), fold(model).float(), torch.nn.Softmax(1))
    network = network.cpu().eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(images: np.ndarray) -> np.ndarray:
        writable = images if images.flags.writeable else images.copy()
        with _torch_threads(threads), torch.inference_mode():
            return network(torch.from_numpy(writable).permute(0, 3, 1, 2)).numpy()

    return Session("torch", torch.__version__, threads, (preprocessing.size, preprocessing.size, 3), run)


def _open_onnx(artifact: Artifact, threads: int) -> Session:
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
    feed, fetch = artifact.input.name, [artifact.output.name]

    def run(images: np.ndarray) -> np.ndarray:
        return np.asarray(session.run(fetch, {feed: images})[0])

    return Session("onnxruntime", onnxruntime.__version__, threads, artifact.image_shape, run)


RUNTIMES: dict[str, Runtime] = {
    runtime.name: runtime
    for runtime in (
        Runtime("torch", "torch", "pip install torch torchvision", None, None),
        Runtime("onnxruntime", "onnxruntime", "pip install onnxruntime", "onnx", _open_onnx),
    )
}


def check_threads(threads: int) -> None:
    """Raise ConfigurationError unless ``threads`` is a whole number of 1 or more."""
    if not isinstance(threads, int) or threads < 1:
        raise ConfigurationError(f"threads={threads!r} must be a whole number of 1 or more; nearest valid: 1")


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
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
