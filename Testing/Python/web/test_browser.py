"""`usema web` as a person uses it: a real server, a real headless Chromium, a real mouse."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest
import SimpleITK as sitk

pytest.importorskip("trame_slicer", reason="the browser front end (extra `web`) is not installed")
webdriver = pytest.importorskip("selenium.webdriver")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

pytestmark = [
    pytest.mark.slow(3),
    pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="Chromium and its driver are not installed"),
]
SWITCHES = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,900",
)


class Browser:
    """Chromium on a page of `usema web`."""

    def __init__(self, address: str, folder: Path):
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for switch in (*SWITCHES, f"--user-data-dir={folder / 'profile'}"):
            options.add_argument(switch)
        self.downloads = folder / "downloads"
        self.downloads.mkdir()
        preferences = {"profile.default_content_setting_values.automatic_downloads": 1}  # several without a question
        options.add_experimental_option("prefs", {"download.default_directory": str(self.downloads), **preferences})
        options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
        self.driver.get(address)
        self.until(lambda: self.one(".usema-segment"))

    def one(self, selector: str):
        """The element that is to be seen; the last of several."""
        return [found for found in self.driver.find_elements("css selector", selector) if found.is_displayed()][-1]

    def until(self, condition: Callable, seconds: float = 120):
        """Wait until something is there that is true."""
        end, failure = time.monotonic() + seconds, None
        while time.monotonic() < end:
            try:
                if found := condition():
                    return found
            except Exception as error:  # not there yet
                failure = error
            time.sleep(0.2)
        raise AssertionError(f"it did not come: {failure}")

    def button(self, icon: str):
        """It is asked for again if the page is drawn anew meanwhile."""
        return self.until(lambda: self.one(f"button:has(.{icon})"))

    def open(self, *paths: Path) -> None:
        """Send files by the button that opens them; while some are read, it is not there."""
        files = "input[type=file]:not([webkitdirectory])"
        self.until(lambda: self.driver.find_elements("css selector", files))[0].send_keys("\n".join(map(str, paths)))

    def stroke(self, start: tuple[int, int], length: int) -> None:
        """A stroke of the mouse to the right, button down."""
        actions = webdriver.ActionChains(self.driver, duration=80)
        pointer = actions.w3c_actions.pointer_action
        pointer.move_to_location(*start)
        pointer.pointer_down()
        for step in range(8, length, 8):
            pointer.move_to_location(start[0] + step, start[1])
        pointer.pointer_up()
        actions.perform()

    def download(self) -> dict[str, np.ndarray]:
        """The segmentation as it comes down: name of each segment -> its voxels (z, y, x)."""
        self.until(lambda: self.one(".usema-save")).click()
        path = self.until(lambda: [*self.downloads.glob("*.seg.nrrd")])[0]
        found = segments(path)
        path.unlink()
        return found

    def addresses(self) -> list[str]:
        """Every address that a page has asked for."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return [each["request"]["url"] for each in sent]


def segments(path: Path) -> dict[str, np.ndarray]:
    image = sitk.ReadImage(str(path))
    voxels = sitk.GetArrayFromImage(image)
    found = {}
    for number in range(100):
        if image.HasMetaDataKey(f"Segment{number}_Name"):
            value = int(image.GetMetaData(f"Segment{number}_LabelValue"))
            found[image.GetMetaData(f"Segment{number}_Name")] = voxels == value
    return found


