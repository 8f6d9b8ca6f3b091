"""Pages that come and go: what one leaves behind half-done is ended, and others are not disturbed."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

pytest.importorskip("trame_slicer", reason="the browser front end (extra `web`) is not installed")


@pytest.mark.parametrize(("others", "kept"), [(0, []), (1, ["half of a series"])])
def test_a_page_that_goes_while_it_sends_files_gives_the_button_to_open_files_back(others, kept):
    from trame.app import get_server
    from trame_server.utils.typed_state import TypedState
    from trame_slicer.app.ui.load_volume_ui import LoadVolumeState
    from usema_web.application import Application

    server = get_server(f"page left, {others} others")
    sending = TypedState(server.state, LoadVolumeState).data
    sending.file_button.loading_busy = sending.dir_button.loading_busy = True
    buttons = [SimpleNamespace(files=["half of a series"]) for _ in range(2)]
    opening = SimpleNamespace(load_volume_files_button=buttons[0], load_volume_dir_button=buttons[1])
    Application._page_left(SimpleNamespace(server=server, layout=SimpleNamespace(opening=opening)), others)
    assert not sending.file_button.loading_busy
    assert not sending.dir_button.loading_busy
    assert [button.files for button in buttons] == [kept, kept]


def test_each_page_that_goes_is_told_with_how_many_are_left():
    from aiohttp import web
    from aiohttp.test_utils import TestClient, TestServer
    from usema_web.access import SOCKET, protect

    left = []

    async def socket(request):
        answer = web.WebSocketResponse()
        await answer.prepare(request)
        async for _ in answer:
            pass
        return answer

    async def page(request):
        return web.Response()

    async def come_and_go():
        application = web.Application()
        application.router.add_get(SOCKET, socket)
        application.router.add_get("/", page)
        protect(application, "token", left.append)
        async with TestClient(TestServer(application)) as client:
            headers = {"Cookie": f"usema_token_{client.port}=token"}
            first, second = [await client.ws_connect(SOCKET, headers=headers) for _ in range(2)]
            assert (await client.get("/", headers=headers)).status == 200
            for one in (first, second):
                await one.close()
                await asyncio.sleep(0.1)

    asyncio.run(come_and_go())
    assert left == [1, 0]
