"""A folder for Hugging Face's Hub: weights, description and card, as ``training.checkpoint.load_model`` reads them."""

import json
from pathlib import Path

from ..errors import ExportError
from ..files import write_folder
from ..nn.load import save_model
from ..nn.model import Model
from ..spec.heads import task_of
from ..spec.model import ModelSpec, to_data
from ..training.checkpoint import HUB
from .contract import describe_input, steps_of

CONFIG, CARD = "config.json", "README.md"
PIPELINES = {"classify": "image-classification", "detect": "object-detection", "segment": "image-segmentation"}


def write_hub(model: Model, out: Path, *, card: Path | None = None) -> Path:
    """Write the folder ``out``: model.safetensors (with the network), config.json and README.md; whole or not at all.

    ``card``: the run's own model card, which then is the README. ``load_model(out)`` reads the folder; pushing it is
    ``huggingface_hub.upload_folder(repo_id=..., folder_path=out)``. Raises ExportError.
    """
    spec = model.spec

    def fill(folder: Path) -> None:
        save_model(model, folder / HUB)
        (folder / CONFIG).write_text(json.dumps(config_of(spec), indent=1, ensure_ascii=False) + "\n", "utf-8")
        (folder / CARD).write_text(card.read_text("utf-8") if card else card_of(spec), "utf-8")

    try:
        return write_folder(out, fill, sign=CONFIG)
    except OSError as error:
        raise ExportError(f"cannot write {out}: {error.strerror}; choose another place") from None


def config_of(spec: ModelSpec) -> dict[str, object]:
    """What config.json says: labels as the Hub's other libraries write them, the preprocessing, and the network."""
    names = spec.labels or tuple(f"LABEL_{index}" for index in range(spec.head.classes))
    return {
        "library_name": "pocketvision",
        "model_type": spec.backbone.name,
        "pipeline_tag": PIPELINES[task_of(spec.head)],
        "num_labels": len(names),
        "id2label": {str(index): name for index, name in enumerate(names)},
        "label2id": {name: index for index, name in enumerate(names)},
        "preprocessing": steps_of(spec.preprocessing, normalised_by="caller"),
        "spec": to_data(spec),
    }


def card_of(spec: ModelSpec) -> str:
    """A card for a network of which nothing but itself is known."""
    import yaml

    tag = PIPELINES[task_of(spec.head)]
    matter = {"library_name": "pocketvision", "pipeline_tag": tag, "tags": [tag, "pocketvision", spec.backbone.name]}
    names = ", ".join(spec.labels) or f"{spec.head.classes} classes without names"
    return (
        f"---\n{yaml.safe_dump(matter, sort_keys=False)}---\n\n# {spec.backbone.name}\n\n"
        f"Classes: {names}.\n\nInput: {describe_input(spec.preprocessing)}.\n\n"
        "```python\nfrom huggingface_hub import snapshot_download\n"
        "from pocketvision.training.checkpoint import load_model\n\n"
        'model = load_model(snapshot_download("USER/NAME"))\n```\n\n'
        "`pocketvision export FOLDER --to onnx` makes files for runtimes of it, `pocketvision predict FOLDER "
        "photo.jpg` tries it.\n"
    )
