import copy
import re
from dataclasses import replace

import numpy as np
import onnx as onnx_format
import pytest
from onnx import numpy_helper

from pocketvision.errors import ConfigurationError, ExportError
from pocketvision.exporting import onnx
from pocketvision.exporting.artifact import Artifact
from pocketvision.measuring.parity import check_parity, compare, failed_path, model_scores, parity
from pocketvision.measuring.runtimes import open_artifact, open_model
from pocketvision.zoo import model_spec


@pytest.mark.parametrize(
    ("name", "width"),
    [("mobilenet_v3_small", 0.5), ("mnasnet_small", 0.5), ("efficientnet_lite0", 0.35), ("mobileone_mu0", 1.0)],
)
def test_zoo_networks_compute_the_same_on_photos(make_model, photos, tmp_path, name, width):
    model = make_model(model_spec(name, width=width, classes=10, imgsz=photos.shape[1]))
    result = check_parity(onnx.export(model, out=tmp_path / f"{name}.onnx"), model, photos)
    assert result.compared > 15  # the rest are ties
    assert len(set(model_scores(model, photos).argmax(1))) > 1  # nor does it say the same of every photo
    assert result.max_error < 1e-4
    assert result.agreement == 1


def test_torch_session_computes_the_same(model, photos):
    result = compare(model_scores(model, photos), open_model(model)(photos))
    assert result.max_error < 1e-5
    assert result.holds


def spoil(artifact: Artifact, factor: float, axes: int = 4) -> None:
    """Scale one convolution's (or with two axes, the classifier's last) weights, as a converter with a bug might."""
    proto = onnx_format.load(artifact.path)
    *_, weight = [tensor for tensor in proto.graph.initializer if len(tensor.dims) == axes]
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(factor), weight.name))
    artifact.path.write_bytes(proto.SerializeToString())


@pytest.mark.parametrize("factor", [1.01, -1.0, float("nan")])
def test_broken_file_is_found_and_moved_away(artifact, model, photos, factor):
    content = artifact.path.read_bytes()
    assert check_parity(artifact, model, photos).holds
    assert artifact.path.read_bytes() == content
    spoil(artifact, factor)
    with pytest.raises(
        ExportError, match=r"max error of a score (\d|nan).*best class agrees on \d+ of \d+ images"
    ) as e:
        check_parity(artifact, model, photos)
    assert str(artifact.path) in str(e.value)
    assert str(failed_path(artifact.path)) in str(e.value)
    assert [path.name for path in artifact.path.parent.iterdir()] == ["tiny.failed.onnx"]


@pytest.mark.parametrize(("factor", "is_refused"), [(1.01, False), (float("nan"), True), (-1.0, True)])
def test_fewer_bits_may_differ_but_not_say_something_else(artifact, model, photos, factor, is_refused):
    spoil(artifact, factor, axes=2)
    small = replace(artifact, precision="int8")
    if is_refused:
        with pytest.raises(ExportError, match="limits: 50% of the classes"):
            check_parity(small, model, photos)
    else:
        assert not check_parity(small, model, photos).holds
    assert artifact.path.exists() is not is_refused


def test_figures_of_a_broken_file_without_moving_it(artifact, model, photos):
    spoil(artifact, -1.0)
    result = parity(artifact, model, photos)
    expected, actual = model_scores(model, photos), open_artifact(artifact)(photos)
    assert result.max_error == pytest.approx(np.abs(expected - actual).max(), rel=1e-3)
    assert result.agreement < 1
    assert artifact.path.exists()


def test_scores_need_a_model_in_eval_mode_and_images(artifact, model, photos):
    with pytest.raises(ConfigurationError, match=re.escape("model.eval()")):
        parity(artifact, copy.deepcopy(model).train(), photos)
    with pytest.raises(ConfigurationError, match="at least one image"):
        parity(artifact, model, photos[:0])


def test_ties_are_left_out_but_nothing_else():
    expected = np.array([[0.5, 0.4999, 0.0001], [0.6, 0.4, 0.0], [0.001, 0.00101, 0.0005]])
    actual = np.array([[0.4999, 0.5, 0.0001], [0.6, 0.4, 0.0], [0.00101, 0.001, 0.0005]])
    result = compare(expected, actual)
    assert (result.n, result.compared, result.agreement) == (3, 2, 0.5)  # small scores may still be clear
    assert result.max_error == pytest.approx(1e-4)
    assert not result.holds


def test_error_limit_and_nan():
    expected = np.array([[0.9, 0.1]])
    assert compare(expected, expected + 0.0009).holds
    assert not compare(expected, expected + 0.0011).holds
    assert not compare(expected, np.array([[0.9, np.nan]])).holds
    assert not compare(expected * np.nan, expected).holds


def test_one_class():
    assert compare(np.ones((2, 1)), np.ones((2, 1))).holds
