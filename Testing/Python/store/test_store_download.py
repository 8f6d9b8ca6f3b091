"""Downloading from a real server that misbehaves: the whole verified file or none, and a message that helps."""

from __future__ import annotations

import re
import time
from email.utils import formatdate

import faulty_server as faulty
import pytest
from download_cases import CONTENT, SHA256, SIZE, assert_whole, get, part_of, put_part, refused
from faulty_server import FaultyServer, cut_at, running, serve, status
from usema.errors import StoreError
from usema.store import download, web

pytest_plugins = ["download_fixtures"]


def be_impatient(what: str, monkeypatch) -> None:
    """Only where a server falls silent: on a busy computer, a good one may take a moment."""
    if what.startswith(("stall", "silence")):
        monkeypatch.setattr(web, "READ_TIMEOUT", 0.3)


# Faults after which the whole file is there


GET_OVER_IT = {
    "no fault": [],
    "cut at the first tenth": [cut_at(1)],
    **{f"cut at tenths 1 to {n}": [cut_at(tenth) for tenth in range(1, n + 1)] for n in (5, 9)},
    "cut before the first byte": [cut_at(0)],
    "cut before the first byte, four times": [cut_at(0)] * 4,
    "cut at the last byte but the file is complete": [cut_at(10)],
    "no Range": [faulty.without_range],
    "no Range after a cut": [cut_at(4), faulty.without_range],
    "no Range and a cut, again and again": [cut_at(tenth, faulty.without_range) for tenth in (3, 5, 7)],
    "no Content-Length": [faulty.without_length],
    "no Content-Length, cut": [cut_at(3, faulty.without_length)],
    "chunked": [faulty.chunked(cut=False)],
    "chunked, cut": [faulty.chunked(cut=True)],
    "206 without Content-Range": [cut_at(4), faulty.wrong_range("missing")],
    "206 that begins too late": [cut_at(4), faulty.wrong_range("later")],
    "206 that begins too early": [cut_at(4), faulty.wrong_range("earlier")],
    "416": [cut_at(4), faulty.range_not_satisfiable],
    "changed between the halves, and back": [cut_at(5, faulty.other_content)],
    "stall": [faulty.stall],
    "stalls, each after half of the rest": [faulty.stall] * 3,
    "silence": [faulty.silent],
    "gzip": [faulty.gzipped],
    "gzip, cut": [cut_at(5), faulty.gzipped],
    "redirect": [faulty.redirect("/elsewhere")],
    "no HTTP": [faulty.no_http],
    **{str(code): [status(code)] for code in (408, 429, 500, 502, 503, 504)},
    "429 with Retry-After in seconds": [status(429, Retry_After="0")],
    "503 with Retry-After as a date": [status(503, Retry_After=formatdate(time.time() - 5, usegmt=True))],
    "503 with a Retry-After that means nothing": [status(503, Retry_After="soon")],
    "500 and cuts in turn": [status(500), cut_at(2), status(500), status(500), cut_at(6), status(503)],
}  # fmt: skip


@pytest.mark.fault
@pytest.mark.parametrize("what", GET_OVER_IT)
def test_the_whole_file_comes_after(what, server, target, monkeypatch):
    be_impatient(what, monkeypatch)
    server.faults = list(GET_OVER_IT[what])
    assert get(server.url(), target) == target
    assert_whole(target)


@pytest.mark.fault
@pytest.mark.parametrize("tenth", range(1, 10))
def test_after_a_cut_at_every_tenth_only_the_rest_is_sent_again(tenth, server, target):
    server.faults = [cut_at(tenth)]
    get(server.url(), target)
    assert_whole(target)
    assert server.sent == SIZE
    assert [asked for _, asked in server.requests] == [None, f"bytes={SIZE * tenth // 10}-"]


def test_a_part_is_gone_on_from_by_the_next_run_and_by_another_mirror(server, target):
    server.always = status(500)
    server.faults = [cut_at(6)]
    refused(server.url(), target)
    assert part_of(target).stat().st_size == SIZE * 6 // 10
    with running(FaultyServer(CONTENT)) as mirror:
        get([server.url("gone"), mirror.url()], target)
        assert mirror.sent == SIZE * 4 // 10
    assert_whole(target)


