"""Files of weights: read safely, recognised, found on this machine, downloaded whole or not at all."""

import pickle
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pocketvision.errors import ConfigurationError, WeightsError
from pocketvision.nn.model import build
from pocketvision.spec.transform import dilated, with_backbone, with_classes, with_hidden, with_padding
from pocketvision.zoo import model_spec, weights
from pocketvision.zoo.catalogue import CATALOGUE, Entry
from pocketvision.zoo.keymaps import from_ours
from pocketvision.zoo.weights import available, load, published, read

SPEC = model_spec("mobilenet_v3_small", width=0.35)  # 2.2 MB
State = dict[str, torch.Tensor]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and no named folder."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("POCKETVISION_CACHE", str(folder))
    monkeypatch.delenv("POCKETVISION_WEIGHTS", raising=False)
    monkeypatch.setattr(weights, "PACKAGES", ())
    return folder


@pytest.fixture(scope="module")
def state() -> State:
    torch.manual_seed(0)
    return from_ours(build(SPEC).state_dict(), SPEC, "torchvision")


@pytest.fixture
def entry(tmp_path: Path, state: State, monkeypatch: pytest.MonkeyPatch) -> Entry:
    """The only entry of the catalogue; its URL is a file."""
    source = tmp_path / "server" / "small-00000000.pth"
    source.parent.mkdir()
    torch.save(state, source)
    small = replace(
        next(entry for entry in CATALOGUE if entry.model == "mobilenet_v3_small"),
        width=0.35,
        file=source.name,
        url=source.as_uri(),
        sha256=sha256(source.read_bytes()).hexdigest(),
    )
    monkeypatch.setattr(weights, "CATALOGUE", (small,))
    return small


def no_network(*args: object, **kwargs: object):
    raise OSError("Network is unreachable")


# reading


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": {f"module.{name}": tensor for name, tensor in state.items()}},
        lambda state: {"model_ema": state, "args": {"lr": 0.1}},
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_checkpoints_of_torch(state: State, tmp_path: Path, wrap: Callable, zipped: bool):
    path = tmp_path / "checkpoint.pth.tar"
    torch.save(wrap(state), path, _use_new_zipfile_serialization=zipped)
    got, said = read(path)
    assert said is None
    assert got.keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in got.items())


def test_half_precision_is_widened(state: State, tmp_path: Path):
    path = tmp_path / "half.safetensors"
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    save_file(half, path)
    got, _ = read(path)
    assert {tensor.dtype for tensor in got.values()} == {torch.float32, torch.int64}
    assert all(torch.equal(tensor, half[name].to(tensor.dtype)) for name, tensor in got.items())


