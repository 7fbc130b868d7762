"""The page in a browser: what people do with it, with the network cut off."""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from photostyle import stylize
from photostyle.data.masks import COLOURS

EXAMPLES = Path(__file__).parents[2] / "examples"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
LONG = 60_000  # milliseconds: the machine may be busy
MISSING = [name for name in ("gradio", "playwright") if find_spec(name) is None]
if CHROMIUM is None:
    MISSING.append("chromium")

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@contextmanager
def served(temporary, *words, **environment):
    """The address of a server of its own process, for small pictures and small files."""
    if MISSING:
        reason = f"not installed: {', '.join(MISSING)}"
        if os.environ.get("REQUIRE_BROWSER") == "1":
            pytest.fail(f"REQUIRE_BROWSER=1, but {reason}", pytrace=False)
        pytest.skip(reason)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    small = ["size=128", "device=cpu", "max_megabytes=1", "max_pixels=2000000"]
    with subprocess.Popen(
        [sys.executable, "-m", "photostyle.app", f"port={port}", *small, *words],
        env={**os.environ, "TMPDIR": str(temporary), **environment},
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            line = server.stdout.readline()
            assert line.endswith(f":{port} (Ctrl-C ends it)\n")
            yield f"http://127.0.0.1:{port}"
        finally:
            server.send_signal(signal.SIGINT)
        assert server.wait(30) == 0
    assert not any(path.is_file() for path in temporary.rglob("*"))  # nothing anyone has uploaded


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with served(tmp_path_factory.mktemp("temporary")) as address:
        yield address


@pytest.fixture(scope="module")
def browser(address):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address):
    """A person's page. Nothing is asked of any other address, and nothing fails in its scripts."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(LONG)
    elsewhere, errors = [], []

    def only_here(route):
        if route.request.url.startswith((address, "data:", "blob:")):
            route.continue_()
        else:
            elsewhere.append(route.request.url)
            route.abort()

    context.route("**/*", only_here)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    page.wait_for_selector("#content input[type=file]", state="attached")
    yield page
    context.close()
    assert elsewhere == []
    assert errors == []


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """The current folder, with two photos and metadata."""
    monkeypatch.chdir(tmp_path)
    for name, example in (("a.jpg", "pavilion"), ("b.png", "sunset")):
        with Image.open(EXAMPLES / f"{example}.jpg") as image:
            exif = Image.Exif()
            exif[0x010F] = "Maker"
            image.resize((192, 128)).save(name, exif=exif)
    return tmp_path


def upload(page, argument, file):
    page.set_input_files(f"#{argument} input[type=file]", file)


def command_line(page, *words):
    """The shown command line once it has some words."""
    return shown(page, lambda text: all(word in text for word in words))


def shown(page, accepted):
    field = page.locator("#command textarea")
    for _ in range(LONG // 100):
        if accepted(text := field.input_value()):
            return text
        page.wait_for_timeout(100)
    raise AssertionError(f"still {text!r}")


def after(page):
    """The picture on the right of the slider."""
    return page.locator("#result img").evaluate_all("images => images.map(i => i.src)")


def changed(page, before):
    for _ in range(LONG // 100):
        if (sources := after(page)) != before and len(sources) == 2:
            return sources
        page.wait_for_timeout(100)
    raise AssertionError("still the same picture")


def message(page, text):
    """A message of the page that says this among other things; it is all returned."""
    toast = page.locator("[data-testid=toast-body]", has_text=text).first
    toast.wait_for()
    return toast.inner_text()


def ready(page):
    """Two photos, and the result of one pass."""
    upload(page, "content", "a.jpg")
    page.wait_for_selector("#result img")
    upload(page, "style", "b.png")
    command_line(page, "content=a.jpg", "style=b.png")


def downloaded(page, folder, button="#download"):
    with page.expect_download() as download:
        page.click(button)
    file = folder / "downloaded" / download.value.suggested_filename
    download.value.save_as(file)
    return file


def check_the_same(file, line, command):
    outcome = command(stylize.main, *shlex.split(line)[2:], "output=expected.jpg", "overwrite=true")
    assert outcome.code == 0, outcome.err
    assert file.read_bytes() == Path("expected.jpg").read_bytes()
    assert b"Maker" in file.read_bytes()


def test_a_photo_and_a_style(page, photos, command):
    """The result is there at once, at any strength, and the download is the command line's file."""
    ready(page)
    assert page.locator("#result img").count() == 2
    before = after(page)
    page.fill("#strength input[type=number]", "0.4")
    page.press("#strength input[type=number]", "Enter")
    line = command_line(page, "strength=0.4")
    changed(page, before)
    file = downloaded(page, photos)
    assert file.name == "a_b.jpg"
    check_the_same(file, line, command)


