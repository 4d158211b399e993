"""No test may touch the user's cache, the user's tensorflow-datasets or any machine but this one."""

import socket

import pytest


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    for proxy in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(proxy, raising=False)
        monkeypatch.delenv(proxy.upper(), raising=False)
    asked = []
    genuine = socket.getaddrinfo

    def lookup(host, *args, **kwargs):
        asked.append(host)
        if host not in ("127.0.0.1", b"127.0.0.1"):
            raise socket.gaierror("no network in tests")
        return genuine(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    return asked
