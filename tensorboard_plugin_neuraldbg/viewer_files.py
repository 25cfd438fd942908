"""The viewer's own files: what the build put into `static/`, and nothing else."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tensorboard_plugin_neuraldbg.requests import NOT_FOUND, RequestError

FOLDER = Path(__file__).parent / "static"
ENTRY = "index.js"
NOT_BUILT = "The viewer was not built; run `pip install .` in NeuralDbg's source folder, then start TensorBoard again."

# A browser refuses a script of another type, and what Python's `mimetypes` says depends on the machine.
MIME_TYPES = {
    ".js": "text/javascript",
    ".css": "text/css",
    ".json": "application/json",
    ".map": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".wasm": "application/wasm",
    ".woff2": "font/woff2",
    ".txt": "text/plain",
}
_COMPRESSIBLE = {".js", ".css", ".json", ".map", ".svg", ".wasm", ".txt"}


@dataclass(frozen=True)
class ViewerFile:
    """One file as it is sent; `encoding` is "gzip" where `content` is compressed."""

    content: bytes
    mime_type: str
    encoding: str | None


def find(name: str) -> ViewerFile:
    """Return the file `name` of the viewer.

    Where the viewer was not built, its entry module is one that says so in the page.

    Raises:
        RequestError: there is no such file.
    """
    # Names are compared with what the folder lists, so that no name can lead out of it.
    present = {path.name: path for path in FOLDER.iterdir() if _is_ours(path)} if FOLDER.is_dir() else {}
    if name in present:
        path = present[name]
        return _read(path, path.stat().st_mtime_ns)
    if ENTRY not in present:
        if name == ENTRY:
            return ViewerFile(_placeholder(), MIME_TYPES[".js"], None)
        raise RequestError(NOT_FOUND, NOT_BUILT)
    raise RequestError(NOT_FOUND, f"The viewer has no file {name!r}.")


def _is_ours(path: Path) -> bool:
    return path.suffix in MIME_TYPES and path.is_file() and not path.is_symlink()


@lru_cache(maxsize=64)
def _read(path: Path, _modified: int) -> ViewerFile:
    """Read and compress a file once for each time that it was changed."""
    content, mime_type = path.read_bytes(), MIME_TYPES[path.suffix]
    if path.suffix in _COMPRESSIBLE:
        return ViewerFile(gzip.compress(content, mtime=0), mime_type, "gzip")
    return ViewerFile(content, mime_type, None)


def _placeholder() -> bytes:
    return f"export function render() {{\n  document.body.textContent = {json.dumps(NOT_BUILT)};\n}}\n".encode()
