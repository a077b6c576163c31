"""The demo in a real Chromium: an upload is answered, a broken one refused, nothing is asked of another server."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import chromium
import cv2
import numpy as np
import pytest

from vit_jax import demo

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def start(port, *models):
    words = [sys.executable, "-m", "vit_jax", "demo", *models, f"--port={port}"]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def address():
    port = free_port()
    with start(port, "tests/golden/hf_classifier", "tests/golden/hf_detector") as process:
        line = process.stdout.readline()
        assert line.startswith(f"http://127.0.0.1:{port} "), line + process.stderr.read()
        yield f"http://127.0.0.1:{port}/"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)


def upload(browser, file):
    """Gives a file to the page's input."""
    root = browser.call("DOM.getDocument")["root"]["nodeId"]
    node = browser.call("DOM.querySelector", nodeId=root, selector="input[type=file]")["nodeId"]
    browser.call("DOM.setFileInputFiles", nodeId=node, files=[str(file)])


def wait_for(browser, expression, seconds=60):
    until = time.monotonic() + seconds
    while not browser.value(expression):
        assert time.monotonic() < until, browser.value("document.body.innerText")
        time.sleep(0.2)


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_an_image_is_answered_at_desktop_and_phone_width(address, tmp_path, width):
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    (tmp_path / "photo.png").write_bytes(cv2.imencode(".png", image)[1].tobytes())
    best = next(iter(demo.show(str(GOLDEN / "hf_classifier")).answers["Classes"](image[..., ::-1])))
    found = chromium.find_chromium()
    assert found, "no Chromium on this machine: leave this test out with -m 'not browser'"
    with chromium.start(found) as browser:
        browser.open(address, width=width)
        wait_for(browser, "!!document.querySelector('input[type=file]')")
        upload(browser, tmp_path / "photo.png")
        wait_for(browser, f"document.body.innerText.includes({best!r})")
        wait_for(browser, "document.querySelectorAll('img').length >= 3")  # two maps of attention, and the boxes
        assert browser.value("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
        (tmp_path / "broken.png").write_text("no image")
        browser.open(address, width=width)
        wait_for(browser, "!!document.querySelector('input[type=file]')")
        upload(browser, tmp_path / "broken.png")
        wait_for(browser, "document.body.innerText.includes('cannot be read as an image')")
        # Gradio 6.31 logs this of itself whenever a page loads.
        assert [text for text in browser.complaints if "Method not implemented." not in text] == []


@pytest.mark.browser
@pytest.mark.parametrize("megabytes", [21, 100])
def test_an_upload_that_is_too_large_is_refused_kindly_and_the_next_one_is_answered(address, tmp_path, megabytes):
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    (tmp_path / "photo.png").write_bytes(cv2.imencode(".png", image)[1].tobytes())
    with open(tmp_path / "large.png", "wb") as file:
        file.truncate(megabytes * 2**20)
    with chromium.start(chromium.find_chromium()) as browser:
        browser.open(address, width=1280)
        wait_for(browser, "!!document.querySelector('input[type=file]')")
        upload(browser, tmp_path / "large.png")
        wait_for(browser, "document.body.innerText.includes('exceed the maximum allowed size of 20')")
        upload(browser, tmp_path / "photo.png")
        wait_for(browser, "document.body.innerText.includes('LABEL_')")
        # Gradio's own: what it logs of every page, and its question after the progress of an upload that is refused already.
        gradios = ("Method not implemented.", "/gradio_api/upload_progress")
        assert [text for text in browser.complaints if not any(words in text for words in gradios)] == []


def test_a_port_in_use_is_one_message(address):
    port = int(address.rstrip("/").rpartition(":")[2])
    with start(port, "tests/golden/hf_classifier") as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert f"port {port} of 127.0.0.1 cannot be had" in err
    assert "Traceback" not in err
