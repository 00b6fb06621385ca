"""What an export leaves beside its file."""

from pathlib import Path

import pytest

from pocketvision.app import source
from pocketvision.nn.model import stand_in
from pocketvision.zoo import model_spec


def test_an_interrupted_export_leaves_nothing_and_disturbs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    written = list[Path]()

    def interrupted(name: str, model: object, out: Path, **_: object) -> None:
        written.append(out)
        out.write_bytes(b"half of a file")
        raise KeyboardInterrupt

    monkeypatch.setattr(source, "export_to", interrupted)
    model = stand_in(model_spec("mobilenet_v3_small", imgsz=32))
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            source.export_checked(model, tmp_path / "best.xml", None, to=("openvino", "float32", None))
    assert len(set(written)) == 2 and not list(tmp_path.iterdir())