def test_the_lut(page, photos, command):
    """The command line's file; its residual is beside the button, its name in the command."""
    ready(page)
    page.fill("#strength input[type=number]", "0.4")
    page.press("#strength input[type=number]", "Enter")
    command_line(page, "strength=0.4")
    file = downloaded(page, photos, "#lut")
    assert file.name == "a_b.cube"
    line = command_line(page, "lut=a_b.cube", "strength=0.4")
    outcome = command(stylize.main, *shlex.split(line)[2:], "output=expected.jpg")
    assert outcome.code == 0, outcome.err
    assert file.read_bytes() == Path("a_b.cube").read_bytes()
    note = page.locator("#note").inner_text()
    assert note.startswith("a_b.cube: residual ")
    assert note.removeprefix("a_b.cube: ") in outcome.out


def test_the_command_can_be_copied(page, photos):
    ready(page)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click("#command button")
    line = command_line(page, "content=a.jpg")
    assert page.evaluate("navigator.clipboard.readText()") == line


def test_examples_and_networks(page):
    page.click("#content_examples button >> nth=2")
    page.wait_for_selector("#result img")
    page.click("#style_examples button >> nth=5")
    command_line(page, "content=pavilion.jpg", "style=sunset.jpg")
    page.click("#network input")
    page.get_by_role("option", name="dusk", exact=True).click()
    assert "style=" not in command_line(page, "network=dusk")
    page.click("#finer")
    message(page, "network=dusk: has a style of its own")


def test_the_optimiser(page, photos, command):
    """To its end with a preset, and a file as the command line's."""
    ready(page)
    before = after(page)
    page.get_by_label("strict", exact=True).check()
    page.click("#finer")
    page.wait_for_selector("#note progress")
    changed(page, before)
    line = command_line(page, "photorealism=strict")
    check_the_same(downloaded(page, photos), line, command)


def test_the_optimiser_stopped(page, photos):
    ready(page)
    page.get_by_label("loose", exact=True).check()
    page.click("#finer")
    page.wait_for_selector("#note:has-text('step')")
    page.click("#stop")
    page.wait_for_selector("#note:has-text('Ended early (interrupted)')")
    command_line(page, "photorealism=loose")
    page.wait_for_selector("#finer:enabled")
    page.wait_for_selector("#stop:disabled")
    assert downloaded(page, photos).name == "a_b.jpg"


