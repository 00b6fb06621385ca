"""The catalogue says of published weights what their publishers say."""

import re

import pytest
from torchvision import models

from pocketvision.spec.transform import as_folded, dilated, with_activation, with_classes, with_hidden, with_width
from pocketvision.zoo import MODELS, model_spec
from pocketvision.zoo.catalogue import CATALOGUE, Entry, same_weights

TORCHVISION = [entry for entry in CATALOGUE if entry.source.startswith("torchvision")]
TIMM = [entry for entry in CATALOGUE if entry.source.startswith("timm")]
TIMMS_NAMES = {
    "mobilenetv1_100.ra4_e3600_r224_in1k.safetensors": "mobilenetv1_100.ra4_e3600_r224_in1k",
    "mobilenetv2_100_ra-b33bc2c4.pth": "mobilenetv2_100.ra_in1k",
    "mobilenetv2_050-3d30d450.pth": "mobilenetv2_050.lamb_in1k",
    "mobilenetv2_140_ra-21a4e913.pth": "mobilenetv2_140.ra_in1k",
    "mnasnet_a1-d9418771.pth": "semnasnet_100.rmsp_in1k",
    "semnasnet_075-18710866.pth": "semnasnet_075.rmsp_in1k",
    "mnasnet_b1-74cb7081.pth": "mnasnet_100.rmsp_in1k",
    "mnasnet_small_lamb-aff75073.pth": "mnasnet_small.lamb_in1k",
    "mobilenetv3_large_100_ra-f55367f5.pth": "mobilenetv3_large_100.ra_in1k",
    "mobilenetv3_small_100_lamb-266a294c.pth": "mobilenetv3_small_100.lamb_in1k",
    "tf_efficientnet_lite0-0aa007d2.pth": "tf_efficientnet_lite0.in1k",
    "efficientnet_lite0_ra-37913777.pth": "efficientnet_lite0.ra_in1k",
}


def test_torchvisions_own_list():
    families = ("MobileNet_V2", "MobileNet_V3_Large", "MobileNet_V3_Small", "MNASNet")
    names = [name for name in dir(models) if name.endswith("_Weights") and name.startswith(families)]
    published = {weights.url: weights for name in names for weights in getattr(models, name)}
    assert {entry.url for entry in TORCHVISION} == published.keys()
    for entry in TORCHVISION:
        weights, p = published[entry.url], entry.preprocessing
        transform = weights.transforms()
        assert entry.top1 == weights.meta["_metrics"]["ImageNet-1K"]["acc@1"]
        assert [p.resize, p.size] == [*transform.resize_size, *transform.crop_size]
        assert [p.mean, p.std] == [tuple(transform.mean), tuple(transform.std)]
        assert p.interpolation == transform.interpolation.value
        assert entry.source.endswith(weights.name)


@pytest.mark.parametrize("entry", TIMM, ids=lambda entry: entry.file)
def test_timms_own_list(entry: Entry):
    from timm.models import get_pretrained_cfg

    name, p = TIMMS_NAMES[entry.file], entry.preprocessing
    published = get_pretrained_cfg(name)
    assert published is not None
    if published.url:
        assert entry.url.rpartition("/")[2] == published.url.rpartition("/")[2] == entry.file
    else:
        assert f"/{published.hf_hub_id}/" in entry.url
    assert (p.mean, p.std, p.interpolation) == (published.mean, published.std, published.interpolation)
    assert p.size == published.input_size[1]
    assert p.resize == p.size / published.crop_pct
    assert published.license == "apache-2.0"


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: entry.file)
def test_every_entry_is_complete(entry: Entry):
    assert entry.model in MODELS
    assert entry.spec().preprocessing == entry.preprocessing
    assert entry.licence
    assert entry.url.startswith("https://") or not entry.url
    for sha256 in (entry.sha256, *entry.copies):
        assert re.fullmatch(r"[0-9a-f]{8,64}|", sha256)
    if found := re.search(r"-([0-9a-f]{8,10})\.pth", entry.file):
        assert entry.sha256.startswith(found[1])


def test_shared_files_are_catalogued(shared):
    known = {sha256 for entry in CATALOGUE for sha256 in (entry.sha256, *entry.copies)}
    sums = (shared / "data" / "weights" / "SHA256SUMS").read_text().splitlines()
    classifiers = [line.split() for line in sums if "_imagenet" in line]
    assert len(classifiers) == 4
    assert {sha256 for sha256, _ in classifiers} <= known


def test_which_networks_weights_fit():
    spec = model_spec("mobilenet_v3_large")
    for same in (with_classes(spec, 3), dilated(spec), with_activation(spec, "relu"), as_folded(spec)):
        assert same_weights(spec, same)
    for other in (with_width(spec, 0.75), with_hidden(spec, 1024), model_spec("mobilenet_v3_small")):
        assert not same_weights(spec, other)