@pytest.mark.fault
@pytest.mark.parametrize(
    ("part", "asked"),
    [
        (CONTENT, []),
        (CONTENT[:-1], [f"bytes={SIZE - 1}-"]),
        (bytes(SIZE // 2), [f"bytes={SIZE // 2}-", None]),
        (bytes(SIZE), [None]),
        (CONTENT + b"more", [None]),
        (b"", [None]),
    ],
    ids=["whole", "all but a byte", "of another file", "all of another file", "too long", "empty"],
)
def test_whatever_part_is_found_the_file_becomes_whole(part, asked, server, target):
    put_part(target, part)
    get(server.url(), target)
    assert_whole(target)
    assert [range for _, range in server.requests] == asked


def test_what_is_whole_already_is_not_downloaded_again(server, target):
    get(server.url(), target)
    get(server.url(), target)
    assert len(server.requests) == 1
    target.write_bytes(bytes(SIZE))  # altered on the disk
    get(server.url(), target)
    assert_whole(target)


# Faults after which there is no file


NOT_TO_BE_HAD = {
    "wrong Content-Length, longer": (faulty.wrong_length(100), "has a file of 1000100 bytes, and the index says"),
    "wrong Content-Length, shorter": (faulty.wrong_length(-100), "has a file of 999900 bytes"),
    "wrong hash": (faulty.other_content, "its SHA-256 is [0-9a-f]{64}, not " + SHA256),
    "wrong hash, cut and changed again": (cut_at(5, faulty.other_content), "cut"),
    "401": (status(401), r"localhost or a proxy on the way refuses it \(401\)"),
    "403": (status(403), r"localhost or a proxy on the way refuses it \(403\)"),
    "404": (status(404), r"is not there \(404\)"),
    "410": (status(410), r"is not there \(410\)"),
    "418": (status(418), "unexpected status 418"),
    "304": (status(304), "unexpected status 304"),
    "429 for ever": (status(429), r"has too many requests \(429\)"),
    "500 for ever": (status(500), r"has a problem of its own \(500\)"),
    "503 for ever": (status(503, Retry_After="0"), r"has a problem of its own \(503\)"),
    "cut before the first byte for ever": (cut_at(0), "cut"),
    "no Range, cut at half for ever": (cut_at(5, faulty.without_range), "cut"),
    "silence for ever": (faulty.silent, "nothing came from localhost"),
    "web page": (faulty.web_page(length=True), "sent a web page instead of the file"),
    "web page without a length": (faulty.web_page(length=False), "sent a web page instead of the file"),
    "endless": (faulty.endless, "its SHA-256 is"),
    "broken gzip": (faulty.broken_gzip, "cannot be decompressed"),
    "redirect in circles": (faulty.redirect_in_circles, "leads in circles"),
    "redirect to a file of this computer": (faulty.redirect("file:///etc/hostname"), "no address on the web"),
    "no HTTP for ever": (faulty.no_http, "cut"),
}


@pytest.mark.fault
@pytest.mark.parametrize("what", NOT_TO_BE_HAD)
def test_there_is_no_file_and_the_message_says_why_after(what, server, target, monkeypatch):
    be_impatient(what, monkeypatch)
    server.always, message = NOT_TO_BE_HAD[what]
    error = refused(server.url("a"), target)
    assert re.search(message, error.message)
    assert len(server.requests) <= 11
    # and the next mirror has it
    with running(FaultyServer(CONTENT)) as mirror:
        get([server.url("a"), mirror.url()], target)
    assert_whole(target)


@pytest.mark.fault
@pytest.mark.parametrize(
    "what", ["web page", "web page without a length", "404", "500 for ever", "wrong Content-Length, longer"]
)
def test_a_good_part_survives_answers_that_are_not_the_file(what, server, target):
    put_part(target, CONTENT[: SIZE // 2])
    server.always, _ = NOT_TO_BE_HAD[what]
    error = refused(server.url(), target)
    assert "0.5 MB are kept" in error.hint
    server.always = serve
    server.sent = 0
    get(server.url(), target)
    assert_whole(target)
    assert server.sent == SIZE - SIZE // 2


@pytest.mark.fault
def test_a_server_that_is_not_there_is_said(server, target):
    free = FaultyServer(b"")
    free.server_close()
    assert "localhost refuses the connection" in refused(free.url(), target).message
    error = refused("http://does-not-exist.invalid/m.usema", target)
    assert "does-not-exist.invalid is not known here" in error.message
    assert "HTTPS_PROXY" in error.hint
    get([free.url(), server.url()], target)
    assert_whole(target)


@pytest.mark.fault
@pytest.mark.parametrize(
    "url", ["ftp://user:secret@localhost/m", "http://", "http://localhost:99999/m", "http://[::1/m"]
)
def test_what_is_no_address_is_said(url, server, target):
    with pytest.raises(StoreError, match="no address on the web") as caught:
        get(url, target)
    assert "secret" not in str(caught.value)
    get([url, server.url()], target)


@pytest.mark.fault
def test_each_mirror_is_tried_in_order_and_each_reason_told(server, target):
    server.always = status(404)
    error = refused([server.url("first"), server.url("second")], target)
    assert [path for path, _ in server.requests] == ["/first", "/second"]
    assert error.message.startswith("None of 2 addresses has the model.")
    assert error.message.index("/first is not there") < error.message.index("/second is not there")
    assert error.hint.count("Refresh the index") == 1


def test_passwords_and_signatures_in_addresses_stay_out_of_messages(server, target):
    server.always = status(403)
    url = server.url("m?signature=hidden").replace("://", "://user:secret@")
    error = refused(url, target)
    assert not any(word in str(error) for word in ("secret", "user:", "hidden"))


@pytest.fixture
def soon_too_slow(monkeypatch):
    monkeypatch.setattr(download, "SLOW_SECONDS", 0.2)
    monkeypatch.setattr(download, "SLOWEST", 10**6)


@pytest.mark.fault
def test_a_mirror_that_only_drips_is_left_for_the_next(server, target, soon_too_slow):
    server.faults = [faulty.drip]
    assert "comes too slowly" in refused(server.url(), target).message
    server.faults = [faulty.drip]
    get([server.url("a"), server.url("b")], target)
    assert_whole(target)


@pytest.mark.fault
def test_a_mirror_that_drips_what_is_here_already_is_left_as_well(server, target, soon_too_slow):
    """It cannot begin in the middle, so nothing of what comes is kept."""
    put_part(target, CONTENT[: SIZE // 2])
    server.faults = [faulty.drip, faulty.drip]
    assert "comes too slowly" in refused(server.url(), target).message
    assert part_of(target).stat().st_size == SIZE // 2


@pytest.mark.fault
def test_a_server_that_asks_for_a_long_wait_is_asked_again_after_the_longest(server, target, monkeypatch):
    monkeypatch.setattr(download, "LONGEST_WAIT", 0.05)
    server.faults = [status(503, Retry_After="86400")]
    steps = []
    get(server.url(), target, progress=steps.append)
    assert_whole(target)
    assert any("Trying again in 0 s: cannot be had now" in step.message for step in steps)