def test_painted_regions(page, photos, command):
    """A stroke over the middle of the photo; its masks and the command line make the same file."""
    ready(page)
    before = after(page)
    page.click("#regions button >> nth=0")
    canvas = page.locator("#content_regions canvas").first
    canvas.scroll_into_view_if_needed()
    page.wait_for_selector("#content_regions button[aria-label=Brush]")
    page.wait_for_timeout(2000)  # until it is drawn, which nothing tells of
    box = canvas.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 60, y)
    page.mouse.down()
    page.mouse.move(x + 60, y, steps=10)
    page.mouse.up()
    page.wait_for_timeout(1000)
    page.click("#use")
    line = command_line(page, "content_mask=content_mask.png", "style_mask=style_mask.png")
    changed(page, before)
    for index, name in enumerate(("content_mask.png", "style_mask.png")):
        with page.expect_download() as download:
            page.click(f"#masks a >> nth={index}")
        assert download.value.suggested_filename == name
        download.value.save_as(name)
    mask = np.asarray(Image.open("content_mask.png"))
    height, width = mask.shape[:2]
    assert (mask[height // 2, width // 2 - 8 : width // 2 + 8] == COLOURS[0]).all()
    check_the_same(downloaded(page, photos), line, command)

    page.click("#merge")
    page.wait_for_timeout(3000)
    page.click("#reset")
    assert "mask" not in shown(page, lambda text: "mask" not in text)


def test_regions_have_names(page, photos):
    """On a phone, too: the name is in the menus and in messages, and two are not alike."""
    page.set_viewport_size({"width": 390, "height": 844})
    ready(page)
    page.click("#regions button >> nth=0")
    name = page.locator("#name_red :is(input, textarea)")
    assert name.input_value() == "red"
    box = name.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390
    name.fill("sky")
    name.press("Enter")
    page.wait_for_function("document.querySelector('#into input').value == 'sky'")
    page.click("#region input")
    page.get_by_role("option", name="sky", exact=True).click()
    page.locator("#name_blue :is(input, textarea)").fill("sky")
    page.locator("#name_green :is(input, textarea)").focus()
    message(page, "name=sky: another region has this name")


def test_what_is_no_photo(page, photos):
    """A message, and no traceback; the page goes on."""
    Path("text.jpg").write_text("This is not a picture.\n")
    upload(page, "content", "text.jpg")
    text = message(page, "photo=text.jpg: not a picture that can be read")
    assert "Traceback" not in text
    Image.new("RGB", (2000, 1200)).save("pixels.png")
    page.locator("#content button[aria-label=Clear]").click()
    upload(page, "content", "pixels.png")
    message(page, "photo=pixels.png: 2000 x 1200 pixels are too many")
    noise = np.random.default_rng(0).integers(0, 256, (600, 700, 3), np.uint8)
    Image.fromarray(noise).save("bytes.png")
    assert Path("bytes.png").stat().st_size > 1_000_000
    page.locator("#content button[aria-label=Clear]").click()
    upload(page, "content", "bytes.png")
    message(page, re.compile("maximum"))
    page.click("#download")
    message(page, "there is no result yet")


def test_a_name_with_all_sorts_of_signs(page, photos, command):
    name = "my photo (1), 50%.jpg"
    Path("a.jpg").rename(name)
    upload(page, "content", name)
    upload(page, "style", "b.png")
    line = command_line(page, "style=b.png")
    assert f"content={name}" in shlex.split(line)
    file = downloaded(page, photos)
    assert file.name == "my photo (1), 50%_b.jpg"
    check_the_same(file, line, command)


def test_two_people(page, browser, address, photos):
    """Neither sees what is the other's."""
    ready(page)
    other = browser.new_page()
    other.goto(address)
    other.wait_for_selector("#content input[type=file]", state="attached")
    assert other.locator("#command textarea").input_value() == ""
    assert other.locator("#result img").count() == 0
    for path in ("/etc/passwd", Path(__file__), Path("a.jpg").absolute()):
        response = other.request.get(f"{address}/gradio_api/file={path}")
        assert response.status in (403, 404)
    other.close()


def test_no_history(page, address):
    """What somebody did is nowhere to be looked up."""
    assert page.request.get(f"{address}/gradio_api/runs").status == 404


def test_another_address_asks_for_a_password(browser, tmp_path):
    with served(tmp_path, "host=0.0.0.0", "user=me", PHOTOSTYLE_PASSWORD="secret") as address:
        person = browser.new_context().request
        assert person.get(f"{address}/config").status == 401
        upload = {"files": {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": b"1"}}
        assert person.post(f"{address}/gradio_api/upload", multipart=upload).status == 401
        for password, status in (("guess", 401), ("secret", 200)):
            person.post(f"{address}/login", form={"username": "me", "password": password})
            assert person.get(f"{address}/config").status == status
