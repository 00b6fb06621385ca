"""ONNX Runtime for browsers: the two files of the npm package onnxruntime-web that a page needs."""

import hashlib
import io
import json
import os
import tarfile
import urllib.request
from http.client import HTTPException
from pathlib import Path

from ...errors import ExportError
from ...files import write_bytes
from ...zoo.weights import cache_folder

NAMED, VERSION = "POCKETVISION_ORT_WEB", "1.30.0"
URL = f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"
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
    else from the cache or the npm registry, whose file is checked by its SHA-256. Raises ExportError with what to do.
    """
    named = os.environ.get(NAMED)
    try:
        if named and Path(named).is_dir():
            found = {file: _in_folder(Path(named), file) for file in ("package.json", *_paths())}
        elif named:
            found = _unpacked(Path(named).read_bytes())
        else:
            found = _unpacked(_package())
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


def _paths() -> list[str]:
    return [f"dist/{file}" for file in FILES]


def _in_folder(folder: Path, file: str) -> bytes:
    return (folder / file).read_bytes()


def _unpacked(content: bytes) -> dict[str, bytes]:
    """The files that are needed from a package, by their paths in it."""
    found = dict[str, bytes]()
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for path in ("package.json", *_paths()):
            member = archive.extractfile(f"package/{path}")
            if member is None:
                raise KeyError(f"{path} is no file")
            found[path] = member.read()
    return found


def _package() -> bytes:
    """The npm package, from the cache or downloaded into it."""
    path = cache_folder() / f"onnxruntime-web-{VERSION}.tgz"
    if path.is_file() and hashlib.sha256(content := path.read_bytes()).hexdigest() == SHA256:
        return content
    try:
        request = urllib.request.Request(URL, headers={"User-Agent": "pocketvision"})
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            content = answer.read()
    except (OSError, HTTPException) as error:
        raise ExportError(
            f"cannot download ONNX Runtime Web from {URL}: {error}. On a machine without network, fetch that file "
            f"elsewhere and put it into {cache_folder()}, or name it in {NAMED}"
        ) from None
    if (sha256 := hashlib.sha256(content).hexdigest()) != SHA256:
        raise ExportError(f"{URL} sent another file than the published one (sha256 {sha256}); try again")
    write_bytes(path, content)
    return content
