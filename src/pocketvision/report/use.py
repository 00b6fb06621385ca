"""How an app feeds the exported file, in words and in Python without this package."""

import json

from ..spec.heads import task_of
from ..spec.model import ModelSpec
from .content import BuildReport


def preprocessing_steps(spec: ModelSpec) -> list[str]:
    """The preprocessing in words and numbers, for whoever writes the app."""
    p = spec.preprocessing
    after = list[str]()
    match task_of(spec.head):
        case "detect":
            after.append(
                f"Boxes come in pixels of that square: times width / {p.size} and height / {p.size} they are the "
                "photo's."
            )
        case "segment":
            after.append(
                "The file gives the class of each pixel of that square: enlarge it to the photo's size without "
                "mixing classes (nearest neighbour)."
            )
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (p.mean, p.std))
    how = f"{p.interpolation}, with antialiasing (as in Pillow; OpenCV's INTER_LINEAR has none)"
    inside = f"divide by 255, subtract the mean ({mean}), divide by the standard deviation ({std})"
    upright = "turn it upright by its EXIF orientation, put transparent parts on white, and make it RGB"
    if p.fit == "stretch":
        resized = [f"Resize all of it to {p.size} × {p.size} pixels, each side by itself: {how}."]
    else:
        resized = [
            f"Resize it to {p.resize} pixels on the short side, the long one in proportion (rounded): {how}.",
            f"Cut out the central {p.size} × {p.size} pixels.",
        ]
    return [
        f"Take a photo of 8 bits a channel (scale one of 16 bits to 8 first), {upright}.",
        *resized,
        f"Give these bytes to the exported file as uint8 [1, {p.size}, {p.size}, 3], and do nothing else to them.",
        f"The file itself scales and normalises: {inside}, in the order R, G, B.",
        *after,
    ]


def snippet(report: BuildReport) -> str:
    """The same preprocessing and one prediction, in Python without this package."""
    p = report.spec.preprocessing
    file, name = map(json.dumps, (report.artifact.path.name, report.artifact.input.name))
    values = {"size": p.size, "resize": p.resize, "how": p.interpolation.upper(), "file": file, "input": name}
    ends = {"classify": _SCORES, "detect": _BOXES, "segment": _CLASSES}
    return (_BEGIN + ends[report.artifact.task]).format(**values)


_BEGIN = """\
import numpy as np, onnxruntime
from PIL import Image, ImageOps

photo = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGBA")  # 8 bits a channel
photo = Image.alpha_composite(Image.new("RGBA", photo.size, "white"), photo).convert("RGB")
"""
_SCORES = """\
sides = [round({resize} * side / min(photo.size)) for side in photo.size]
left, top = ((side - {size}) // 2 for side in sides)
photo = photo.resize(sides, Image.Resampling.{how})
photo = photo.crop((left, top, left + {size}, top + {size}))
session = onnxruntime.InferenceSession({file}, providers=["CPUExecutionProvider"])
scores = session.run(None, {{{input}: np.asarray(photo)[None]}})[0][0]  # one for each class, sum 1
labels = session.get_modelmeta().custom_metadata_map["labels"].split("\\n")
print(labels[scores.argmax()], scores.max())
"""
_BOXES = """\
scale, photo = np.tile(photo.size, 2) / {size}, photo.resize(({size}, {size}), Image.Resampling.{how})
session = onnxruntime.InferenceSession({file}, providers=["CPUExecutionProvider"])
boxes, scores, labels = session.run(None, {{{input}: np.asarray(photo)[None]}})  # best first
names = session.get_modelmeta().custom_metadata_map["labels"].split("\\n")
for box, score, label in zip((boxes * scale).round(), scores, labels):
    if score >= 0.25:
        print(names[label], score, *box)  # x1, y1, x2, y2 in pixels of the photo
"""
_CLASSES = """\
session = onnxruntime.InferenceSession({file}, providers=["CPUExecutionProvider"])
pixels = np.asarray(photo.resize(({size}, {size}), Image.Resampling.{how}))
classes = session.run(None, {{{input}: pixels[None]}})[0][0]  # of each pixel the number of its class, uint8
mask = Image.fromarray(classes).resize(photo.size, Image.Resampling.NEAREST)
mask.save("mask.png")
names = session.get_modelmeta().custom_metadata_map["labels"].split("\\n")
for name, pixels in zip(names, np.bincount(np.ravel(mask), minlength=len(names))):
    print(name, pixels / (mask.width * mask.height))  # its share of the photo
"""