class Code:
    """What a malicious checkpoint holds: unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("form", ["zip", "legacy", "plain pickle", "whole model"])
def test_code_is_refused_and_not_run(form: str, tmp_path: Path):
    path, mark = tmp_path / "weights.pth", tmp_path / "ran"
    match form:
        case "plain pickle":
            path.write_bytes(pickle.dumps({"state_dict": Code(mark)}))
        case "whole model":
            torch.save(build(SPEC), path)
        case _:
            torch.save({"state_dict": Code(mark)}, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(WeightsError, match=r"weights\.pth is refused.*could run code.*convert it once: torch\.save"):
        load(SPEC, path)
    assert not mark.exists()


@pytest.mark.parametrize("suffix", ["pth", "legacy.pth", "safetensors"])
@pytest.mark.parametrize("keep", [9, 1000, 0.5, 0.9999])
def test_cut_short(state: State, tmp_path: Path, suffix: str, keep: float):
    path = tmp_path / f"weights.{suffix}"
    if suffix == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=suffix == "pth")
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if keep < 1 else int(keep)])
    with pytest.raises(WeightsError, match=rf"{path.name} is damaged or cut short .*older one"):
        load(SPEC, path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"", "holds only 0 bytes and is no weights file"),
        (b"abc", "holds only 3 bytes and is no weights file"),
        (b"no weights at all", "no file that torch.save or safetensors wrote"),
        ([1, 2], "no state dict but a list"),
        ({"epoch": 3}, "holds no state dict but epoch"),
        ({}, "holds no tensors"),
        ({"conv1.weight": torch.ones(2)}, "not weights of a network that this package knows.*conv1.weight"),
    ],
)
def test_what_holds_no_weights(content: object, message: str, tmp_path: Path):
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(WeightsError, match=message) as caught:
        load(SPEC, path)
    assert str(path) in str(caught.value)


def test_a_folder_is_no_file_of_weights(tmp_path: Path):
    with pytest.raises(WeightsError, match="is a folder"):
        load(SPEC, tmp_path)


def test_a_header_that_is_no_network(state: State, tmp_path: Path):
    path = tmp_path / "weights.safetensors"
    save_file(state, path, metadata={"spec": '{"kind": "ModelSpek"}'})
    with pytest.raises(WeightsError, match=r"weights\.safetensors: .*did you mean 'ModelSpec'"):
        load(None, path)
    save_file(state, path, metadata={"spec": '{"kind": "Conv", "out": 8}'})
    with pytest.raises(WeightsError, match=r"weights\.safetensors: its spec=.* must be a ModelSpec"):
        load(None, path)


# what weights say of their network


def test_an_unknown_file_keeps_the_callers_network(state: State, tmp_path: Path):
    path = tmp_path / "mine.pth"
    torch.save(state, path)
    loaded = load(SPEC, path)
    assert loaded.spec == SPEC
    assert (loaded.info.layout, loaded.info.folded, loaded.info.verified, loaded.info.licence) == (
        "torchvision",
        False,
        False,
        "",
    )
    with pytest.raises(WeightsError, match="does not say which network"):
        load(None, path)


def test_timms_networks_have_timms_epsilon(tmp_path: Path):
    for padding, eps in (("symmetric", 1e-5), ("same", 1e-3)):
        spec = with_backbone(model_spec("mobilenet_v3_small", width=0.35), padding=padding)
        path = tmp_path / "timm.pth"
        torch.save(from_ours(build(spec).state_dict(), spec, "timm"), path)
        assert load(spec, path).spec.backbone.bn_eps == eps


def test_a_known_file_brings_padding_epsilon_and_scaling(entry: Entry, monkeypatch: pytest.MonkeyPatch):
    tf = replace(entry, padding="same", bn_eps=0.01, preprocessing=replace(entry.preprocessing, mean=(0.5,) * 3))
    monkeypatch.setattr(weights, "CATALOGUE", (tf,))
    asked = with_classes(dilated(model_spec("mobilenet_v3_small", width=0.35, imgsz=112)), ("cat", "dog"))
    loaded = load(asked, "imagenet")
    backbone, p = loaded.spec.backbone, loaded.spec.preprocessing
    assert (backbone.padding, backbone.bn_eps) == ("same", 0.01)
    assert backbone.rows == asked.backbone.rows
    assert (p.size, p.resize, p.mean) == (112, 128, (0.5, 0.5, 0.5))
    assert loaded.spec.head == asked.head
    assert loaded.spec.labels == ("cat", "dog")
    assert loaded.labels is None  # ImageNet's


def test_a_known_file_for_another_network_is_refused(entry: Entry):
    path = published(SPEC)
    for other in (model_spec("mobilenet_v3_small"), with_hidden(SPEC, 512), model_spec("mobilenet_v2")):
        with pytest.raises(WeightsError, match=rf"{path.name}: these are weights of mobilenet_v3_small .*do not fit"):
            load(other, path)
    assert load(None, path).spec.backbone.name == "mobilenet_v3_small"


# where they are found


def test_download(entry: Entry, cache: Path, monkeypatch: pytest.MonkeyPatch):
    assert available(SPEC) is None
    assert not cache.exists()  # looking downloads nothing
    loaded = load(SPEC, "imagenet")
    assert loaded.info.path == cache / entry.file
    assert (loaded.info.verified, loaded.info.source, loaded.info.licence) == (True, entry.source, entry.licence)
    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    assert load(SPEC, "imagenet").info == loaded.info  # from the cache now
    assert available(with_padding(SPEC, "same")) == entry


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"x", lambda data: b"<html>"])
def test_another_file_than_the_published_is_not_kept(entry: Entry, cache: Path, change: Callable[[bytes], bytes]):
    source = Path(entry.url.removeprefix("file://"))
    source.write_bytes(change(source.read_bytes()))
    with pytest.raises(WeightsError, match=rf"sent another file than the published.*{entry.sha256}"):
        load(SPEC, "imagenet")
    assert not list(cache.iterdir())


def test_a_transfer_that_breaks_off(entry: Entry, cache: Path, monkeypatch: pytest.MonkeyPatch):
    """Noticed even where no sum is published."""
    monkeypatch.setattr(weights, "CATALOGUE", (replace(entry, sha256=""),))
    whole = urllib.request.urlopen

    def half(*args: object, **kwargs: object):
        answer = whole(*args, **kwargs)
        chunks = iter([answer.read(1000), b""])
        answer.read = lambda size=-1: next(chunks)
        return answer

    monkeypatch.setattr(urllib.request, "urlopen", half)
    with pytest.raises(WeightsError, match="sent another file"):
        load(SPEC, "imagenet")
    assert not list(cache.iterdir())


def test_without_network(entry: Entry, cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    with pytest.raises(WeightsError) as caught:
        load(SPEC, "imagenet")
    for part in (entry.url, entry.licence, entry.file, "POCKETVISION_WEIGHTS", str(cache), "unreachable"):
        assert part in str(caught.value)


def test_no_published_weights():
    with pytest.raises(WeightsError, match="no published ImageNet weights are known for this mobilenet_v2"):
        load(model_spec("mobilenet_v2", width=0.35), "imagenet")
    with pytest.raises(ConfigurationError, match="needs the network's name"):
        load(None, "imagenet")
    with pytest.raises(WeightsError, match="or say imagenet"):
        load(SPEC, "imagnet")


def put(entry: Entry, folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(Path(entry.url.removeprefix("file://")).read_bytes())
    return path


def installed(entry: Entry, site: Path) -> Path:
    """A package on the import path that carries the file."""
    path = put(entry, site / "carrier", "weights.pth")
    info = site / "carrier-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: carrier\nVersion: 1.0\n")
    (info / "RECORD").write_text("carrier/weights.pth,,\ncarrier-1.0.dist-info/METADATA,,\n")
    return path


def test_order_of_places(entry: Entry, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    in_cache = put(entry, cache, "renamed.pth")
    assert published(SPEC) == in_cache
    monkeypatch.setattr(weights, "PACKAGES", ("carrier", "not-installed"))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    in_package = installed(entry, tmp_path / "site")
    assert published(SPEC) == in_package
    in_folder = put(entry, tmp_path / "named" / "deep", "renamed.pth")
    monkeypatch.setenv("POCKETVISION_WEIGHTS", str(tmp_path / "named"))
    assert published(SPEC) == in_folder


def test_a_named_folder_that_is_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("POCKETVISION_WEIGHTS", "nowhere")
    with pytest.raises(WeightsError, match="POCKETVISION_WEIGHTS=nowhere is no folder"):
        available(SPEC)


def test_a_file_without_published_sum_is_known_by_its_name(
    entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(weights, "CATALOGUE", (replace(entry, sha256=""),))
    assert load(SPEC, put(entry, tmp_path, entry.file)).info.verified is False
    assert load(SPEC, put(entry, tmp_path, entry.file)).info.source == entry.source
    assert load(SPEC, put(entry, tmp_path, "other.pth")).info.source == ""


def test_a_changed_file_is_not_recognised_by_its_name(entry: Entry, tmp_path: Path, state: State):
    path = tmp_path / entry.file
    torch.save({name: tensor + 1 for name, tensor in state.items()}, path)
    assert load(SPEC, path).info.source == ""


def test_sums_are_remembered_until_a_file_changes(entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder, hashed = tmp_path / "named", list[str]()
    path = put(entry, folder, "weights.pth")
    monkeypatch.setenv("POCKETVISION_WEIGHTS", str(folder))
    digest = weights.hashlib.file_digest

    def counting(file, name):
        hashed.append(file.name)
        return digest(file, name)

    monkeypatch.setattr(weights.hashlib, "file_digest", counting)
    for _ in range(3):
        assert available(SPEC) == entry
    assert hashed == [str(path)]
    path.write_bytes(path.read_bytes() + b"more")
    assert available(SPEC) is None
    assert hashed == [str(path)] * 2


@pytest.mark.parametrize(
    "memory", ['{"half', "[]", "3", '{"PATH": 1}', '{"PATH": {}}', '{"PATH": null}', '{"PATH": [TIME, SIZE, 5]}']
)
def test_a_damaged_memory_of_sums_is_rewritten(entry: Entry, cache: Path, tmp_path: Path, memory: str):
    path = put(entry, tmp_path, "weights.pth")
    cache.mkdir()
    stat = path.stat()
    for word, value in (("PATH", path), ("TIME", stat.st_mtime_ns), ("SIZE", stat.st_size)):
        memory = memory.replace(word, str(value))
    (cache / "sha256.json").write_text(memory)
    assert weights.recognise(path) == (entry, True)
    assert str(path) in (cache / "sha256.json").read_text()