@pytest.fixture(scope="module")
def server():
    """`usema web` with nothing open: (process, address with the token)."""
    command = [sys.executable, "-c", "from usema.cli import main; main()", "web", "--no-browser"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    address = next(found[0] for line in process.stdout if (found := re.search(r"http://\S+", line)))
    yield process, address
    process.send_signal(signal.SIGINT)
    assert process.wait(60) is not None


@pytest.fixture(scope="module")
def browser(server, tmp_path_factory):
    browser = Browser(server[1], tmp_path_factory.mktemp("browser"))
    yield browser
    browser.driver.quit()


def test_a_person_opens_segments_paints_undoes_and_downloads(browser, root, tmp_path):
    nonsense = tmp_path / "notes.txt"
    nonsense.write_text("no volume")
    browser.open(nonsense)
    browser.until(lambda: "notes.txt could not be read" in browser.one(".usema-message").text)
    assert not browser.one(".usema-segment").is_enabled()

    browser.open(root / "Resources/Samples/hippocampus_149.nii.gz")
    browser.until(lambda: browser.one(".usema-segment").is_enabled())
    browser.one(".usema-segment").click()
    browser.until(lambda: "Done in" in browser.one(".usema-message").text)
    made = browser.download()
    assert set(made) >= {"Anterior hippocampus", "Posterior hippocampus"}

    browser.one(".usema-correct").click()
    # The effect beside the eraser, and not the button of the editor, which has the same picture.
    brush = "button:has(.mdi-brush):has(~ button .mdi-eraser)"
    browser.until(lambda: browser.one(brush).is_enabled())
    browser.one(brush).click()
    # The axial view is the large one; the stroke lies on its left half, where nothing was found.
    browser.until(lambda: browser.one(f"{brush}.v-btn--active"))

    def paints() -> bool:
        browser.stroke((480, 300), 70)  # the tool may not have reached the view yet
        time.sleep(2)
        return browser.button("mdi-undo").is_enabled()

    browser.until(paints)
    browser.one("button:has(.mdi-brain)").click()
    painted = browser.download()
    added = sum(int(np.count_nonzero(voxels)) for voxels in painted.values())
    added -= sum(int(np.count_nonzero(voxels)) for voxels in made.values())
    assert added > 10

    def undoes() -> bool:
        if browser.button("mdi-undo").is_enabled():  # there may be more than one stroke
            browser.button("mdi-undo").click()
            time.sleep(1)
        return not browser.button("mdi-undo").is_enabled()

    browser.until(undoes)
    undone = browser.download()
    assert {name: int(voxels.sum()) for name, voxels in undone.items()} == {
        name: int(voxels.sum()) for name, voxels in made.items()
    }


def test_a_download_is_called_as_its_volume_in_any_script(browser, root, tmp_path):
    sample = shutil.copy(root / "Resources/Samples/hippocampus_149.nii.gz", tmp_path / "Müller_海馬.nii.gz")
    browser.open(sample)
    browser.until(lambda: "Müller_海馬" in browser.one(".usema-volume").text)
    # A double click, whose second half would cancel what the first began.
    webdriver.ActionChains(browser.driver).double_click(browser.one(".usema-segment")).perform()
    browser.until(lambda: "Müller_海馬" in browser.one(".usema-segmentation").text)
    browser.until(lambda: browser.one(".usema-save")).click()
    path = browser.until(lambda: [*browser.downloads.glob("*.seg.nrrd")])[0]
    path.unlink()
    assert path.name.startswith("Müller_海馬 ")


def test_nothing_is_asked_of_any_other_computer(browser, server):
    host = server[1].split("/")[2]
    others = [one for one in browser.addresses() if one.startswith(("http", "ws")) and one.split("/")[2] != host]
    assert others == []


@pytest.mark.parametrize("path", ["", "index.html", "ws", "?token=wrong"])
def test_without_the_token_there_is_nothing(server, path):
    address = server[1].partition("?")[0] + path
    with pytest.raises(HTTPError) as refused:
        urlopen(Request(address), timeout=20)
    assert refused.value.code == 403


def test_who_asks_the_socket_for_a_page_is_told_that_it_is_none(server):
    address, _, token = server[1].partition("?token=")
    cookie = f"usema_token_{address.split(':')[2].strip('/')}={token}"
    with pytest.raises(HTTPError) as refused:
        urlopen(Request(f"{address}ws", headers={"Cookie": cookie}), timeout=20)
    assert refused.value.code == 400


@pytest.fixture
def taken():
    """A port that another program listens on."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (["--port", "{taken}"], ["Port {taken} of 127.0.0.1 is in use by another program.", "Give another one"]),
        (["--host", "999.1.1.1"], ["999.1.1.1 is no address of this computer", "Leave out --host"]),
        (["--host", "192.0.2.1"], ["192.0.2.1 is no address of this computer", "Leave out --host"]),  # nobody's
    ],
)
def test_where_nobody_can_listen_is_told_with_what_to_do(taken, arguments, messages):
    given = [one.format(taken=taken) for one in arguments]
    command = [sys.executable, "-c", "from usema.cli import main; main()", "web", "--no-browser", *given]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert all(message.format(taken=taken) in ended.stderr for message in messages), ended.stderr


def test_a_page_of_another_site_opens_no_socket_even_with_the_cookie(server):
    address, _, token = server[1].partition("?token=")
    cookie = f"usema_token_{address.split(':')[2].strip('/')}={token}"
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    headers = {"Cookie": cookie, "Origin": "http://elsewhere.example", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}
    with pytest.raises(HTTPError) as refused:
        urlopen(Request(f"{address}ws", headers={**headers, **upgrade}), timeout=20)
    assert refused.value.code == 403
    own = Request(f"{address}index.html", headers={"Cookie": cookie})
    assert urlopen(own, timeout=20).status == 200
