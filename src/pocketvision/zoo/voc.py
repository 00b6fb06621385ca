"""Published segmenters of Pascal VOC's classes: their networks, and where their weights are. No file is read here."""

from collections.abc import Callable
from dataclasses import replace

from ..spec.heads import DeepLabV3Head
from ..spec.model import ModelSpec
from ..spec.segmentation import with_deeplabv3, with_lraspp, with_raspp
from ..spec.transform import as_folded, dilated, with_padding
from .catalogue import APACHE, BSD, HALF, Entry
from .mobilenet_v2 import mobilenet_v2
from .mobilenet_v3 import mobilenet_v3_large

NAMES = (
    "background,aeroplane,bicycle,bird,boat,bottle,bus,car,cat,chair,cow,diningtable,dog,horse,motorbike,person,"
    "pottedplant,sheep,sofa,train,tvmonitor"
)
LABELS = tuple(NAMES.split(","))


def lraspp_mobilenet_v3_large() -> ModelSpec:
    """torchvision's: 3,221,538 parameters (FACTS H18); 57.9 mIoU on COCO's images with VOC's classes (H27)."""
    return with_lraspp(mobilenet_v3_large(), LABELS, size=520)


def deeplabv3_mobilenet_v3_large() -> ModelSpec:
    """torchvision's: 11,029,328 parameters with the auxiliary head (FACTS H20); 60.3 mIoU (H27)."""
    spec = with_deeplabv3(mobilenet_v3_large(), LABELS, size=520, rates=(12, 24, 36), refined=True)
    assert isinstance(spec.head, DeepLabV3Head)
    return replace(spec, head=replace(spec.head, dropout=0.5))


def deeplabv3_mobilenet_v2_voc() -> ModelSpec:
    """TensorFlow's in deploy form, without atrous branches (FACTS H25): 513 pixels, its own padding, the first block of
    the last stage not dilated, corners aligned."""
    spec = dilated(with_padding(mobilenet_v2(), "same"), dilate_first=False)
    spec = with_raspp(replace(spec, preprocessing=HALF), LABELS, size=513)
    assert isinstance(spec.head, DeepLabV3Head)
    return as_folded(replace(spec, head=replace(spec.head, align_corners=True)))


SEGMENTERS: dict[str, Callable[[], ModelSpec]] = {
    "lraspp_mobilenet_v3_large": lraspp_mobilenet_v3_large,
    "deeplabv3_mobilenet_v3_large": deeplabv3_mobilenet_v3_large,
    "deeplabv3_mobilenet_v2_voc": deeplabv3_mobilenet_v2_voc,
}


def _torchvision(model: str, file: str, sha256: str) -> Entry:
    url = f"https://download.pytorch.org/models/{file}"
    source, preprocessing = "torchvision COCO_WITH_VOC_LABELS_V1", SEGMENTERS[model]().preprocessing
    return Entry(model, source, BSD, None, preprocessing, file, url, sha256, bn_eps=1e-3)


VOC: tuple[Entry, ...] = (
    _torchvision("lraspp_mobilenet_v3_large", "lraspp_mobilenet_v3_large-d234d4ea.pth", "d234d4ea"),
    _torchvision("deeplabv3_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large-fc3c493d.pth", "fc3c493d"),
    Entry(
        "deeplabv3_mobilenet_v2_voc",
        "TensorFlow's DeepLab, by way of max-image-segmenter 0.3.0",
        APACHE,
        None,
        deeplabv3_mobilenet_v2_voc().preprocessing,
        "deeplabv3_mobilenetv2_voc21_tf_fp16.safetensors",
        sha256="df211a192db84892cdb058c555ace902aeb3f5599a38dcfc252262470fd229f1",
        padding="same",
        folded=True,
    ),
)
