"""The guarded HTTP client against real servers on this machine."""

import gzip
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import trustme

from http_server import Answer, Asked, serving
from taskflow_core.addresses import AllowList
from taskflow_core.fetch import Client, Fetched, FetchFailed, FetchRefused

HERE = AllowList.parse("127.0.0.1")


async def get(url: str, allow: AllowList = HERE, headers: dict[str, str] | None = None, **options: Any) -> Fetched:
    async with Client(allow, **options) as client:
        return await client.request("GET", url, headers=headers)


async def refusal(url: str, allow: AllowList = HERE, **options: Any) -> str:
    with pytest.raises(FetchRefused) as caught:
        await get(url, allow, **options)
    return caught.value.code


async def test_an_opened_host_answers_with_the_guards_own_headers() -> None:
    with serving(lambda _: Answer(200, b"hi", {"ETag": '"1"'})) as server:
        fetched = await get(server.url("/a?b=1#c"), headers={"accept": "text/csv"})
        assert (fetched.status, fetched.body, fetched.headers["etag"]) == (200, b"hi", '"1"')
        assert server.asked[0].path == "/a?b=1"
        assert server.asked[0].headers["host"] == f"127.0.0.1:{server.port}"
        assert server.asked[0].headers["accept"] == "text/csv"


async def test_a_redirect_is_checked_like_a_first_request() -> None:
    with serving(lambda _: Answer(302, b"", {"Location": "http://169.254.169.254/latest/meta-data/"})) as server:
        assert await refusal(server.url()) == "address_refused"
    with serving(lambda _: Answer(302, b"", {"Location": "http://u:p@127.0.0.1/"})) as server:
        assert await refusal(server.url()) == "bad_url"


async def test_redirects_are_followed_five_times_and_not_a_sixth() -> None:
    def answer(asked: Asked) -> Answer:
        left = int(asked.path.strip("/"))
        return Answer(307, b"", {"Location": f"/{left - 1}"}) if left else Answer(200, b"end")

    with serving(answer) as server:
        fetched = await get(server.url("/5"))
        assert (fetched.body, fetched.url) == (b"end", server.url("/0"))
        assert await refusal(server.url("/6")) == "too_many_redirects"


async def test_secrets_stay_behind_when_a_redirect_leads_elsewhere() -> None:
    secrets = {"Authorization": "Bearer s", "X-Api-Key": "s", "Accept": "text/csv"}
    with (
        serving(lambda _: Answer(200)) as other,
        serving(lambda a: to(other.url()) if a.path == "/" else to("/")) as one,
    ):
        await get(one.url("/start"), headers=secrets)
        assert one.asked[1].headers["authorization"] == "Bearer s"
        assert {"authorization", "x-api-key"} & other.asked[0].headers.keys() == set()
        assert other.asked[0].headers["accept"] == "text/csv"


def to(location: str) -> Answer:
    return Answer(302, b"", {"Location": location})


async def test_a_name_is_resolved_once_and_keeps_its_place_in_host_and_certificate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    authority = trustme.CA()
    server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("service.test").configure_cert(server_tls)
    client_tls = ssl.create_default_context()
    authority.configure_trust(client_tls)
    answers = ["127.0.0.1", "10.0.0.1"]  # the second is what a rebinding name server would say

    def resolve(*_: object, **__: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (answers.pop(0), 0))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with serving(lambda _: Answer(200, b"hi"), tls=server_tls) as server:
        fetched = await get(f"https://service.test:{server.port}/", ssl_context=client_tls)
        assert fetched.body == b"hi"
        assert server.asked[0].headers["host"] == f"service.test:{server.port}"
        assert answers == ["10.0.0.1"]
        answers[:] = ["127.0.0.1"]
        with pytest.raises(FetchFailed, match="certificate"):
            await get(f"https://other.test:{server.port}/", ssl_context=client_tls)


async def test_a_redirect_from_https_to_http_is_refused() -> None:
    authority = trustme.CA()
    server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server_tls)
    client_tls = ssl.create_default_context()
    authority.configure_trust(client_tls)
    with serving(lambda _: to("http://127.0.0.1/"), tls=server_tls) as server:
        assert await refusal(f"https://127.0.0.1:{server.port}/", ssl_context=client_tls) == "bad_redirect"


async def test_an_answer_is_read_up_to_a_bound() -> None:
    with serving(lambda _: Answer(200, b"x" * 1001)) as server:
        assert await refusal(server.url(), max_bytes=1000) == "response_too_large"
        assert len((await get(server.url(), max_bytes=1001)).body) == 1001


async def test_gzip_is_read_and_a_bomb_is_stopped_at_the_same_bound() -> None:
    def answer(asked: Asked) -> Answer:
        return Answer(200, gzip.compress(bytes(int(asked.path[1:]))), {"Content-Encoding": "gzip"})

    with serving(answer) as server:
        assert len((await get(server.url("/50000"), max_bytes=50_000)).body) == 50_000
        assert await refusal(server.url("/50000000"), max_bytes=50_000) == "response_too_large"


async def test_a_body_of_several_gzip_members_is_read_whole() -> None:
    body = gzip.compress(b"one, ") + gzip.compress(b"") + gzip.compress(b"two")
    with serving(
        lambda _: Answer(
            200, (body[n : n + 7] for n in range(0, len(body), 7)), {"Content-Encoding": "gzip", "Connection": "close"}
        )
    ) as server:
        assert (await get(server.url())).body == b"one, two"


@pytest.mark.parametrize("encoding", ["br", "gzip, gzip", "zstd"])
async def test_an_encoding_that_cannot_be_bounded_is_refused(encoding: str) -> None:
    with serving(lambda _: Answer(200, b"", {"Content-Encoding": encoding})) as server:
        assert await refusal(server.url()) == "unsupported_encoding"


@pytest.mark.parametrize("body", [b"no gzip", gzip.compress(b"x" * 1000)[:-4]], ids=["no gzip", "cut off"])
async def test_broken_gzip_is_a_failure_that_another_try_may_mend(body: bytes) -> None:
    answer = Answer(200, body, {"Content-Encoding": "gzip"})
    with serving(lambda _: answer) as server, pytest.raises(FetchFailed, match="gzip"):
        await get(server.url())


async def test_a_server_that_drips_is_left_when_the_time_is_up() -> None:
    over = threading.Event()

    def drip() -> Iterator[bytes]:
        while not over.wait(0.05):
            yield b"x"

    with serving(lambda _: Answer(200, drip())) as server:
        try:
            with pytest.raises(FetchFailed, match=r"within 0\.5 s"):
                await get(server.url(), total_s=0.5)
        finally:
            over.set()


async def test_nobody_listening_and_an_unknown_name_are_failures() -> None:
    with serving(lambda _: Answer()) as server:
        url = server.url()
    with pytest.raises(FetchFailed, match="ConnectError"):
        await get(url)
    with pytest.raises(FetchFailed, match="cannot resolve"):
        await get("http://no-such-name.invalid/")


async def test_a_put_is_not_redirected() -> None:
    with serving(lambda _: to("/other")) as server:
        async with Client(HERE) as client:
            assert (await client.request("PUT", server.url(), content=b"{}")).status == 302
        assert [(one.method, one.body) for one in server.asked] == [("PUT", b"{}")]
