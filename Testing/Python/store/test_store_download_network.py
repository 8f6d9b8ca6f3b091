"""Downloading from where hospitals are: their own certificates, proxies, shares, and missing libraries."""

from __future__ import annotations

import ssl
import subprocess
import sys
import time

import faulty_server as faulty
import pytest
import trustme
from download_cases import CONTENT, SIZE, assert_whole, get, put_part, refused
from faulty_server import FaultyServer, Proxy, cut_at, running
from usema.errors import MissingDependencyError, StoreError

pytest_plugins = ["download_fixtures"]


# Trust


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secure(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with running(FaultyServer(CONTENT), context) as server:
        yield server


@pytest.mark.fault
def test_an_unknown_authority_is_refused_and_the_way_out_told(secure, target):
    error = refused(secure.url(), target)
    assert "the certificate of localhost was not accepted" in error.message
    assert "SSL_CERT_FILE" in error.hint
    assert not secure.requests


@pytest.mark.parametrize("way", ["argument", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_a_hospitals_own_authority_is_trusted_when_it_is_named(way, secure, target, authority, tmp_path, monkeypatch):
    file = tmp_path / "hospital.pem"
    authority.cert_pem.write_to_path(file)
    if way != "argument":
        monkeypatch.setenv(way, str(file))
    secure.faults = [cut_at(5)]
    get(secure.url(), target, ca_bundle=file if way == "argument" else None)
    assert_whole(target)


@pytest.mark.fault
def test_a_certificate_for_another_host_is_refused(secure, target, authority, tmp_path):
    file = tmp_path / "hospital.pem"
    authority.cert_pem.write_to_path(file)
    error = refused(secure.url().replace("localhost", "127.0.0.1"), target, ca_bundle=file)
    assert "the certificate of 127.0.0.1 was not accepted" in error.message


@pytest.mark.fault
@pytest.mark.parametrize(("text", "message"), [(None, "does not exist"), ("no certificate", "holds no certificates")])
def test_a_file_without_certificates_is_said(text, message, secure, target, tmp_path):
    file = tmp_path / "hospital.pem"
    if text:
        file.write_text(text)
    with pytest.raises(StoreError, match=f"hospital.pem {message}"):
        get(secure.url(), target, ca_bundle=file)


@pytest.mark.fault
def test_a_redirect_to_a_host_that_is_not_trusted_names_that_host(server, secure, target):
    server.always = faulty.redirect(secure.url())
    assert "the certificate of localhost was not accepted" in refused(server.url(), target).message


# Proxies


@pytest.mark.fault
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_wants_a_password_is_said_without_telling_it(scheme, target, monkeypatch):
    with running(Proxy()) as proxy:
        monkeypatch.setenv(f"{scheme}_proxy", proxy.url.replace("://", "://user:wrong@"))
        error = refused(f"{scheme}://models.example/m.usema", target)
    assert "the proxy wants a user name and a password (407)" in error.message
    assert "HTTPS_PROXY=http://user:password@host:port" in error.hint
    assert "wrong" not in str(error)


@pytest.mark.fault
def test_a_proxy_that_refuses_the_host_or_is_away_is_said(server, target, monkeypatch):
    with running(Proxy(refusal=403)) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        assert "the proxy refuses models.example (403)" in refused("https://models.example/m.usema", target).message
    for value, message in [
        (proxy.url.replace("://", "://user:secret@"), f"the proxy {proxy.url} does not let the connection through"),
        (f"user:secret@{proxy.url[7:]}", "names a proxy that is no address"),
    ]:
        monkeypatch.setenv("https_proxy", value)
        error = refused("https://models.example/m.usema", target)
        assert message in error.message
        assert "secret" not in str(error)


def test_downloads_go_through_a_proxy_with_a_password(server, target, monkeypatch):
    port_file = target.parent.with_name("port")
    options = f"--hostname 127.0.0.1 --port 0 --num-workers 1 --num-acceptors 1 --port-file {port_file}"
    command = [sys.executable, "-m", "proxy", *options.split(), "--basic-auth", "user:right"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 20
            while not (port_file.exists() and port_file.read_text().strip()) and time.monotonic() < deadline:
                time.sleep(0.02)
            monkeypatch.setenv("http_proxy", f"http://user:right@127.0.0.1:{port_file.read_text().strip()}")
            server.faults = [cut_at(5)]
            # not "localhost", which bypasses proxies on some systems
            get(server.url().replace("localhost", "127.0.0.1"), target)
        finally:
            process.terminate()
    assert_whole(target)


# Files


@pytest.mark.parametrize("form", ["path", "file://"])
def test_a_file_on_a_share_is_copied_and_gone_on_from(form, target, tmp_path):
    share = tmp_path / "a share"
    share.mkdir()
    (share / "m.usema").write_bytes(CONTENT)
    put_part(target, CONTENT[:500])
    get(str(share / "m.usema") if form == "path" else (share / "m.usema").as_uri(), target)
    assert_whole(target)


@pytest.mark.fault
def test_a_file_on_a_share_that_is_missing_short_long_or_other_is_refused(target, tmp_path):
    source = tmp_path / "m.usema"
    assert "No such file" in refused(str(source), target).message
    source.write_bytes(CONTENT[:-5])
    assert "cut" in refused(str(source), target).message
    for content in (bytes(SIZE), b"x" + CONTENT):
        source.write_bytes(content)
        assert "its SHA-256 is" in refused(str(source), target).message
    assert "directory" in refused(str(tmp_path), target).message


# Libraries


@pytest.mark.fault
@pytest.mark.parametrize("missing", ["requests", "truststore"])
def test_a_missing_library_is_said_and_shares_do_without(missing, server, target, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingDependencyError, match=f"pip install {missing}"):
        get(server.url(), target)
    (tmp_path / "m.usema").write_bytes(CONTENT)
    get(str(tmp_path / "m.usema"), target)
    assert_whole(target)


@pytest.mark.fault
def test_an_old_urllib3_is_said(server, target, monkeypatch):
    import urllib3

    monkeypatch.delattr(urllib3.HTTPResponse, "read1")
    monkeypatch.delattr(urllib3.response.BaseHTTPResponse, "read1")
    with pytest.raises(MissingDependencyError, match=r'pip install "urllib3>=2\.2"'):
        get(server.url(), target)
