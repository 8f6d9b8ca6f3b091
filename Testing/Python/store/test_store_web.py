"""What is told to whom on the way: nothing in clear that began encrypted, no password to strangers, no secret."""

from __future__ import annotations

import ssl

import faulty_server as faulty
import pytest
import trustme
from download_cases import CONTENT, assert_whole, get, refused
from faulty_server import FaultyServer, running
from usema.errors import StoreError, UsemaError
from usema.serving.storing import Commands
from usema.store import cache, download, indexes, library, settings

pytest_plugins = ["download_fixtures"]

INDEX = b'{"schema_version": 1, "title": "A department", "models": []}'
TOKEN = "key=hidden"


@pytest.fixture
def authority(tmp_path) -> trustme.CA:
    """Trusted by the settings."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "hospital.pem")
    settings.trust(tmp_path / "hospital.pem")
    return authority


@pytest.fixture
def secure(authority, own_network):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with running(FaultyServer(INDEX), context) as server:
        yield server


@pytest.fixture
def listener(own_network):
    """Speaks http alone, and offers an index of its own."""
    with running(FaultyServer(INDEX)) as server:
        yield server


@pytest.fixture
def netrc(tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine localhost login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


# Redirects


@pytest.mark.fault
@pytest.mark.parametrize("by_way_of", ["at once", "after another step"])
def test_an_index_over_https_does_not_lead_to_http(by_way_of, secure, listener, netrc):
    leads = [faulty.redirect(listener.url("models.json?token=secret"))]
    secure.faults = leads if by_way_of == "at once" else [faulty.redirect("/elsewhere"), *leads]
    with pytest.raises(
        StoreError, match=rf"leads from https to {listener.url('models.json')}, where anybody"
    ) as caught:
        indexes.fetch(secure.url("models.json"))
    assert "secret" not in str(caught.value)
    assert not listener.requests
    assert secure.passwords[0].startswith("Basic ")
    assert cache.size_of(cache.folder()) == 0


@pytest.mark.fault
def test_a_file_over_https_does_not_lead_to_http_and_the_next_mirror_is_taken(
    secure, listener, target, netrc, tmp_path
):
    secure.content = listener.content = CONTENT
    secure.always = faulty.redirect(listener.url())
    certificates = {"ca_bundle": tmp_path / "hospital.pem"}
    assert "leads from https to" in refused(secure.url(), target, **certificates).message
    assert not listener.requests
    get([secure.url(), listener.url()], target, **certificates)
    assert_whole(target)


def test_http_may_lead_to_https(secure, listener, netrc):
    listener.always = faulty.redirect(secure.url("models.json"))
    assert indexes.fetch(listener.url("models.json")).title == "A department"


# Passwords


def test_a_password_goes_where_the_user_said_http_and_to_no_other_place_in_clear(listener, target, netrc):
    listener.content = CONTENT
    get(listener.url(), target)
    assert listener.passwords == [None], "an index named this address, not the user"
    target.unlink()
    get(listener.url(), target, in_clear=[listener.url("models.json")])
    assert listener.passwords[-1].startswith("Basic ")


def test_a_redirect_to_another_address_in_clear_takes_no_password_along(listener, netrc):
    with running(FaultyServer(INDEX)) as other:
        listener.always = faulty.redirect(other.url("models.json"))
        indexes.fetch(listener.url("models.json"))
        assert listener.passwords[0].startswith("Basic ")
        assert other.passwords == [None]


# Trickles


@pytest.mark.fault
def test_an_index_that_trickles_is_left(listener, monkeypatch):
    monkeypatch.setattr(download, "SLOW_SECONDS", 0.2)
    listener.content, listener.always = INDEX + b" " * 10**5, faulty.drip
    monkeypatch.setattr(download, "SLOWEST", 10**6)
    with pytest.raises(StoreError, match="comes too slowly"):
        indexes.fetch(listener.url("models.json"))


# Proxies


@pytest.mark.fault
def test_where_a_proxy_is_dead_no_proxy_is_named(listener, target, monkeypatch):
    dead = FaultyServer(b"")
    dead.server_close()
    monkeypatch.setenv("http_proxy", dead.url("")[:-1].replace("localhost", "127.0.0.1"))
    for address in ("http://models.example/m.usema", listener.url().replace("localhost", "127.0.0.1")):
        hint = refused(address, target).hint
        host = address.split("/")[2].split(":")[0]
        assert f"If {host} is reached without a proxy, set NO_PROXY={host}" in hint
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    listener.content = CONTENT
    get(listener.url().replace("localhost", "127.0.0.1"), target)
    assert_whole(target)


@pytest.mark.fault
def test_a_proxy_that_answers_with_an_error_of_its_own_is_thought_of(target, own_network, monkeypatch):
    with running(faulty.Proxy(refusal=502)) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        assert "NO_PROXY=models.example" in refused("http://models.example/m.usema", target).hint


# Logs


def everything_said(place: str) -> str:
    """All that commands, panel and worker can say of an index that has a token in its address."""
    said = []
    for attempt in (
        lambda: settings.add_index(place),
        lambda: settings.add_index(place),
        lambda: indexes.fetch(place),
        lambda: settings.remove_index(place.replace("hidden", "hidden2")),
    ):
        try:
            attempt()
        except UsemaError as error:
            said.append(str(error))
    said += [source.title + source.problem for source in indexes.sources()]
    said += library.library().problems
    said += indexes.refresh()
    said += Commands().by_name["refresh"]({}, print, bool)["problems"]
    return "\n".join(said)


@pytest.mark.parametrize(
    "content",
    [b"{", b'{"schema_version": 9}', b'{"schema_version": 1}', b" " * (5 * 2**20), None,
     b'{"schema_version": 1, "title": "T", "models": [7]}'],
    ids=["no JSON", "newer", "not valid", "too large", "away", "no model"],
)  # fmt: skip
def test_a_token_in_the_address_of_an_index_is_never_said(content, listener):
    if content is None:
        listener.always = faulty.status(403)
    else:
        listener.content = content
    said = everything_said(listener.url(f"models.json?{TOKEN}"))
    assert said.count(listener.url("models.json")) >= 5
    assert "hidden" not in said


def test_an_index_with_a_token_is_removed_by_the_address_that_is_shown(listener):
    place = settings.add_index(listener.url(f"models.json?{TOKEN}"))
    assert settings.remove_index(listener.url("models.json")) == place
    for token in (TOKEN, "key=other"):
        settings.add_index(listener.url(f"models.json?{token}"))
    with pytest.raises(UsemaError, match="There is no index"):
        settings.remove_index(listener.url("models.json"))
    assert settings.remove_index(place) == place
