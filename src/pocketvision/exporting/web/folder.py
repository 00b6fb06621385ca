"""A static folder with the model, a page that runs it, and ONNX Runtime for browsers."""

from pathlib import Path

from ...errors import ExportError
from ...files import write_folder
from ..artifact import Artifact, files_of
from ..contract import contract_path
from .onnxruntime_web import runtime_files

MODEL = "model.onnx"
PAGE = ("index.html", "style.css", "app.js", "vision.js", "preprocess.js")
FORMS = ("scores", "nms", "classes")  # what the page can read


def write_web(artifact: Artifact, out: Path) -> Artifact:
    """Write the folder ``out`` for an ONNX file that gives scores, selected boxes ("nms") or classes of pixels.

    It is whole or absent; an older folder of the same kind is replaced. Raises ExportError where ONNX Runtime's files
    cannot be had (``runtime_files``), the file gives something else, or ``out`` is something else.
    """
    if artifact.format != "onnx" or artifact.form not in FORMS:
        raise ExportError(
            f"the page cannot read {artifact.path} ({artifact.format}, {artifact.form}); it needs ONNX with one of "
            f"{', '.join(FORMS)}, which are the default outputs"
        )
    runtime, page = runtime_files(), Path(__file__).parent

    def fill(folder: Path) -> None:
        for name in PAGE:
            (folder / name).write_bytes((page / name).read_bytes())
        for name, content in runtime.items():
            (folder / name).write_bytes(content)
        (folder / MODEL).write_bytes(artifact.path.read_bytes())
        contract = contract_path(artifact.path).read_text(encoding="utf-8")
        contract_path(folder / MODEL).write_text(contract.replace(f'"{artifact.path.name}"', f'"{MODEL}"'), "utf-8")

    assert files_of(artifact.path) == (artifact.path,)
    try:
        write_folder(out, fill, sign="vision.js")
    except OSError as error:
        raise ExportError(f"cannot write {out}: {error.strerror}; choose another place") from None
    return Artifact.load(out / MODEL)
