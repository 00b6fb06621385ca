"""ONNX Runtime for browsers: the two files of the npm package onnxruntime-web that a page needs."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
from http.client import HTTPException
from pathlib import Path

from ...errors import ExportError
from ...files import write_bytes
from ...zoo.weights import cache_folder

NAMED, VERSION = "POCKETVISION_ORT_WEB", "1.30.0"
URL = f"https://cdn.jsdelivr.net/npm/onnxruntime-web@{VERSION}/"
PUBLISHED = {  # SHA-256
    "package.json": "16f69f755509990539aeb1c8445884960e91adcacab2e8dca8e44ee43601df5c",
    "dist/ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    "dist/ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
TIMEOUT_S = 60
FILES = {"ort.wasm.bundle.min.mjs": "ort.js", "ort-wasm-simd-threaded.wasm": "ort-wasm-simd-threaded.wasm"}
LICENSE = "ort-LICENSE.txt"
_MIT = """onnxruntime-web {version} (ort.js and ort-wasm-simd-threaded.wasm), MIT License

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def runtime_files() -> dict[str, bytes]:
    """The runtime's files by the names that the page gives them, with their licence.

    Taken from the package that POCKETVISION_ORT_WEB names (its folder, as npm installs it, or its .tgz of any version),
    else from the cache, a download or `npm pack`, each file checked by its SHA-256. Raises ExportError with what to do.
    """
    named = os.environ.get(NAMED)
    try:
        if named and Path(named).is_dir():
            found = {file: (Path(named) / file).read_bytes() for file in PUBLISHED}
        elif named:
            found = _unpacked(Path(named).read_bytes())
        else:
            found = _published()
        package = json.loads(found.pop("package.json"))
        if package["name"] != "onnxruntime-web":
            raise ValueError(f"it is {package['name']}")
    except (OSError, KeyError, ValueError, tarfile.TarError) as error:
        raise ExportError(
            f"{named or 'onnxruntime-web'} is not the npm package onnxruntime-web ({error}); name the folder "
            f"node_modules/onnxruntime-web or the file of `npm pack onnxruntime-web` in {NAMED}"
        ) from None
    files = {new: found[f"dist/{old}"] for old, new in FILES.items()}
    return files | {LICENSE: _MIT.format(version=package["version"]).encode()}


def _unpacked(content: bytes) -> dict[str, bytes]:
    """The files that are needed from a package, by their paths in it."""
    found = dict[str, bytes]()
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for path in PUBLISHED:
            member = archive.extractfile(f"package/{path}")
            if member is None:
                raise KeyError(f"{path} is no file")
            found[path] = member.read()
    return found


def _published() -> dict[str, bytes]:
    """The same from the cache, or downloaded into it."""
    folder = cache_folder() / f"onnxruntime-web-{VERSION}"
    found = {path: (folder / path).read_bytes() for path in PUBLISHED if (folder / path).is_file()}
    if _wrong(found):
        try:
            found = {path: _download(URL + path) for path in PUBLISHED}
        except (OSError, HTTPException) as error:
            found = _from_npm(f"cannot download ONNX Runtime Web from {URL} ({error})")
        if wrong := _wrong(found):
            raise ExportError(f"onnxruntime-web {VERSION} came with another {wrong} than the published one; try again")
        for path, content in found.items():
            write_bytes(folder / path, content)
    return found


def _wrong(found: dict[str, bytes]) -> str | None:
    """The first file that is not there or not the published one."""
    sha256 = {path: hashlib.sha256(content).hexdigest() for path, content in found.items()}
    return next((path for path, published in PUBLISHED.items() if sha256.get(path) != published), None)


def _download(url: str) -> bytes:
    request = urllib.request.Request(url, headers={"User-Agent": "pocketvision"})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        return answer.read()


def _from_npm(cause: str) -> dict[str, bytes]:
    """By the npm client, where there is one: it knows the registry that this machine is to use."""
    npm = shutil.which("npm")
    with tempfile.TemporaryDirectory() as folder:
        if npm:
            command = [npm, "pack", "--silent", f"onnxruntime-web@{VERSION}"]
            subprocess.run(command, cwd=folder, capture_output=True, check=False, timeout=5 * TIMEOUT_S)
        for package in Path(folder).glob("*.tgz"):
            return _unpacked(package.read_bytes())
    raise ExportError(
        f"{cause}{', nor by npm' if npm else ''}. On a machine without network, name the file of "
        f"`npm pack onnxruntime-web@{VERSION}`, run elsewhere, in {NAMED}"
    )
