"""Programs of others read our files: MediaPipe Tasks, OpenCV, timm, torchvision."""

import importlib
import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from pocketvision.app.deploy import Exported, export
from pocketvision.errors import ConfigurationError, ExportError
from pocketvision.exporting.artifact import Artifact
from pocketvision.exporting.contract import outputs_of
from pocketvision.exporting.hub import write_hub
from pocketvision.exporting.peers import write_peer
from pocketvision.measuring.runtimes import open_artifact, open_file, open_segmenter
from pocketvision.nn.load import save_model
from pocketvision.nn.model import build
from pocketvision.spec.model import ModelSpec, from_data
from pocketvision.spec.transform import with_backbone, with_padding
from pocketvision.training.checkpoint import load_model
from pocketvision.zoo import model_spec


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


def test_opencv_finds_boxes(detector_file):
    """With the selection and NMS that are in the file. Networks with hard-sigmoid are wrong there: docs/clients.md."""
    cv2 = pytest.importorskip("cv2")
    net = cv2.dnn.readNetFromONNX(str(detector_file.path), cv2.dnn.ENGINE_NEW)
    for image in pictures(detector_file, 3):
        expected = open_file(detector_file)(image[None])
        net.setInput(np.ascontiguousarray(image[None]))
        boxes, scores, labels = net.forward([output.name for output in detector_file.outputs])
        assert len(expected[1]) > 3
        np.testing.assert_allclose(scores.ravel(), expected[1], atol=1e-5)
        np.testing.assert_allclose(boxes, expected[0], atol=1e-3)
        assert labels.ravel().tolist() == expected[2].tolist()


def test_mediapipe_is_said_to_lack_a_task(detector_file):
    file = replace(detector_file, format="litert", outputs=outputs_of("dense", 3, 96, 10))
    assert "MediaPipe's ObjectDetector cannot read these outputs" in str(Exported(file, None))
    assert "MediaPipe" not in str(Exported(detector_file, None))


def stirred(spec: ModelSpec):
    """Random weights, with running statistics and epsilons that matter; eval mode."""
    torch.manual_seed(0)
    model = build(spec)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
            module.momentum = None
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.1)
    with torch.no_grad():
        model.train()(torch.randn(2, 3, 64, 64))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_var.clamp_(min=0.05)
    return model.eval()


@pytest.mark.parametrize(
    ("peer", "spec"),
    [
        ("timm", model_spec("mobilenet_v2", classes=7)),
        ("timm", with_padding(with_backbone(model_spec("mobilenet_v3_small", classes=7), bn_eps=0.01), "same")),
        ("timm", model_spec("mobileone_s0", classes=7)),
        ("timm", model_spec("efficientnet_lite0", classes=7)),
        ("torchvision", model_spec("mobilenet_v2", width=0.5, classes=7)),
        ("torchvision", with_backbone(model_spec("mobilenet_v3_small", classes=7), bn_eps=0.01)),
        ("torchvision", model_spec("mnasnet_b1", width=0.5, classes=7)),
    ],
    ids=lambda value: value if isinstance(value, str) else value.backbone.name,
)
def test_peers_compute_the_same(peer, spec, tmp_path):
    """The line that the export prints makes their network, and it says what ours says."""
    model = stirred(spec)
    line = write_peer(model, peer, tmp_path / "theirs.safetensors")
    names: dict = {}
    exec(line, names)  # noqa: S102  this is what is tested
    theirs = names["model"]
    assert type(theirs).__module__.partition(".")[0] == peer and not theirs.training
    x_BCHW = torch.randn(2, 3, 65, 64)
    with torch.inference_mode():
        expected = model(x_BCHW)
        assert expected.std() > 0.01
        assert (theirs(x_BCHW) - expected).abs().max() <= 2e-5 * expected.abs().max()


def test_peers_lack_some_networks(model, detector, tmp_path):
    out = tmp_path / "theirs.safetensors"
    for network, peer, why in (
        (model, "timm", "timm has no tiny like this one: its rows"),
        (detector, "torchvision", "torchvision gets classifiers only, and this tiny has a SSDHead"),
        (build(model_spec("mobilenet_v2", width=0.35)), "timm", "no mobilenet_v2 like this one: .*its width"),
        (build(with_padding(model_spec("mobilenet_v2"), "same")), "torchvision", "TensorFlow's, which timm has"),
    ):
        with pytest.raises(ExportError, match=why):
            write_peer(network, peer, out)
    assert not out.exists()


def test_a_hub_folder_is_read_back(model, segmenter, tmp_path):
    for network, pipeline in ((model, "image-classification"), (segmenter, "image-segmentation")):
        folder = write_hub(network, tmp_path / pipeline)
        assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
        back = load_model(folder)
        assert back.spec == network.spec and not back.training
        for name, tensor in network.state_dict().items():
            assert torch.equal(back.state_dict()[name], tensor)
        config = json.loads((folder / "config.json").read_text())
        assert from_data(config["spec"]) == network.spec
        assert list(config["id2label"].values()) == list(network.spec.labels)
        front_matter = (folder / "README.md").read_text().split("---\n")[1]
        assert yaml.safe_load(front_matter)["pipeline_tag"] == pipeline


def test_the_hub_reads_the_card(model, tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    card = hub.ModelCard.load(write_hub(model, tmp_path / "hub") / "README.md")
    assert card.data.library_name == "pocketvision" and "tiny" in card.data.tags


def test_export_to_all_of_them(tmp_path):
    weights = save_model(stirred(model_spec("mobilenet_v3_small", classes=2, imgsz=64)), tmp_path / "best.safetensors")
    result = export(weights, to=["hub", "timm", "torchvision"])
    assert [row["format"] for row in result.to_dict()["artifacts"]] == ["hub", "timm", "torchvision"]
    assert (tmp_path / "best.hub" / "config.json").is_file()
    assert (tmp_path / "best.timm.safetensors").is_file() and "timm.create_model" in str(result)
    again = export(tmp_path / "best.hub", to=["torchvision"])  # a Hub folder is a source
    assert Path(again.to_dict()["artifact"]).parent == tmp_path / "best.hub"
    with pytest.raises(ConfigurationError, match="hub has no int8 export; valid: float32"):
        export(weights, to=["hub"], precision="int8")
    with pytest.raises(ConfigurationError, match="web decides itself what comes out"):
        export(weights, to=["web"], outputs="dense")
    with pytest.raises(ConfigurationError, match=r"'webb' is unknown; did you mean 'web'\?"):
        export(weights, to=["webb"])
