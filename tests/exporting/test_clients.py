"""Programs of others read our files: MediaPipe Tasks, OpenCV, timm, torchvision."""

import importlib
import importlib.util

import numpy as np
import pytest
import torch
from torch import nn

from pocketvision.exporting.artifact import Artifact
from pocketvision.measuring.runtimes import open_artifact, open_segmenter


def pictures(model, count: int = 6) -> np.ndarray:
    """Smooth, so that neighbouring pixels are alike as in photos."""
    size = model.spec.preprocessing.size
    small = torch.rand(count, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    large = nn.functional.interpolate(small, (size, size), mode="bicubic").clamp(0, 1)
    return (255 * large).permute(0, 2, 3, 1).round().to(torch.uint8).numpy()


@pytest.fixture(scope="module")
def litert():
    pytest.importorskip("litert_torch")
    return importlib.import_module("pocketvision.exporting.litert")


@pytest.fixture(scope="module")
def vision():
    if importlib.util.find_spec("mediapipe") is None:
        pytest.skip("mediapipe is not installed")
    return importlib.import_module("mediapipe.tasks.python.vision")


def mediapipe_image(image: np.ndarray):
    import mediapipe

    return mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(image))


def base(file: Artifact):
    from mediapipe.tasks.python.core.base_options import BaseOptions

    return BaseOptions(model_asset_path=str(file.path))


def test_mediapipe_classifies(litert, vision, model, tmp_path):
    images = pictures(model)
    for precision, calibration in (("float32", None), ("int8", pictures(model, 16))):
        out = tmp_path / f"{precision}.tflite"
        file = litert.export(model, precision=precision, calibration=calibration, out=out)
        options = vision.ImageClassifierOptions(base_options=base(file))
        expected = open_artifact(Artifact.load(out))(images)
        with vision.ImageClassifier.create_from_options(options) as classifier:
            for image, scores in zip(images, expected, strict=True):
                (found,) = classifier.classify(mediapipe_image(image)).classifications
                told = {each.category_name: each.score for each in found.categories}
                assert told == pytest.approx(dict(zip(file.labels, map(float, scores), strict=True)), abs=1e-6)
        assert len(set(expected.argmax(1))) > 1 or expected.std(0).min() > 1e-3


def test_mediapipe_segments(litert, vision, segmenter, tmp_path):
    images = pictures(segmenter, 3)
    file = litert.export(segmenter, form="logits", out=tmp_path / "tiny.tflite")
    options = vision.ImageSegmenterOptions(base_options=base(file), output_category_mask=True)
    with vision.ImageSegmenter.create_from_options(options) as client:
        assert tuple(client.labels) == file.labels
        for image, expected in zip(images, open_segmenter(file)(images), strict=True):
            found = client.segment(mediapipe_image(image))
            assert (found.category_mask.numpy_view().squeeze() == expected).mean() > 0.999
            confidence = np.stack([mask.numpy_view().squeeze() for mask in found.confidence_masks])
            np.testing.assert_allclose(confidence.sum(0), 1, atol=1e-3)
    assert len(np.unique(expected)) > 1
