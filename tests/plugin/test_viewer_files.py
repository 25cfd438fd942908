import gzip

import pytest

from tensorboard_plugin_neuraldbg import viewer_files

SCRIPT = b"export function render() {}\n" * 50


@pytest.fixture
def static(tmp_path, monkeypatch):
    """Return a viewer's folder with an entry module, beside a file that is no business of a browser."""
    folder = tmp_path / "static"
    folder.mkdir()
    (folder / "index.js").write_bytes(SCRIPT)
    (folder / "worker.js").write_bytes(b"1;")
    (folder / "font.woff2").write_bytes(bytes(range(9)))
    (folder / "notes.py").write_text("secret")
    (folder / "folder.js").mkdir()
    (tmp_path / "secret.js").write_text("secret")
    (folder / "link.js").symlink_to(tmp_path / "secret.js")
    monkeypatch.setattr(viewer_files, "FOLDER", folder)
    return folder


@pytest.mark.parametrize(
    ("name", "content", "mime_type"),
    [
        ("index.js", SCRIPT, "text/javascript; charset=utf-8"),
        ("worker.js", b"1;", "text/javascript; charset=utf-8"),
        ("font.woff2", bytes(range(9)), "font/woff2"),
    ],
)
@pytest.mark.usefixtures("static")
def test_a_file_of_the_viewer(server, name, content, mime_type):
    response = server.get(f"/data/plugin/neuraldbg/{name}")
    assert (response.status_code, response.data) == (200, content)
    assert response.headers["Content-Type"] == mime_type
    assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.usefixtures("static")
def test_a_script_is_sent_compressed_to_who_takes_it(server):
    path = "/data/plugin/neuraldbg/index.js"
    response = server.get(path, headers={"Accept-Encoding": "gzip"})
    assert response.headers["Content-Encoding"] == "gzip"
    assert len(response.data) < len(SCRIPT)
    assert gzip.decompress(response.data) == SCRIPT
    assert "Content-Encoding" not in server.get(path, headers={"Accept-Encoding": "identity"}).headers
    assert (
        "Content-Encoding"
        not in server.get("/data/plugin/neuraldbg/font.woff2", headers={"Accept-Encoding": "gzip"}).headers
    )


def test_a_viewer_built_again_is_sent_anew(server, static):
    before = server.get("/data/plugin/neuraldbg/worker.js").data
    (static / "worker.js").write_bytes(b"2;")
    assert (before, server.get("/data/plugin/neuraldbg/worker.js").data) == (b"1;", b"2;")


@pytest.mark.parametrize(
    "name",
    [
        "../secret.js",
        "..%2fsecret.js",
        "%2e%2e/secret.js",
        "....//secret.js",
        "..\\secret.js",
        "/etc/passwd",
        "//etc/passwd",
        "static/../../secret.js",
        "folder.js",
        "folder.js/",
        "link.js",
        "notes.py",
        "index.js%00.css",
        ".",
        "..",
        "INDEX.JS",
    ],
)
@pytest.mark.usefixtures("static")
def test_no_name_leads_to_anything_else(server, name):
    response = server.get(f"/data/plugin/neuraldbg/{name}")
    assert response.status_code == 404
    assert b"secret" not in response.data.replace(b"secret.js", b"")


@pytest.mark.usefixtures("static")
def test_a_file_that_is_not_there(server):
    response = server.get("/data/plugin/neuraldbg/other.js")
    assert (response.status_code, response.json) == (404, {"error": "The viewer has no file 'other.js'."})


def test_a_viewer_that_was_not_built_says_so_in_the_page(server, monkeypatch, tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        monkeypatch.setattr(viewer_files, "FOLDER", folder)
        response = server.get("/data/plugin/neuraldbg/index.js")
        assert (response.status_code, response.mimetype) == (200, "text/javascript")
        sentence = (
            "The viewer was not built; run `pip install .` in NeuralDbg's source folder, then start TensorBoard again."
        )
        assert response.text == f'export function render() {{\n  document.body.textContent = "{sentence}";\n}}\n'
