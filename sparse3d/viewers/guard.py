"""A server of pages for who knows its token, on this machine alone unless it is told otherwise (extra `viz`).

viser serves the page and the stream behind it on one port. It asks nobody who he is, so every request is
checked before viser sees it: the first one carries the token in its address and gets a cookie, all others
bring the cookie. Other users of the machine, and pages of other sites in the same browser, have neither.
Nothing is encrypted: beyond this machine, whoever can listen to the network learns the token.
"""

import errno
import io
import secrets
import socket
import threading
from collections.abc import Sequence
from contextlib import redirect_stdout
from http import HTTPStatus
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

from sparse3d.errors import require_extra

LOOPBACK = "127.0.0.1"
_EVERYWHERE = ("0.0.0.0", "::")
_patching = threading.Lock()


class GuardedServer:
    """A viser server, `server`, whose every request passes `admit` first; `url` opens its page.

    Port 0: one that is free. ValueError for a port that somebody else has, and for a host that is no address
    of this machine. `close()` ends it.
    """

    def __init__(self, port: int = 0, host: str = LOOPBACK):
        viser = require_extra("viser", "viz")
        _check_free(host, port)
        self.host, self.token = host, secrets.token_urlsafe(24)
        self.server: Any = _guarded(viser, host, port, self.token)
        self.port: int = self.server.get_port()
        if port not in (0, self.port):  # viser takes the next one where somebody was faster
            self.close()
            raise ValueError(_taken(host, port))

    @property
    def url(self) -> str:
        """The address with the token in it, as this machine reaches it."""
        name = socket.gethostname() if self.host in _EVERYWHERE else self.host
        name = f"[{name}]" if ":" in name else name
        return f"http://{name}:{self.port}/?token={self.token}"

    def wait(self) -> None:
        """Serve until the process is interrupted."""
        self.server.sleep_forever()

    def close(self) -> None:
        """End the server."""
        with redirect_stdout(io.StringIO()):  # to which viser would say so
            self.server.stop()


def admit(token: str, cookie: str, path: str, cookies: Sequence[str]) -> bool:
    """True for a request whose address or whose cookie of this name has the token."""
    given = parse_qs(urlsplit(path).query).get("token", [])
    for line in cookies:
        jar: SimpleCookie = SimpleCookie()
        jar.load(line)
        given += [jar[cookie].value] if cookie in jar else []
    return any(secrets.compare_digest(token.encode(), word.encode()) for word in given)


def _check_free(host: str, port: int) -> None:
    """ValueError where nobody could listen there. viser itself would go on to other ports, for ever."""
    if not 0 <= port < 1 << 16:
        raise ValueError(f"port {port}: there are 1 to {(1 << 16) - 1}, and 0 for one that is free")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            # As servers do: a port whose last connection has just been closed is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ValueError(_taken(host, port)) from error
        raise ValueError(f"cannot listen on port {port} of {host}: {error.strerror or error}") from error


def _taken(host: str, port: int) -> str:
    return f"port {port} of {host} is in use; choose another one, or leave it out for one that is free"


def _guarded(viser: Any, host: str, port: int, token: str) -> Any:
    import websockets.asyncio.server as sockets

    serve = sockets.serve

    def guarded(*arguments: Any, process_request: Any, **options: Any) -> Any:
        def check(connection: Any, request: Any) -> Any:
            cookie = f"sparse3d_{connection.local_address[1]}"
            if not admit(token, cookie, request.path, request.headers.get_all("Cookie")):
                text = "this page needs the address with the token that `sparse3d view` printed\n"
                return connection.respond(HTTPStatus.FORBIDDEN, text)
            response = process_request(connection, request)
            if response is not None:
                response.headers["Set-Cookie"] = f"{cookie}={token}; HttpOnly; SameSite=Strict; Path=/"
            return response

        return serve(*arguments, process_request=check, **options)

    # viser has no place for a check of its own; it looks this function up when it starts.
    with _patching:
        sockets.serve = guarded  # pyright: ignore[reportAttributeAccessIssue]
        try:
            # It tells stdout of an address without the token, which opens nothing.
            with redirect_stdout(io.StringIO()):
                return viser.ViserServer(host=host, port=port, verbose=False)
        finally:
            sockets.serve = serve
