"""The documentation site: it builds without a broken link, holds every key of a config, and asks nobody but its own server."""

import functools
import http.server
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import chromium
import pytest

from vit_jax import config as configs
from vit_jax.cli.main import VERBS
from vit_jax.run.schema import SCHEMA

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("index", "keys", "verbs", "python", "models", "sharing")


def build(to, *options):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", f"--site-dir={to}", *options]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)


def found_words(page):
    until = time.monotonic() + 20
    while not (text := page.value("document.querySelector('.md-search-result__list').innerText")):
        assert time.monotonic() < until, "the search finds nothing"
        time.sleep(0.2)
    return text


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    to = tmp_path_factory.mktemp("site")
    done = build(to)
    assert done.returncode == 0, done.stderr
    return to


def test_a_broken_link_fails_the_build(tmp_path):
    text = (ROOT / "mkdocs.yml").read_text().replace("docs_dir: docs", f"docs_dir: {tmp_path}/docs")
    text = text.replace("hooks: [docs/pages.py]", "").partition("nav:")[0]
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("[a](gone.md)")
    (tmp_path / "mkdocs.yml").write_text(text)
    done = build(tmp_path / "to", f"--config-file={tmp_path}/mkdocs.yml")
    assert done.returncode == 1
    assert "gone.md" in done.stdout + done.stderr


def test_every_key_of_a_config_and_every_verb_has_its_place(site):
    keys, verbs = (site / "keys.html").read_text(), (site / "verbs.html").read_text()
    for section in SCHEMA.values():
        readers = section.reader.values() if isinstance(section.reader, dict) else [section.reader]
        for reader in readers:
            for key in configs.hints(reader, section.injected):
                assert f"<td><code>{key}</code></td>" in keys
    assert "<td><code>lr</code></td>" in keys
    assert [name for name in VERBS if f'id="{name}"' not in verbs] == []


@pytest.mark.browser
def test_pages_fit_a_phone_find_words_and_ask_no_other_server(site):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(site))
    handler.log_message = lambda *_: None
    found = chromium.find_chromium()
    assert found, "no Chromium on this machine: leave this test out with -m 'not browser'"
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, chromium.start(found) as page:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        for name in PAGES:
            for width in (1280, 390):
                page.open(f"{address}/{name}.html", width=width)
                assert page.value("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
                assert page.value("[...document.images].filter(image => !image.naturalWidth).length") == 0
        page.open(f"{address}/index.html?q=clip_norm", width=1280)
        assert "Keys of a config" in found_words(page)
        server.shutdown()
        assert page.complaints == []


@pytest.mark.browser
def test_the_search_finds_words_on_pages_opened_from_disk(site):
    found = chromium.find_chromium()
    assert found, "no Chromium on this machine: leave this test out with -m 'not browser'"
    with chromium.start(found) as page:
        for name, width in (("index", 1280), ("use", 390)):
            page.open(site / f"{name}.html", width=width)
            page.value("document.querySelector('.md-header__button[for=__search]').click()")
            page.value("document.querySelector('.md-search__input').focus()")
            for letter in "clip_norm":
                page.call("Input.dispatchKeyEvent", type="keyDown", text=letter)
                page.call("Input.dispatchKeyEvent", type="keyUp")
            assert "Keys of a config" in found_words(page)
        address = page.value("document.querySelector('.md-search-result__link').href")
        assert address.startswith((site / "keys.html").resolve().as_uri())
        assert page.complaints == []
