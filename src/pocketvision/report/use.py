"""How an app feeds the exported file, in words and in Python without this package."""

import json

from ..spec.model import Preprocessing
from .content import BuildReport


def preprocessing_steps(p: Preprocessing) -> list[str]:
    """The preprocessing in words and numbers, for whoever writes the app."""
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (p.mean, p.std))
    resized = f"Resize it to {p.resize} pixels on the short side, the long one in proportion (rounded)"
    inside = f"divide by 255, subtract the mean ({mean}), divide by the standard deviation ({std})"
    upright = "turn it upright by its EXIF orientation, put transparent parts on white, and make it RGB"
    return [
        f"Take a photo of 8 bits a channel (scale one of 16 bits to 8 first), {upright}.",
        f"{resized}: {p.interpolation}, with antialiasing (as in Pillow; OpenCV's INTER_LINEAR has none).",
        f"Cut out the central {p.size} × {p.size} pixels.",
        f"Give these bytes to the exported file as uint8 [1, {p.size}, {p.size}, 3], and do nothing else to them.",
        f"The file itself scales and normalises: {inside}, in the order R, G, B.",
    ]


def snippet(report: BuildReport) -> str:
    """The same preprocessing and one prediction, in Python without this package."""
    p = report.spec.preprocessing
    file, name = map(json.dumps, (report.artifact.path.name, report.artifact.input.name))
    return f"""\
import numpy as np, onnxruntime
from PIL import Image, ImageOps

photo = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGBA")  # 8 bits a channel
photo = Image.alpha_composite(Image.new("RGBA", photo.size, "white"), photo).convert("RGB")
sides = [round({p.resize} * side / min(photo.size)) for side in photo.size]
left, top = ((side - {p.size}) // 2 for side in sides)
photo = photo.resize(sides, Image.Resampling.{p.interpolation.upper()})
photo = photo.crop((left, top, left + {p.size}, top + {p.size}))
session = onnxruntime.InferenceSession({file}, providers=["CPUExecutionProvider"])
scores = session.run(None, {{{name}: np.asarray(photo)[None]}})[0][0]  # one for each class, sum 1
labels = session.get_modelmeta().custom_metadata_map["labels"].split("\\n")
print(labels[scores.argmax()], scores.max())
"""
