"""`pocketvision verify`: does a file, or an app, do with the golden images what it should?"""

from pathlib import Path

from ..errors import ConfigurationError
from ..exporting.artifact import FORMATS, Artifact
from ..measuring.verify import Verified, verify_file
from .source import is_artifact


def verify(artifact: str | Path, *, runtime: str | None = None, stages: str | Path | None = None) -> Verified:
    """Replay the golden pack of an exported file (``export ... --golden``) in its runtime, stage by stage.

    ``stages``: a folder of stage files that an app wrote, to be compared instead; the first that differs is named, with
    the likely mistake. Raises ConfigurationError for a source that is no exported file, ExportError for a pack that is
    missing, damaged or of another file.
    """
    if not is_artifact(artifact):
        raise ConfigurationError(f"{artifact} is no exported file, which is what verify takes: {', '.join(FORMATS)}")
    folder = Path(stages) if stages is not None else None
    if folder is not None and not folder.is_dir():
        raise ConfigurationError(f"{folder} is no folder; --stages names the one with the app's stage files")
    return verify_file(Artifact.load(artifact), runtime=runtime, stages=folder)
