"""Calls that use the network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mayfly.scan.facts import UNKNOWN, Value
from mayfly.scan.values import taints_of, unknown

if TYPE_CHECKING:
    from collections.abc import Callable

    from mayfly.scan.python.site import Site

__all__ = ["CALLS", "METHODS"]

_BODY = ("data", "json", "files", "params", "content", "body", "fields", "headers", "cookies", "auth")


def _payload(site: Site, *extra: Value) -> Value:
    """What a request sends."""
    parts = [*extra, *(site.kwargs[name] for name in _BODY if name in site.kwargs)]
    keys = tuple(key for part in parts for key in part.keys)
    consts = tuple(c for part in parts for c in part.consts)
    return Value(consts=consts[:16], taints=taints_of(parts), elements=tuple(parts), keys=keys) if parts else UNKNOWN


def _get(site: Site) -> Value:
    url = site.arg(0, "url")
    data = _payload(site)
    site.rec.net("fetch", url, data=Value(consts=data.consts, taints=data.taints | url.taints, keys=data.keys))
    return Value(taints=frozenset({"net"}), origin="response()")


def _post(site: Site) -> Value:
    extra = [site.args[1]] if len(site.args) > 1 else []
    url = site.arg(0, "url")
    data = _payload(site, *extra)
    site.rec.net("send", url, data=Value(consts=data.consts, taints=data.taints | url.taints, keys=data.keys,
                                         elements=data.elements))  # fmt: skip
    return Value(taints=frozenset({"net"}), origin="response()")


def _request(site: Site) -> Value:
    """`requests.request(method, url)`."""
    method = (site.arg(0, "method").texts or ("GET",))[0].upper()
    rest = type(site)(site.walk, site.function, site.receiver, site.args[1:], site.kwargs, site.method)
    return _post(rest) if method in ("POST", "PUT", "PATCH", "DELETE") else _get(rest)


def _urlopen(site: Site) -> Value:
    url = site.arg(0, "url")
    data = site.arg(1, "data")
    target = url.elements[0] if url.origin == "urllib.request.Request()" and url.elements else url
    sent = [data, *(url.elements or ())[1:]]
    carried = taints_of(sent) | target.taints
    sends = data.taints or data.consts or any(v.consts or v.taints for v in sent)
    site.rec.net("send" if sends else "fetch", target, data=Value(consts=data.consts, taints=carried))
    return Value(taints=frozenset({"net"}), origin="response()")


def _url_request(site: Site) -> Value:
    parts = (site.arg(0, "url"), site.arg(1, "data"))
    return Value(elements=parts, taints=taints_of(parts), origin="urllib.request.Request()")


def _retrieve(site: Site) -> Value:
    """`urlretrieve(url, path)`, `wget.download(url, path)`."""
    site.rec.net("fetch", site.arg(0, "url"))
    path = site.arg(1, "filename", "out")
    if path.texts or path.taints:
        site.rec.file("write", path, content=unknown("net"))
    return unknown("net")


def _address(value: Value) -> tuple[Value, Value]:
    """Host and port of a socket's address."""
    if value.elements and len(value.elements) >= 2:
        return value.elements[0], value.elements[1]
    return Value(consts=value.consts, taints=value.taints, prefix=value.prefix), UNKNOWN


def _connect(site: Site) -> Value:
    host, port = _address(site.arg(0, "address", "addr"))
    if "AF_UNIX" not in site.receiver.origin:
        site.rec.net("connect", host, port)
    made = "socket.socket()" if site.function.origin == "socket.create_connection" else ""
    return Value(taints=frozenset({"socket"}), origin=made)


def _client(site: Site) -> Value:
    """`smtplib.SMTP(host, port)` and other clients that connect when made."""
    host = site.arg(0, "host", "hostname", "uri", "url")
    site.rec.net("connect", host, site.arg(1, "port"))
    return Value(taints=frozenset({"net"}), origin=f"{site.function.origin}()")


def _bind(site: Site) -> Value:
    host, port = _address(site.arg(0, "address", "server_address"))
    if host.consts == ("",):
        host = Value(consts=("0.0.0.0",))  # noqa: S104 - what the empty host means
    site.rec.net("listen", host, port)
    return Value(origin=f"{site.function.origin}()" if not site.method or site.method[0].isupper() else "")


def _serve(site: Site) -> Value:
    """`app.run(host=...)`, `uvicorn.run(...)`."""
    if "host" in site.kwargs:
        site.rec.net("listen", site.kwargs["host"], site.kwargs.get("port", UNKNOWN))
    return UNKNOWN


def _send(site: Site) -> Value:
    """A socket's `send`: to where it is connected, or to the given address."""
    data = site.arg(0, "data")
    host = UNKNOWN
    if site.method == "sendto":
        host, _ = _address(site.args[-1] if site.args else UNKNOWN)
    if data.taints & {"secret", "env-all", "env", "output", "file"} or host.texts:
        site.rec.net("send", host, data=Value(consts=data.consts, taints=taints_of([data])))
    return UNKNOWN


