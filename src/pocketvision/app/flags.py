"""Arguments and options that several commands have."""

from pathlib import Path
from typing import Annotated, Literal

import typer

Data = Annotated[
    str,
    typer.Argument(help="Folder of class folders, of boxes or of masks, a CSV, or sample:NAME"),
]
Source = Annotated[str, typer.Argument(help="A run folder, an exported file, or a weights file")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output")]
Weights = Annotated[str, typer.Option(help="auto, imagenet, none, or a weights file")]
Size = Annotated[int | None, typer.Option("--imgsz", "--img-size", help="Side of the network's input in pixels")]
Recipe = Annotated[str, typer.Option(help="auto (by the weights), a name (docs/recipes.md), or a YAML file of fields")]
Settings = Annotated[
    list[str], typer.Option("--set", help="FIELD=VALUE of the recipe, such as ema=0.99; may be given again")
]
Teachers = Annotated[
    list[Path], typer.Option(help="A run or weights file of the same classes to learn from; may be given again")
]
Epochs = Annotated[int | None, typer.Option(help="Passes over the training images")]
Batch = Annotated[int | None, typer.Option("--batch", "--batch-size", "-b", help="Images per step")]
Rate = Annotated[float | None, typer.Option("--lr", "--lr0", help="Highest learning rate")]
Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="cpu or cuda; auto takes cuda where there is one")]
Minutes = Annotated[float | None, typer.Option("--time", help="Limit for the training, in minutes")]
Seed = Annotated[int | None, typer.Option(help="Seed of every random choice")]
Workers = Annotated[int | None, typer.Option("--workers", "-j", help="Processes that load images")]
Project = Annotated[Path, typer.Option(help="Folder that run folders are made in")]
Name = Annotated[str | None, typer.Option(help="Name of the run folder")]
AllowLeak = Annotated[bool, typer.Option("--allow-leak", help="Train although splits share pictures")]
Threads = Annotated[int, typer.Option(help="Threads of the runtime")]
Runtime = Annotated[str, typer.Option(help="Runtime to measure and verify in: onnxruntime or torch")]
Width = Annotated[float, typer.Option(help="Width multiplier")]
Head = Annotated[
    Literal["auto", "classifier", "ssdlite", "ssd", "faster_rcnn", "lraspp", "raspp", "deeplabv3", "fcn"],
    typer.Option(help="What stands on the model; auto: what the data needs, ssdlite for boxes, lraspp for masks"),
]
OutputStride = Annotated[
    int | None, typer.Option(help="8, 16 (default) or 32: how far the backbone reduces images below a head for masks")
]
WidthRule = Annotated[
    Literal["torchvision", "paper"], typer.Option(help="How widths are rounded: torchvision or paper")
]
Task = Annotated[
    Literal["classify", "detect", "segment"] | None,
    typer.Option(help="What to look at where there are several; boxes come first, then masks"),
]
Qat = Annotated[Path | None, typer.Option(help="Train this finished run's network for int8; DATA is read from it")]
OF_QAT = (
    *("qat", "recipe", "settings", "teacher", "epochs", "batch", "lr", "time", "patience", "device", "workers"),
    *("seed", "project", "name", "as_json"),
)
Outputs = Annotated[
    Literal["nms", "dense", "raw", "classes", "logits"] | None,
    typer.Option(
        help="What the file gives. Of a detector, nms (default): the boxes found; dense: every anchor's box and "
        "scores, for an NMS of your own; raw: logits and box codes, for runtimes that decode themselves. Of a "
        "segmenter, classes (default): each pixel's class; logits: what it is chosen from"
    ),
]
MaxDrop = Annotated[
    float | None, typer.Option(help="With --int8: try remedies until it loses at most so many points of accuracy")
]
Targets = Annotated[
    list[str],
    typer.Option(
        help="onnx, litert, executorch, openvino, ncnn, coreml; web: a folder with a page that runs it; hub: a folder "
        "for Hugging Face's Hub; timm, torchvision: weights with their names; with commas, or given again"
    ),
]
