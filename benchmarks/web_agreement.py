"""Do browsers and MediaPipe see what torch sees? The best class of every validation image of runs of classifiers.

    python benchmarks/web_agreement.py runs/classify/mobilenet_v2-1 ... --out benchmarks/results/web_agreement.json

Each run is exported with --to web; Chromium (headless) decodes, resizes and classifies the image files with the page's
own code. For MediaPipe the run is exported with --to litert, and its ImageClassifier gets the images that
``data.transforms.load_prepared`` made, because its own resize is another one.
"""

import argparse
import json
import subprocess
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from browser import chromium, reply_of

from pocketvision.app.deploy import export
from pocketvision.data.sources import load_split
from pocketvision.data.transforms import load_prepared
from pocketvision.exporting.web.onnxruntime_web import VERSION
from pocketvision.measuring.machine import this_machine
from pocketvision.measuring.parity import TIE, model_scores
from pocketvision.training.checkpoint import SPLIT, load_model

SCRIPT = """
import { load, pixelsOf } from "./vision.js";
const network = await load();
const rows = [];
for (let index = 0; index < COUNT; index++) {
  const blob = await (await fetch(`images/${index}`)).blob();
  const { classes, ms } = await network.look(await pixelsOf(blob));
  const scores = new Array(classes.length);
  for (const one of classes) scores[one.index] = one.score;
  rows.push({ scores, ms });
}
reply(rows);
"""


def agreement(expected: np.ndarray, actual: np.ndarray) -> dict[str, Any]:
    """How often the best class of two arrays of scores [N, classes] is the same, all images counted."""
    same = expected.argmax(1) == actual.argmax(1)
    second, best = np.sort(expected, 1)[:, -2:].T
    return {
        "n": len(expected),
        "same": int(same.sum()),
        "agreement": round(float(same.mean()), 5),
        "ties": int((best - second <= TIE * best).sum()),
        "largest_difference": round(float(np.abs(expected - actual).max()), 5),
        "mean_difference": round(float(np.abs(expected - actual).mean()), 7),
    }


def in_chromium(run: Path, images: list[Path], scratch: Path) -> tuple[np.ndarray, dict[str, float]]:
    """Scores, and the median milliseconds of the picture's preparation and of the network."""
    export(run, to=["web"], out=scratch / "web")
    files = {f"images/{index}": path for index, path in enumerate(images)}
    rows = reply_of(scratch / "web", SCRIPT.replace("COUNT", str(len(images))), files, seconds=900)
    names = ("prepare", "network")
    ms = {name: round(float(np.median([row["ms"][name] for row in rows])), 2) for name in names}
    return np.array([row["scores"] for row in rows]), ms


def in_mediapipe(run: Path, prepared: np.ndarray, scratch: Path) -> np.ndarray:
    """Scores of MediaPipe's ImageClassifier."""
    import mediapipe
    from mediapipe.tasks.python import vision
    from mediapipe.tasks.python.core.base_options import BaseOptions

    (artifact,) = export(run, to=["litert"], out=scratch / "model.tflite").artifacts
    options = vision.ImageClassifierOptions(base_options=BaseOptions(model_asset_path=str(artifact.path)))
    rows = list[list[float]]()
    with vision.ImageClassifier.create_from_options(options) as classifier:
        for pixels in prepared:
            image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=pixels)
            (found,) = classifier.classify(image).classifications
            score = {one.category_name: one.score for one in found.categories}
            rows.append([score[label] for label in artifact.labels])
    return np.array(rows)


def main() -> None:
    """Measure each run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/web_agreement.json"))
    arguments = parser.parse_args()
    program = chromium()
    assert program is not None, "chromium is not installed: apt-get install chromium"
    before = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    results: dict[str, Any] = before.get("results", {})
    for run in arguments.runs:
        model, images = load_model(run), [Path(item.image) for item in load_split(run / SPLIT).val]
        prepared = np.stack([load_prepared(image, model.spec.preprocessing) for image in images])
        expected = model_scores(model, prepared)
        with tempfile.TemporaryDirectory() as scratch:
            scores, ms = in_chromium(run, images, Path(scratch))
            chrome = agreement(expected, scores) | {"median_ms": ms}
            mediapipe = agreement(expected, in_mediapipe(run, prepared, Path(scratch)))
        results[model.spec.backbone.name] = {"chromium": chrome, "mediapipe": mediapipe}
        print(model.spec.backbone.name, json.dumps(results[model.spec.backbone.name]), flush=True)
    found = {
        "command": "python benchmarks/web_agreement.py RUNS",
        "data": "validation images of clothing10",
        "machine": this_machine().to_dict(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "chromium": subprocess.run(
                [program, "--version"], capture_output=True, text=True, check=True
            ).stdout.strip(),
            "onnxruntime-web": VERSION,
            **{name: version(name) for name in ("torch", "onnxruntime", "mediapipe", "ai-edge-litert")},
        },
        "results": results,
    }
    arguments.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
