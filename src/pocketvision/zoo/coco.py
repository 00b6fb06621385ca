"""Published detectors trained on COCO: their networks, and where their weights are. No file is read here."""

import math
from collections.abc import Callable
from dataclasses import replace

from ..spec.detectors import Anchors, with_ssd
from ..spec.heads import Selection, SSDHead
from ..spec.model import ModelSpec
from ..spec.transform import as_folded, with_backbone, with_padding
from .catalogue import APACHE, BSD, HALF, Entry
from .mobilenet_v2 import mobilenet_v2
from .mobilenet_v3 import mobilenet_v3_large

# COCO's categories by number, from 1 on; ten numbers have none
NAMES = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,N/A,stop sign,"
    "parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,N/A,backpack,umbrella,N/A,N/A,"
    "handbag,tie,suitcase,frisbee,skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,"
    "tennis racket,bottle,N/A,wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,"
    "hot dog,pizza,donut,cake,chair,couch,potted plant,bed,N/A,dining table,N/A,N/A,toilet,N/A,tv,laptop,mouse,remote,"
    "keyboard,cell phone,microwave,oven,toaster,sink,refrigerator,N/A,book,clock,vase,scissors,teddy bear,hair drier,"
    "toothbrush"
)
CATEGORIES = tuple(NAMES.split(","))
USED = tuple(number for number, name in enumerate(CATEGORIES, 1) if name != "N/A")
LABELS = tuple(CATEGORIES[number - 1] for number in USED)


def ssdlite320_mobilenet_v3_large() -> ModelSpec:
    """torchvision's: 3,440,060 parameters, 0.583 G multiply-adds, 90 classes of which ten do not exist (FACTS H10)."""
    spec = with_ssd(mobilenet_v3_large(), CATEGORIES, halved="torchvision")
    spec = with_backbone(spec, bn_momentum=0.03)
    p = spec.preprocessing
    return replace(spec, preprocessing=replace(p, mean=HALF.mean, std=HALF.std))


def ssdlite_mobilenet_v2_coco() -> ModelSpec:
    """TensorFlow's ssdlite_mobilenet_v2_coco in deploy form: 300 pixels, its own padding, anchors and sigmoid scores.

    The columns of the ten numbers without a category are left out, which changes nothing with sigmoids.
    """
    spec = with_ssd(mobilenet_v2(), LABELS, size=300, anchors=tensorflow_anchors())
    assert isinstance(spec.head, SSDHead)
    head = replace(spec.head, scores="sigmoid", selection=Selection(iou=0.6, candidates=100, most=100))
    p = replace(spec.preprocessing, mean=HALF.mean, std=HALF.std)
    spec = with_backbone(with_padding(replace(spec, head=head, preprocessing=p), "same"), bn_eps=1e-3)
    return as_folded(spec)


def tensorflow_anchors() -> Anchors:
    """Six maps with scales from 0.2 to 0.95 as the paper has them, but only three boxes, one of them smaller, on the
    finest."""
    scales = [0.2 + 0.15 * index for index in range(6)] + [1.0]

    def box(scale: float, ratio: float) -> tuple[float, float]:
        return scale * math.sqrt(ratio), scale / math.sqrt(ratio)

    maps: list[tuple[tuple[float, float], ...]] = [(box(0.1, 1), box(0.2, 2), box(0.2, 0.5))]
    for index in range(1, 6):
        boxes = [box(scales[index], ratio) for ratio in (1, 2, 0.5, 3, 1 / 3)]
        maps.append((*boxes, box(math.sqrt(scales[index] * scales[index + 1]), 1)))
    return tuple(maps)


DETECTORS: dict[str, Callable[[], ModelSpec]] = {
    "ssdlite320_mobilenet_v3_large": ssdlite320_mobilenet_v3_large,
    "ssdlite_mobilenet_v2_coco": ssdlite_mobilenet_v2_coco,
}

COCO: tuple[Entry, ...] = (
    Entry(
        "ssdlite320_mobilenet_v3_large",
        "torchvision COCO_V1",
        BSD,
        None,
        ssdlite320_mobilenet_v3_large().preprocessing,
        "ssdlite320_mobilenet_v3_large_coco-a79551df.pth",
        "https://download.pytorch.org/models/ssdlite320_mobilenet_v3_large_coco-a79551df.pth",
        "a79551df",
        padding="symmetric",
        bn_eps=1e-3,
    ),
    Entry(
        "ssdlite_mobilenet_v2_coco",
        "TensorFlow's detection zoo, by way of tfjs coco-ssd 1.0.6",
        APACHE,
        None,
        ssdlite_mobilenet_v2_coco().preprocessing,
        "ssdlite_mobilenetv2_coco90_tf_fp16.safetensors",
        sha256="09ed08ec88d18d32a3ee04acb2ed11339c164e1b1cec24ccbcd982edf9d1a8a5",
        padding="same",
        bn_eps=1e-3,
        folded=True,
    ),
)
