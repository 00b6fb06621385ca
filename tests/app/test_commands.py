"""The commands as a user runs them: what they print, the keys of their JSON, and what they say of bad input."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from .conftest import ROWS, call

CLI_PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def documented(command: str) -> set[str]:
    """The keys that docs/cli.md lists for a command."""
    section = CLI_PAGE.read_text().split(f"\n## {command}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.+?) \|", section, re.MULTILINE)
    return {key for row in rows for key in re.findall(r"`(\w+)`", row)}


def answer(*arguments: object, code: int = 0, **environment: str) -> dict:
    """The one JSON object that a command printed."""
    done = call(*arguments, "--json", **environment)
    assert done.returncode == code, done.stderr
    assert len(done.stdout.splitlines()) == 1
    return json.loads(done.stdout)


def failure(*arguments: object, code: int = 1, **environment: str) -> str:
    """The one line that a failing command said."""
    done = call(*arguments, **environment)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    return errors[0]


def test_train_learns_and_fills_the_run_folder(run: Path):
    assert {path.name for path in run.iterdir()} >= {"weights", "results.csv", "args.yaml", "split.json", "state"}
    rows = (run / "results.csv").read_text().splitlines()
    assert len(rows) == 13
    assert float(rows[-1].split(",")[rows[0].split(",").index("val_top1")]) > 0.8


def test_evaluate(run: Path, digits: Path):
    result = answer("evaluate", run, digits)
    assert set(result) == documented("evaluate")
    assert (result["metric"], result["n"], result["value"]) == ("top1", 24, result["top1"])
    assert result["value"] > 0.8


def test_evaluate_names_a_class_that_the_model_lacks(run: Path, digits: Path, tmp_path: Path):
    other = tmp_path / "other"
    shutil.copytree(digits, other)
    (other / "digit 2").rename(other / "digit two")
    assert "'digit two'" in failure("evaluate", run, other)
    assert "did you mean 'train'" in failure("evaluate", run, digits, "--split", "trian")


def test_predict_labels_good_images_and_counts_bad_ones(run: Path, digits: Path, tmp_path: Path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    good = sorted((digits / "digit 1").iterdir())[:3]
    for path in good:
        shutil.copy(path, folder)
    (folder / "cut.png").write_bytes(good[0].read_bytes()[:40])
    (folder / "text.jpg").write_text("no image")
    Image.new("CMYK", (40, 30)).save(folder / "print.jpg")
    done = call("predict", run, folder)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert len(lines) == 7
    assert sum(": skipped, " in line for line in lines) == 2
    assert lines[-1] == "4 images labelled, 2 skipped"
    result = answer("predict", run, folder)
    assert set(result) == documented("predict")
    assert {Path(item["file"]).name for item in result["skipped"]} == {"cut.png", "text.jpg"}
    labels = {Path(item["file"]).name: item["label"] for item in result["predictions"]}
    assert all(labels[path.name] == "digit 1" for path in good)
    assert set(result["predictions"][0]) == {"file", "label", "score"}
    assert call("predict", run, good[0]).stdout.splitlines()[-1] == "1 image labelled, 0 skipped"
    answer("predict", run, folder, "--out", tmp_path / "out")
    written = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert written == {"predictions": result["predictions"], "skipped": result["skipped"]}
    lines = (tmp_path / "out" / "predictions.csv").read_text().splitlines()
    assert (lines[0], len(lines)) == ("file,label,score", 5)
    assert not (tmp_path / "out" / "pictures").exists()


def test_predict_of_nothing(run: Path, tmp_path: Path):
    assert "no such file" in failure("predict", run, tmp_path / "absent.jpg")
    assert "no images" in failure("predict", run, tmp_path)


def test_predict_in_order_with_any_number_of_threads(run: Path, digits: Path):
    from pocketvision import predict

    one, three = (list(predict(run, digits, threads=threads)) for threads in (1, 3))
    assert one == three
    assert [item.file for item in one] == sorted(item.file for item in one)
    assert len(one) == 120


def test_export(run: Path, tmp_path: Path):
    result = answer("export", run, "--out", tmp_path / "digits.onnx")
    assert set(result) == documented("export")
    assert Path(result["artifact"]).stat().st_size == pytest.approx(result["size_mb"] * 1e6, rel=0.01)
    assert result["parity"]["agreement"] == 1
    assert result["parity"]["max_error"] < 1e-4
    assert "'onnx'" in failure("export", run, "--to", "onxx")
    wrong = failure("export", run, "--out", tmp_path / "digits.tflite")
    assert f"{tmp_path / 'digits.tflite'} must end in .onnx" in wrong
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "folder.onnx" / "kept").touch()
    assert "folder.onnx: it exists and is no regular file; choose" in failure(
        "export", run, "--out", tmp_path / "folder.onnx"
    )
    assert (tmp_path / "folder.onnx" / "kept").exists()
    weights = shutil.copy(run / "weights" / "best.safetensors", tmp_path)
    assert "a golden pack needs images" in failure("export", weights, "--golden")
    assert {path.name for path in tmp_path.iterdir()} == {
        "digits.onnx",
        "digits.onnx.json",
        "folder.onnx",
        "best.safetensors",
    }


def test_measure(run: Path, tmp_path: Path):
    result = answer("measure", run, ROWS, "--n", 20, "--runtime", "onnxruntime", "--runtime", "torch")
    assert set(result) == documented("measure")
    assert [(row["runtime"], row["n"]) for row in result["results"]] == [("onnxruntime", 20), ("torch", 20)] * 2
    assert all(0 < row["min_ms"] <= row["median_ms"] <= row["p90_ms"] for row in result["results"])
    assert "did you mean 'onnxruntime'" in failure("measure", run, "--runtime", "onnxrt")
    assert "litert does not run" in failure("measure", run, "--runtime", "litert")
    assert "did you mean 'mobilenet_v2'" in failure("measure", "mobilenet_v22")


def test_models():
    result = answer("models", "mobilenet_v3_large", "--width", 0.75, "--width-rule", "paper")
    assert set(result) == documented("models")
    assert (result["params"], round(result["madds"] / 1e6, 2)) == (3993528, 154.56)
    small = answer("models", "mobilenet_v3_small", "--width", 0.5, "--width-rule", "paper", "--imgsz", 224)
    assert small["params"] == 1922688
    assert len(answer("models", "*v3*")["models"]) == 2
    assert "did you mean 'mobilenet_v2'" in failure("models", "mobilnet_v2")
    assert "nearest valid: 0.1" in failure("models", "mobilenet_v2", "--width", 0.01)


def test_doctor():
    result = answer("doctor")
    assert set(result) == documented("doctor")
    assert {"runtime torch", "runtime onnxruntime", "ImageNet weights"} <= {check["name"] for check in result["checks"]}


def test_a_checkpoint_with_code_in_it_is_refused(tmp_path: Path):
    import pickle

    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    path = tmp_path / "weights.pt"
    path.write_bytes(pickle.dumps({"weight": Evil()}))
    assert str(path) in failure("export", path)
    assert not (tmp_path / "ran").exists()


def test_a_truncated_checkpoint_names_the_older_one_that_works(run: Path, tmp_path: Path):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    best = copy / "weights" / "best.safetensors"
    best.write_bytes(best.read_bytes()[:1000])
    message = failure("export", copy)
    assert str(best) in message
    assert "last.safetensors still works" in message
    answer("export", copy / "weights" / "last.safetensors")


def test_options_may_be_written_with_an_equals_sign(digits: Path, tmp_path: Path):
    arguments = ("train", digits, f"model={ROWS}", "weights=none", "epochs=1", "img_size=32", f"project={tmp_path}")
    result = answer(*arguments)
    assert set(result) == documented("train")
    assert (result["epoch"], result["reason"]) == (1, "finished")
    resumed = answer("train", "--resume", result["run"])
    assert resumed["value"] == result["value"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("trian",), "Did you mean 'train'"),
        (("train", "sample:digits", "--epochz", "3"), "--epochs"),
        (("train", "absent_folder"), "absent_folder"),
        (("train",), "--resume"),
        (("train", "sample:digits", "--epochs", "0"), "epochs=0"),
        (("train", "sample:digits", "--model", "mobilnet_v2"), "mobilenet_v2"),
        (("train", "--resume", "absent_run"), "absent_run"),
        (("build", "sample:digits", "--runtime", "tensorrt"), "onnxruntime"),
        (("build", "sample:digits", "--max-ms", "-1"), "above 0"),
        (("predict", "absent_run", "image.jpg"), "absent_run"),
    ],
)
def test_errors_say_cause_and_fix(arguments: tuple[str, ...], said: str, tmp_path: Path):
    done = call(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_data(tmp_path: Path):
    rng = np.random.default_rng(0)
    root = tmp_path / "photos"
    for k, name in enumerate(("Bär", "猫")):  # blobs, bright in one class and dark in the other
        for split, count in (("train", 25), ("val", 8)):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                small = rng.integers(110 * k, 110 * k + 146, (6, 6, 3)).astype(np.uint8)
                large = Image.fromarray(small).resize((60, 60), Image.Resampling.BICUBIC)
                large.save(root / split / name / f"{chr(97 + number)}.png")
    ImageOps.mirror(Image.open(root / "train/猫/a.png")).save(root / "val/猫/again.png")
    shutil.move(root / "train/猫/b.png", root / "train/Bär/wrong.png")
    (root / "train/Bär/broken.jpg").write_bytes(b"no image")
    done = call("data", root, "--out", tmp_path / "page.html", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert set(result) == documented("data")
    assert (result["ok"], result["page"]) == (False, str(tmp_path / "page.html"))
    assert result["counts"]["train"] == {"Bär": 26, "猫": 24}
    kinds = {finding["kind"]: finding for finding in result["findings"]}
    assert set(kinds) == {"counts", "unreadable", "leak"}
    assert kinds["leak"]["groups"] == [[str(root / "train/猫/a.png"), str(root / "val/猫/again.png")]]
    suspect = result["suspects"][0]
    assert (Path(suspect["image"]).name, suspect["label"], suspect["looks_like"]) == ("wrong.png", "Bär", "猫")
    page = (tmp_path / "page.html").read_text()
    assert page.count("<img ") == 2 + len(result["suspects"])
    assert all(part in page for part in ("broken.jpg", "labelled <b>Bär</b>", "The same picture in two splits"))
    assert "http" not in page
    text = call("data", root, "--out", tmp_path / "page.html").stdout
    assert "fix: remove one copy of each" in text
    assert "next: pocketvision data" in text


@pytest.mark.parametrize("folders", [(), ("cat",)])
def test_data_of_no_data_set(tmp_path: Path, folders: tuple[str, ...]):
    for name in folders:
        (tmp_path / name).mkdir()
        Image.new("RGB", (9, 9)).save(tmp_path / name / "1.png")
    done = call("data", tmp_path, "--out", tmp_path / "page.html")
    assert done.returncode == 1
    assert str(tmp_path) in done.stderr
    assert "class" in done.stderr
    assert not (tmp_path / "page.html").exists()


def test_a_leaking_split_is_refused_unless_told(digits: Path, tmp_path: Path):
    for split in ("train", "val"):
        shutil.copytree(digits, tmp_path / "data" / split)
    arguments = [tmp_path / "data", "--project", tmp_path, "--model", str(ROWS), "--imgsz", 32, "--epochs", 1]
    for command in ("train", "build"):
        done = call(command, *arguments, "--weights", "none")
        assert done.returncode == 1
        assert "120 of the val images (100.0%) are also in train (120 as the same file)" in done.stderr
        assert "for example" in done.stderr
        assert "--allow-leak" in done.stderr
    done = call("train", *arguments, "--weights", "none", "--allow-leak")
    assert done.returncode == 0, done.stderr
    assert "warning (--allow-leak): 120 of the val images" in done.stderr
    assert "error:" not in done.stderr


def test_errors_are_json_too(tmp_path: Path):
    assert "absent" in answer("train", tmp_path / "absent", code=1)["error"]
    assert "name another file with --out" in answer("data", "sample:digits", "--out", tmp_path, code=1)["error"]
