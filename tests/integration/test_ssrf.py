"""No way to write, resolve or redirect to an address of this network reaches it."""

import socket
from collections.abc import Iterator

import pytest

from http_server import Answer, HttpServer, serving
from taskflow_core.addresses import AllowList
from taskflow_core.fetch import Client, FetchFailed, FetchRefused

# Every host is called with the port of a server that listens on 127.0.0.1 and must hear nothing.
HOSTS = [
    # loopback, in every form that some resolver reads
    "127.0.0.1", "127.0.0.2", "127.255.255.254", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.0.0.1", "0x7f.1",
    "0177.0.0.1", "017700000001", "0x7f.0x0.0x0.0x1", "127.0.0.1.", "localhost", "LOCALHOST", "localhost.", "0",
    "0.0.0.0", "[::1]", "[0:0:0:0:0:0:0:1]", "[::]",
    # other scripts' digits and dots, which IDNA maps to ASCII
    "127。0。0。1", "127\uff0e0\uff0e0\uff0e1", "①②⑦.⓪.⓪.①", "\uff11\uff12\uff17.0.0.1", "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ",
    # IPv6 that holds IPv4: mapped, compatible, translated, NAT64, 6to4, Teredo, ISATAP
    "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[::ffff:0:127.0.0.1]", "[64:ff9b::127.0.0.1]",
    "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[2002:a00:1::1]", "[2001:0:53aa:64c:0:0:80ff:fffe]",
    "[fe80::5efe:7f00:1]",
    # private, carrier, link-local, benchmark, documentation, reserved
    "10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1", "192.168.255.255", "100.64.0.1",
    "100.127.255.255", "169.254.0.1", "198.18.0.1", "198.19.255.255", "192.0.0.1", "192.0.2.1", "198.51.100.1",
    "203.0.113.1", "192.88.99.1", "240.0.0.1", "255.255.255.255", "[fc00::1]", "[fd12:3456::1]", "[fe80::1]",
    "[fec0::1]", "[2001:db8::1]", "[3fff::1]", "[100::1]", "[5f00::1]",
    # metadata of clouds
    "169.254.169.254", "169.254.170.2", "[fd00:ec2::254]", "100.100.100.200", "168.63.129.16", "192.0.0.192",
    # multicast
    "224.0.0.1", "239.255.255.250", "[ff02::1]", "[ff0e::1]",
]  # fmt: skip
URLS = [
    "http://user@127.0.0.1:{port}/", "http://1.1.1.1@127.0.0.1:{port}/", "http://user:pass@127.0.0.1:{port}/",
    "http://1.1.1.1\\@127.0.0.1:{port}/", "http://127.0.0.1:{port}\\@1.1.1.1/", "http://[::ffff:127.0.0.1%25lo]:{port}/",
    "http:127.0.0.1:{port}/", "http:///127.0.0.1:{port}/", "//127.0.0.1:{port}/", "http://127.0.0.1%00.example.com:{port}/",
    "http://127.0.0.1\t:{port}/", "http://127.0.0.1 :{port}/", "http://%31%32%37.0.0.1:{port}/", "file:///etc/passwd",
    "gopher://127.0.0.1:{port}/_x", "ftp://127.0.0.1:{port}/", "unix:///var/run/docker.sock", "dict://127.0.0.1:{port}/",
    "ws://127.0.0.1:{port}/", "data:text/plain,x", "http://", "http://:{port}/", "http://127.0.0.1:0/",
    "http://127.0.0.1:65536/", "HTTP://127.0.0.1:{port}/", " http://127.0.0.1:{port}/",
]  # fmt: skip


async def attempt(url: str, allow: AllowList) -> None:
    async with Client(allow, total_s=20) as client:
        await client.request("GET", url)


@pytest.fixture(scope="module")
def victim() -> Iterator[HttpServer]:
    with serving(lambda _: Answer(200, b"secret")) as server:
        yield server


def test_the_table_is_long_and_holds_nothing_twice() -> None:
    assert len({*HOSTS, *URLS}) == len(HOSTS) + len(URLS) > 90


@pytest.mark.parametrize("url", [f"http://{host}:{{port}}/" for host in HOSTS] + URLS)
async def test_nothing_of_this_network_is_called(url: str, victim: HttpServer) -> None:
    with pytest.raises((FetchRefused, FetchFailed)) as refused:
        await attempt(url.format(port=victim.port), AllowList())
    assert isinstance(refused.value, FetchRefused) or "cannot resolve" in str(refused.value)
    assert victim.asked == []


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "10.0.0.1", "169.254.169.254", "::ffff:127.0.0.1", "fe80::1%1"]
)
async def test_a_name_that_resolves_to_an_address_of_this_network_is_not_called(
    address: str, victim: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolves(monkeypatch, [address, address])
    with pytest.raises(FetchRefused) as refused:
        await attempt(f"http://innocent.example:{victim.port}/", AllowList())
    assert refused.value.code == "address_refused"
    assert victim.asked == []


async def test_of_several_addresses_only_those_that_may_be_called_are_tried(
    victim: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolves(monkeypatch, ["10.0.0.1", "169.254.169.254", "127.0.0.1"])
    await attempt(f"http://mixed.example:{victim.port}/", AllowList.parse("127.0.0.1"))
    assert [asked.headers["host"] for asked in victim.asked] == [f"mixed.example:{victim.port}"]
    victim.asked.clear()


async def test_a_name_is_asked_once_so_its_second_answer_gains_nothing(
    victim: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name says 127.0.0.3, which is opened and where nobody listens, and then 127.0.0.1."""
    answers = [["127.0.0.3"], ["127.0.0.1"]]

    def rebinding(*_: object, **__: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in answers.pop(0)]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    with pytest.raises(FetchFailed):
        await attempt(f"http://rebind.example:{victim.port}/", AllowList.parse("127.0.0.3"))
    assert answers == [["127.0.0.1"]]
    with pytest.raises(FetchRefused):
        await attempt(f"http://rebind.example:{victim.port}/", AllowList.parse("127.0.0.3"))
    assert victim.asked == []


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "[::ffff:127.0.0.1]", "169.254.169.254", "localhost"])
async def test_a_redirect_into_this_network_is_not_followed(host: str, victim: HttpServer) -> None:
    location = f"http://{host}:{victim.port}/"
    with serving(lambda _: Answer(302, b"", {"Location": location})) as open_door:
        with pytest.raises(FetchRefused) as refused:
            await attempt(open_door.url(), AllowList.parse(f"127.0.0.1:{open_door.port}"))
        assert len(open_door.asked) == 1
    assert refused.value.code == "address_refused"
    assert victim.asked == []


async def test_a_proxy_of_the_environment_is_not_used(victim: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, victim.url())
    with serving(lambda _: Answer(204)) as server:
        await attempt(server.url(), AllowList.parse(f"127.0.0.1:{server.port}"))
        assert len(server.asked) == 1
    assert victim.asked == []


def resolves(monkeypatch: pytest.MonkeyPatch, addresses: list[str]) -> None:
    def answer(*_: object, **__: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
