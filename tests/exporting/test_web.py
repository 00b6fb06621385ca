"""The web folder in headless Chromium: its preprocessing, its answers and its page are those of the file in Python."""

import base64
import importlib.util
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pocketvision.data.image import read_image
from pocketvision.data.sources import open_dataset
from pocketvision.data.transforms import load_prepared, prepare
from pocketvision.errors import ExportError
from pocketvision.exporting.artifact import Artifact
from pocketvision.exporting.contract import outputs_of, steps_of
from pocketvision.exporting.golden import write_pack
from pocketvision.exporting.web import folder as web
from pocketvision.exporting.web import onnxruntime_web
from pocketvision.exporting.web.onnxruntime_web import NAMED, VERSION, runtime_files
from pocketvision.measuring.parity import model_scores
from pocketvision.measuring.runtimes import open_detector, open_file, open_segmenter
from pocketvision.spec.model import Preprocessing

ASSETS = Path(web.__file__).parent


@pytest.fixture(scope="session")
def browser(root: Path):
    """benchmarks/browser.py, where Chromium is."""
    spec = importlib.util.spec_from_file_location("browser", root / "benchmarks" / "browser.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if module.chromium() is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    return module


@pytest.fixture(scope="session")
def runtime():
    """ONNX Runtime Web, from what POCKETVISION_ORT_WEB names or the user's cache; only with CI=true downloaded."""
    cache = Path.home() / ".cache" / "pocketvision"
    with pytest.MonkeyPatch.context() as patch:
        if not os.environ.get(NAMED):
            if not (cached := cache / f"onnxruntime-web-{VERSION}").is_dir() and os.environ.get("CI") != "true":
                pytest.skip(f"there is no {cached}: any export --to web downloads it; or name it in {NAMED}")
            patch.setenv("POCKETVISION_CACHE", str(cache))
            runtime_files()
            patch.setenv(NAMED, str(cached))
        yield


@pytest.fixture(scope="session")
def folders(runtime, artifact, detector_file, segmenter_file, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One web folder for each task."""
    place = tmp_path_factory.mktemp("web")
    for file in (artifact, detector_file, segmenter_file):
        web.write_web(file, place / file.form)
    return place


def test_the_browser_prepares_as_python(browser):
    """Bit for bit: enlarged and reduced, cut and stretched, both filters, a picture so long that its ends go first."""
    cases = [
        (97, 151, Preprocessing(size=64, resize=73)),
        (97, 151, Preprocessing(size=64, resize=73, interpolation="bicubic")),
        (50, 31, Preprocessing(size=64, resize=73, interpolation="bicubic")),
        (40, 330, Preprocessing(size=32, resize=36)),
        (333, 41, Preprocessing(size=32, resize=33)),
        (90, 60, Preprocessing(size=48, resize=48, fit="stretch")),
        (73, 105, Preprocessing(size=64, resize=73)),
    ]
    files, described, expected = {}, [], []
    noise = np.random.default_rng(0)
    for index, (height, width, p) in enumerate(cases):
        image = noise.integers(0, 256, (height, width, 4), dtype=np.uint8)
        files[f"{index}.bin"] = image.tobytes()
        described.append({"width": width, "height": height, "steps": steps_of(p)["steps"]})
        expected.append(prepare(np.ascontiguousarray(image[:, :, :3]), p))
    script = f"""
    import {{ prepare }} from "./preprocess.js";
    const found = [];
    for (const [index, {{ width, height, steps }}] of {json.dumps(described)}.entries()) {{
      const data = new Uint8Array(await (await fetch(`${{index}}.bin`)).arrayBuffer());
      const {{ pixels, region }} = prepare({{ data, width, height }}, steps);
      found.push({{ pixels: btoa(String.fromCharCode(...pixels)), region }});
    }}
    reply(found);
    """
    found = browser.reply_of(ASSETS, script, files)
    for one, pixels, (height, width, p) in zip(found, expected, cases, strict=True):
        actual = np.frombuffer(base64.b64decode(one["pixels"]), np.uint8).reshape(pixels.shape)
        np.testing.assert_array_equal(actual, pixels)
        region = one["region"]
        assert region["left"] >= 0 and region["left"] + region["width"] <= width + 1e-6
        assert region["top"] >= 0 and region["top"] + region["height"] <= height + 1e-6
        if p.fit == "crop":
            assert region["width"] / region["height"] == pytest.approx(1, abs=0.03)


LOOK = """
import { load, pixelsOf } from "./vision.js";
const network = await load();
const found = [];
for (let index = 0; index < COUNT; index++) {
  const { mask, ...seen } = await network.look(await pixelsOf(await (await fetch(`photo${index}`)).blob()));
  found.push(mask ? { mask: btoa(String.fromCharCode(...mask.data)), region: mask.region } : seen);
}
reply(found);
"""


def seen_by(browser, folder: Path, photos: list[Path]) -> list[dict]:
    """What the folder's network sees in photos, which the browser decodes."""
    files = {f"photo{index}": path for index, path in enumerate(photos)}
    return browser.reply_of(folder, LOOK.replace("COUNT", str(len(photos))), files)


def test_chromium_classifies_as_torch(browser, folders, model, shared):
    photos = [Path(item.image) for item in open_dataset(shared / "data" / "clothing10").val][::60][:6]
    pixels = np.stack([load_prepared(photo, model.spec.preprocessing) for photo in photos])
    expected = model_scores(model, pixels)
    for row, scores in zip(seen_by(browser, folders / "scores", photos), expected, strict=True):
        actual = [one["score"] for one in sorted(row["classes"], key=lambda one: one["index"])]
        np.testing.assert_allclose(actual, scores, atol=0.02)  # decoders of JPEG differ by a grey level
        assert row["classes"][0]["index"] == scores.argmax()
        assert row["ms"]["network"] > 0
    assert expected.std(0).max() > 1e-3


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture that every decoder reads in the same way, turned by EXIF and partly transparent."""
    coarse = np.random.default_rng(5).integers(0, 256, (6, 9, 4), dtype=np.uint8)
    coarse[..., 3] = 255
    coarse[2, 3, 3] = 0
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.fromarray(coarse.repeat(16, 0).repeat(16, 1)).save(path, exif=exif)
    return path


def test_chromium_finds_boxes_as_python(browser, folders, detector_file, photo):
    pixels, (height, width) = load_prepared(photo, detector_file.spec.preprocessing), read_image(photo).shape[:2]
    assert (height, width) == (144, 96)  # upright
    expected = open_detector(detector_file)(pixels[None])[0]
    (row,) = seen_by(browser, folders / "nms", [photo])
    size = detector_file.spec.preprocessing.size
    scale = np.array([width, height, width, height]) / size
    assert len(expected.scores) > 3
    np.testing.assert_allclose([one["score"] for one in row["boxes"]], expected.scores, atol=1e-4)
    np.testing.assert_allclose([one["box"] for one in row["boxes"]], expected.boxes * scale, atol=0.05)
    assert [one["index"] for one in row["boxes"]] == expected.labels.tolist()


def test_chromium_segments_as_python(browser, folders, segmenter_file, photo):
    pixels = load_prepared(photo, segmenter_file.spec.preprocessing)
    expected = open_segmenter(segmenter_file)(pixels[None])[0]
    (row,) = seen_by(browser, folders / "classes", [photo])
    actual = np.frombuffer(base64.b64decode(row["mask"]), np.uint8).reshape(expected.shape)
    assert (actual == expected).mean() > 0.999
    assert len(np.unique(expected)) > 1
    assert row["region"] == {"left": 0, "top": 0, "width": 96, "height": 144}


GOLDEN = """
import { load, pixelsOf } from "./vision.js";
import { prepare } from "./preprocess.js";
import { verify } from "./pack/runners/verify.mjs";
const network = await load();
const read = async (name) => new Uint8Array(await (await fetch(`pack/${name}`)).arrayBuffer());
const manifest = JSON.parse(new TextDecoder().decode(await read("manifest.json")));
const decode = async (bytes) => {
  const { data, width, height } = await pixelsOf(new Blob([bytes]));
  return { width, height, data: data.filter((_, index) => index % 4 < 3) };
};
const prepared = (image, { preprocessing }) => {
  const data = new Uint8Array(4 * image.width * image.height);
  for (let place = 0; place < image.data.length; place++) data[place + Math.trunc(place / 3)] = image.data[place];
  return { decoded: image, input: prepare({ ...image, data }, preprocessing.steps).pixels };
};
const run = async (pixels) => {
  const outputs = await network.run(pixels);
  return network.contract.outputs.map(({ name }) => outputs[name].data);
};
const worse = (image, contract) => {
  const { decoded, input } = prepared(image, contract);
  return { decoded, input: input.map((_, place, all) => all[place - (place % 3) + 2 - (place % 3)]) };
};
const verdict = await verify(manifest, read, run, null, prepared, decode);
reply([verdict, await verify(manifest, read, run, null, worse, decode)]);
"""


@pytest.mark.parametrize("form", ["scores", "nms", "classes"])
def test_the_golden_pack_holds_in_chromium(form, browser, folders, scenes_in_shapes):
    """The page's own decoding, preprocessing and network, judged by the pack's own program."""
    file = Artifact.load(folders / form / "model.onnx")
    pack = write_pack(file, scenes_in_shapes, open_file(file), "onnxruntime").path
    files = {f"pack/{path.relative_to(pack).as_posix()}": path for path in pack.rglob("*") if path.is_file()}
    verdict, faulty = browser.reply_of(folders / form, GOLDEN, files)
    states = {check["stage"]: check["state"] for check in verdict["stages"]}
    assert verdict["passed"], verdict
    assert [states[stage] for stage in ("decoded", "input", "outputs", "decision")] == ["passed"] * 4
    assert not faulty["passed"] and faulty["first"] == "input"  # red and blue exchanged


def test_the_page(browser, folders, artifact, detector_file, segmenter_file, photo):
    """In a frame, as a visitor has it: what was seen stands below the picture; nothing but the folder is asked for."""
    script = """
    const texts = {};
    for (const form of ["scores", "nms", "classes"]) {
      const frame = document.createElement("iframe");
      frame.src = `${form}/index.html?image=../photo.png`;
      document.body.append(frame);
      const page = () => frame.contentDocument?.documentElement;
      const status = () => page()?.querySelector("#status");
      while (page()?.dataset.ready !== "yes" && !status()?.classList.contains("wrong")) {
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      const names = [...page().querySelectorAll("#results li .name")].map((name) => name.textContent);
      const asked = frame.contentWindow.performance.getEntriesByType("resource").map((entry) => entry.name);
      const { width, height, hidden } = page().querySelector("#canvas");
      texts[form] = { status: status().textContent, names, asked, canvas: [width, height, hidden] };
    }
    reply(texts);
    """
    found = browser.reply_of(folders, script, {"photo.png": photo})
    for form, file in (("scores", artifact), ("nms", detector_file), ("classes", segmenter_file)):
        page = found[form]
        assert re.fullmatch(r"network [\d.]+ ms, preparing [\d.]+ ms", page["status"])
        assert page["canvas"] == [96, 144, False]
        assert page["names"] and set(page["names"]) <= set(file.labels)
        assert all(address.startswith("http://127.0.0.1:") for address in page["asked"])
    assert set(found["scores"]["names"]) == set(artifact.labels)


def test_a_file_that_is_no_picture_is_said(browser, folders):
    script = """
    const frame = document.createElement("iframe");
    frame.src = "index.html?image=model.onnx.json";
    document.body.append(frame);
    const status = () => frame.contentDocument?.querySelector("#status.wrong");
    while (!status()) await new Promise((resolve) => setTimeout(resolve, 50));
    reply(status().textContent);
    """
    said = browser.reply_of(folders / "scores", script)
    assert said == "It did not work: This file is no picture that the browser can read."


@pytest.fixture
def package(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder such as npm installs, with little in it, that POCKETVISION_ORT_WEB names."""
    folder = tmp_path_factory.mktemp("node_modules") / "onnxruntime-web"
    (folder / "dist").mkdir(parents=True)
    for file in onnxruntime_web.FILES:
        (folder / "dist" / file).write_text(file)
    (folder / "package.json").write_text('{"name": "onnxruntime-web", "version": "1.99.0"}')
    monkeypatch.setenv(NAMED, str(folder))
    return folder


def test_the_folder_is_replaced_and_nothing_else_is(package, artifact, tmp_path):
    again = web.write_web(artifact, tmp_path / "page")
    (tmp_path / "page" / "old.txt").write_text("of the older export")
    assert web.write_web(artifact, tmp_path / "page").spec == again.spec == artifact.spec
    assert not (tmp_path / "page" / "old.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["page"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(ExportError, match=r"cannot write .*mine: something else is there"):
        web.write_web(artifact, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_other_outputs_are_refused(package, detector_file, tmp_path):
    file = replace(detector_file, outputs=outputs_of("dense", 3, 96, 10))
    with pytest.raises(ExportError, match=r"the page cannot read .*tiny\.onnx \(onnx, dense\)"):
        web.write_web(file, tmp_path / "page")


def test_where_the_runtime_comes_from(package, tmp_path, monkeypatch):
    files = runtime_files()
    assert files["ort.js"] == b"ort.wasm.bundle.min.mjs"
    assert files["ort-LICENSE.txt"].startswith(b"onnxruntime-web 1.99.0")
    (package / "package.json").write_text('{"name": "onnxruntime-node", "version": "1.99.0"}')
    with pytest.raises(ExportError, match="it is onnxruntime-node"):
        runtime_files()
    monkeypatch.setenv(NAMED, str(tmp_path / "absent.tgz"))
    with pytest.raises(ExportError, match=r"absent\.tgz is not the npm package onnxruntime-web .*npm pack"):
        runtime_files()


def test_without_network_it_says_what_to_fetch(tmp_path, monkeypatch):
    def refused(request, timeout):
        raise OSError("no route to host")

    monkeypatch.delenv(NAMED, raising=False)
    monkeypatch.setenv("POCKETVISION_CACHE", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", refused)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ExportError, match=r"cannot download .*no route to host\)\. .*npm pack onnxruntime-web"):
        runtime_files()
    for path in onnxruntime_web.PUBLISHED:  # damaged downloads do not count
        file = tmp_path / f"onnxruntime-web-{VERSION}" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(__file__, file)
    with pytest.raises(ExportError, match="no route to host"):
        runtime_files()
    monkeypatch.setattr(onnxruntime_web, "_download", lambda url: b"something else")
    with pytest.raises(ExportError, match=r"another package\.json than the published one"):
        runtime_files()
