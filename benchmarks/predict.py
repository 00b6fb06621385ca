"""Images per second from JPEG files to labels: ours beside timm's loader and model and torchvision's, on all cores.

    python benchmarks/predict.py FOLDER [--images 512] [--rounds 3]

All three label the same files with a MobileNetV3-Small at 224 pixels (random weights: the time does not depend on
them). The contestants take turns; the best round of each counts, because other work on the machine only ever slows one
down. Writes benchmarks/results/predict.json.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch

from pocketvision.app.predict import predict_files
from pocketvision.data.image import SUFFIXES
from pocketvision.exporting.onnx import export
from pocketvision.measuring.machine import load_average, this_machine
from pocketvision.nn.model import build
from pocketvision.zoo import model_spec

RESULTS = Path(__file__).parent / "results" / "predict.json"
BATCH = 32


def ours(files: list[str], folder: Path) -> Callable[[], int]:
    """``pocketvision predict``: every thread decodes, prepares and runs ONNX Runtime on its own images."""
    artifact = export(build(model_spec("mobilenet_v3_small")).eval(), out=folder / "model.onnx")
    return lambda: sum(1 for _ in predict_files(artifact, list(files)))


def timm_loader(files: list[str]) -> Callable[[], int]:
    """timm's dataset, loader (a worker process per core) and model."""
    import timm
    from timm.data.config import resolve_data_config
    from timm.data.loader import create_loader
    from torch.utils.data import Dataset

    model = timm.create_model("mobilenetv3_small_100", pretrained=False).eval()
    config = resolve_data_config({}, model=model)

    class Files(Dataset):
        transform = None

        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, index: int):
            from PIL import Image

            assert self.transform is not None
            return self.transform(Image.open(files[index]).convert("RGB")), 0

    def run() -> int:
        loader = create_loader(
            Files(),  # pyright: ignore[reportArgumentType]  (it takes any dataset with a transform)
            config["input_size"],
            BATCH,
            use_prefetcher=False,
            num_workers=this_machine().cores,
            crop_pct=config["crop_pct"],
            mean=config["mean"],
            std=config["std"],
        )
        with torch.inference_mode():
            return sum(len(model(images).argmax(1)) for images, _ in loader)

    return run


def torchvision_batches(files: list[str]) -> Callable[[], int]:
    """torchvision's decoder, transforms of the weights, and model, in batches of 32."""
    from torchvision.io import ImageReadMode, decode_image
    from torchvision.models import MobileNet_V3_Small_Weights, mobilenet_v3_small

    model = mobilenet_v3_small().eval()
    transforms = MobileNet_V3_Small_Weights.IMAGENET1K_V1.transforms()

    def run() -> int:
        count = 0
        with torch.inference_mode():
            for start in range(0, len(files), BATCH):
                chunk = files[start : start + BATCH]
                images = torch.stack([transforms(decode_image(file, ImageReadMode.RGB)) for file in chunk])
                count += len(model(images).argmax(1))
        return count

    return run


def main() -> None:
    """Run the rounds, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    files = sorted(str(file) for file in arguments.folder.rglob("*") if file.suffix.lower() in SUFFIXES)
    files = files[:: max(1, len(files) // arguments.images)][: arguments.images]
    with tempfile.TemporaryDirectory() as folder:
        contestants = {
            "pocketvision": ours(files, Path(folder)),
            "timm": timm_loader(files),
            "torchvision": torchvision_batches(files),
        }
        best = dict.fromkeys(contestants, 0.0)
        load = load_average()
        for turn in range(arguments.rounds):
            for name, run in contestants.items():
                start = time.perf_counter()
                assert run() == len(files)
                rate = len(files) / (time.perf_counter() - start)
                best[name] = max(best[name], rate)
                print(f"round {turn + 1}: {name:14} {rate:7.1f} images/s", flush=True)
    result = {
        "images_per_second": {name: round(rate, 1) for name, rate in best.items()},
        "ratio_to_timm": round(best["pocketvision"] / best["timm"], 2),
        "ratio_to_torchvision": round(best["pocketvision"] / best["torchvision"], 2),
        "images": len(files),
        "rounds": arguments.rounds,
        "machine": this_machine().to_dict(),
        "load_before": load,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result["images_per_second"]), RESULTS)


if __name__ == "__main__":
    main()