def _receive(site: Site) -> Value:
    return Value(taints=site.receiver.taints | {"net"})


def _accept(_site: Site) -> Value:
    made = Value(origin="socket.socket()", taints=frozenset({"socket"}))
    return Value(elements=(made, unknown("net")))


def _socket(site: Site) -> Value:
    family = site.arg(0, "family").origin
    kind = site.arg(1, "type").origin
    if "AF_PACKET" in family or "SOCK_RAW" in kind:
        site.rec.net("raw")
    unix = "AF_UNIX." if "AF_UNIX" in family else ""
    return Value(origin=f"socket.{unix}socket()" if unix else "socket.socket()", taints=frozenset({"socket"}))


def _resolve(site: Site) -> Value:
    host = site.arg(0, "host", "hostname", "name")
    named = {"identity", "joined"} <= host.taints
    if host.prefix or named or host.taints & {"secret", "env-all", "env", "file"}:
        site.rec.net("fetch", host, data=Value(taints=host.taints))
    return Value(taints=host.taints)


def _raw(site: Site) -> Value:
    """Scapy and other packet libraries."""
    site.rec.net("raw", site.arg(0))
    return unknown("net")


def _smtp_send(site: Site) -> Value:
    body = site.args[-1] if site.args else UNKNOWN
    if "net" in site.receiver.taints and body.taints & {"secret", "env-all", "env"}:
        site.rec.net("send", UNKNOWN, data=Value(taints=taints_of([body])))
    return UNKNOWN


_VERBS = ("requests", "httpx", "aiohttp", "urllib3")
CALLS: dict[str, Callable[[Site], Value]] = {
    **{f"{lib}.{verb}": _get for lib in _VERBS for verb in ("get", "head", "options", "delete", "stream")},
    **{f"{lib}.{verb}": _post for lib in _VERBS for verb in ("post", "put", "patch")},
    **{f"{lib}.request": _request for lib in _VERBS},
    "urllib.request.urlopen": _urlopen,
    "urllib.request.Request": _url_request,
    **dict.fromkeys(("urllib.request.urlretrieve", "wget.download"), _retrieve),
    **dict.fromkeys(("pandas.read_html", "webbrowser.open", "webbrowser.open_new", "webbrowser.open_new_tab"), _get),
    **dict.fromkeys(
        ("smtplib.SMTP", "smtplib.SMTP_SSL", "ftplib.FTP", "ftplib.FTP_TLS", "telnetlib.Telnet", "poplib.POP3_SSL",
         "imaplib.IMAP4_SSL", "http.client.HTTPConnection", "http.client.HTTPSConnection",
         "websocket.create_connection",
         "websockets.connect", "xmlrpc.client.ServerProxy", "paramiko.Transport", "paramiko.SSHClient().connect",
         "asyncio.open_connection", "ldap3.Server", "redis.Redis", "pymongo.MongoClient", "psycopg2.connect",
         "socketio.Client().connect", "paho.mqtt.client.Client().connect", "asyncssh.connect"),
        _client,
    ),
    "socket.socket": _socket,
    **dict.fromkeys(("socket.socket().connect", "socket.socket().connect_ex", "socket.create_connection"), _connect),
    **dict.fromkeys(("socket.socket().bind", "socket.create_server", "http.server.HTTPServer", "socketserver.TCPServer",
                     "socketserver.ThreadingTCPServer", "http.server.ThreadingHTTPServer", "socketserver.UDPServer"),
                    _bind),
    **dict.fromkeys(("flask.Flask().run", "uvicorn.run", "bottle.run", "aiohttp.web.run_app"), _serve),
    **dict.fromkeys(("socket.socket().send", "socket.socket().sendall", "socket.socket().sendto"), _send),
    **dict.fromkeys(("socket.socket().recv", "socket.socket().recvfrom", "socket.socket().makefile"), _receive),
    "socket.socket().accept": _accept,
    **dict.fromkeys(("socket.gethostbyname", "socket.getaddrinfo", "dns.resolver.resolve", "dns.resolver.query"),
                    _resolve),
    **dict.fromkeys(("scapy.all.sniff", "scapy.all.send", "scapy.all.sendp", "scapy.all.sr", "scapy.all.sr1",
                     "scapy.all.srp", "scapy.all.AsyncSniffer", "pcapy.open_live", "pyshark.LiveCapture",
                     "scapy.sendrecv.sniff", "pcap.pcap", "scapy.all.arping"), _raw),
}  # fmt: skip
METHODS: dict[str, Callable[[Site], Value]] = {
    **dict.fromkeys(("recv", "recvfrom", "recv_into"), _receive),
    **dict.fromkeys(("sendmail", "send_message"), _smtp_send),
    **dict.fromkeys(("sendall", "sendto"), _send),
}
