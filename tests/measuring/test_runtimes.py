import re

import numpy as np
import pytest
import torch

from pocketvision.errors import ConfigurationError, ExportError
from pocketvision.measuring import runtimes
from pocketvision.measuring.runtimes import ALWAYS_THERE, RUNTIMES, Runtime, open_artifact, open_model
from pocketvision.nn.layers import Normalize


@pytest.fixture(params=["onnxruntime", "torch"])
def session(request, exported, model):
    return open_artifact(exported) if request.param == "onnxruntime" else open_model(model)


def test_scores(session, photos):
    scores = session(photos)
    assert (scores.shape, scores.dtype) == ((20, 5), np.float32)
    np.testing.assert_allclose(scores.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(session(photos[3:4]), scores[3:4], atol=1e-6)


def test_read_only_images(session, photos):
    frozen = photos[:1].copy()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(session(frozen), session(photos[:1]))


@pytest.mark.parametrize("wrong", ["float", "CHW", "single image", "size"])
def test_other_images_are_refused(session, photos, wrong):
    images = {
        "float": photos.astype(np.float32),
        "CHW": photos.transpose(0, 3, 1, 2),
        "single image": photos[0],
        "size": photos[:, 1:],
    }[wrong]
    with pytest.raises(ConfigurationError, match=re.escape(f"[N, 64, 64, 3], not {images.dtype} {list(images.shape)}")):
        session(images)


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2"])
def test_wrong_threads(exported, model, threads):
    with pytest.raises(ConfigurationError, match="nearest valid: 1"):
        open_artifact(exported, threads=threads)
    with pytest.raises(ConfigurationError, match="nearest valid: 1"):
        open_model(model, threads=threads)


def test_threads_in_torch_hold_for_the_call_only(model, photos, monkeypatch):
    seen, before = list[int](), torch.get_num_threads()
    session = open_model(model, threads=before + 1)
    original = Normalize.forward
    monkeypatch.setattr(Normalize, "forward", lambda self, x: seen.append(torch.get_num_threads()) or original(self, x))
    session(photos[:1])
    assert seen == [before + 1]
    assert torch.get_num_threads() == before
    assert session.threads == before + 1


def test_file_that_the_runtime_cannot_load(artifact):
    artifact.path.write_bytes(b"not an ONNX file")
    with pytest.raises(ExportError, match=f"cannot load {re.escape(str(artifact.path))}"):
        open_artifact(artifact)


def test_runtime_that_is_not_installed(exported, monkeypatch):
    missing = Runtime("onnxruntime", "no-such-package", "pip install no-such-package", "onnx", runtimes._open_onnx)
    monkeypatch.setitem(RUNTIMES, "onnxruntime", missing)
    assert missing.version() is None
    with pytest.raises(ConfigurationError, match="not installed: pip install no-such-package"):
        open_artifact(exported)


def test_registry():
    assert {*ALWAYS_THERE, "litert", "executorch"} <= set(RUNTIMES)
    for name, runtime in RUNTIMES.items():
        assert runtime.name == name
        assert runtime.install.startswith("pip install ")
    version = RUNTIMES["torch"].version()
    assert version is not None
    assert torch.__version__.startswith(version)
