"""What kind of place a URL or host name is. Pure text: no name is resolved."""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import Literal

__all__ = ["HostKind", "classify_host", "host_matches", "host_of"]

HostKind = Literal[
    "metadata",  # the cloud's credential service
    "loopback",
    "private",  # private and link-local ranges, internal names
    "any",  # 0.0.0.0: every interface
    "encoded",  # an address written to hide
    "drop",  # paste, webhook, tunnel, file drop
    "address",  # a public address without a name
    "hidden",  # .onion, .i2p
    "shared",  # anybody's pages under a well-known roof
    "known",  # documentation, package, code and data hosts
    "other",
    "none",  # no host in the text
]

_METADATA = frozenset({
    "169.254.169.254", "169.254.170.2", "169.254.169.123", "fd00:ec2::254", "metadata.google.internal", "metadata",
    "100.100.100.200", "metadata.azure.com", "instance-data", "metadata.goog",
})  # fmt: skip
_DROP = (
    "pastebin.com", "paste.ee", "hastebin.com", "ghostbin.com", "dpaste.com", "rentry.co", "ix.io", "0x0.st",
    "transfer.sh", "file.io", "anonfiles.com", "gofile.io", "temp.sh", "bashupload.com", "oshi.at", "catbox.moe",
    "webhook.site", "requestbin.com", "requestbin.net", "pipedream.net", "hookbin.com", "beeceptor.com",
    "requestcatcher.com", "interact.sh", "oast.pro", "oast.live", "oast.fun", "oast.site", "oast.online", "oast.me",
    "oastify.com", "burpcollaborator.net", "dnslog.cn", "ceye.io", "canarytokens.com", "ngrok.io", "ngrok.app",
    "ngrok-free.app", "ngrok.dev", "serveo.net", "localtunnel.me", "loca.lt", "trycloudflare.com", "localhost.run",
    "bore.pub", "telegra.ph", "api.telegram.org", "discord.com/api/webhooks", "discordapp.com/api/webhooks",
    "hooks.slack.com", "iplogger.org", "grabify.link", "bit.ly", "tinyurl.com", "is.gd", "cutt.ly", "termbin.com",
    "duckdns.org", "no-ip.org", "ddns.net", "hopto.org", "zapto.org",
)  # fmt: skip
_SHARED = (
    "github.io", "gitlab.io", "pages.dev", "netlify.app", "vercel.app", "herokuapp.com", "web.app", "firebaseapp.com",
    "workers.dev", "onrender.com", "glitch.me", "repl.co", "replit.app", "surge.sh", "000webhostapp.com", "weebly.com",
    "wixsite.com", "blogspot.com", "fly.dev", "azurewebsites.net", "r2.dev", "neocities.org",
)  # fmt: skip
_KNOWN = (
    "example.com", "example.org", "example.net", "example.edu", "test.com", "python.org", "pypi.org",
    "pythonhosted.org", "github.com", "githubusercontent.com", "gitlab.com", "bitbucket.org", "wikipedia.org",
    "wikimedia.org", "google.com", "googleapis.com", "bing.com", "duckduckgo.com", "microsoft.com", "apple.com",
    "amazon.com", "amazonaws.com", "mozilla.org", "w3.org", "iana.org", "ietf.org", "httpbin.org", "reqres.in",
    "jsonplaceholder.typicode.com", "typicode.com", "openweathermap.org", "weatherapi.com", "open-meteo.com",
    "openai.com", "anthropic.com", "huggingface.co", "kaggle.com", "uci.edu", "data.gov", "census.gov", "nasa.gov",
    "noaa.gov", "nih.gov", "usgs.gov", "europa.eu", "worldbank.org", "un.org", "who.int", "arxiv.org", "crossref.org",
    "openstreetmap.org", "opentopodata.org", "coingecko.com", "coinmarketcap.com", "coindesk.com", "binance.com",
    "yahoo.com", "alphavantage.co", "exchangerate-api.com", "exchangeratesapi.io", "frankfurter.app", "fixer.io",
    "stackoverflow.com", "stackexchange.com", "reddit.com", "twitter.com", "x.com", "facebook.com", "youtube.com",
    "linkedin.com", "instagram.com", "medium.com", "nytimes.com", "bbc.com", "bbc.co.uk", "cnn.com", "npmjs.org",
    "npmjs.com", "nodejs.org", "debian.org", "ubuntu.com", "kernel.org", "gnu.org", "apache.org", "docker.io",
    "docker.com", "quotes.toscrape.com", "toscrape.com", "gutenberg.org", "archive.org", "loc.gov", "icanhazip.com",
    "ipify.org", "ipinfo.io", "ip-api.com", "restcountries.com", "pokeapi.co", "swapi.dev", "catfact.ninja",
    "thecatapi.com",
    "dog.ceo", "randomuser.me", "picsum.photos", "placeholder.com", "unsplash.com", "numbersapi.com", "quotable.io",
    "spacexdata.com", "newsapi.org", "themoviedb.org", "omdbapi.com", "spotify.com", "nist.gov", "ntp.org",
    "pool.ntp.org",
    "cloudflare.com", "one.one.one.one", "dns.google", "rsc.org", "ncbi.nlm.nih.gov", "ensembl.org", "uniprot.org",
    "rcsb.org", "mit.edu", "stanford.edu", "berkeley.edu", "harvard.edu", "scikit-learn.org", "pytorch.org",
    "tensorflow.org", "jsdelivr.net", "unpkg.com", "cdnjs.com", "localhost.localdomain",
)  # fmt: skip
_RESERVED = (".example", ".test", ".invalid", ".local.test")
_INTERNAL = (".internal", ".local", ".lan", ".corp", ".intranet", ".svc", ".cluster.local", ".home.arpa")
_URL = re.compile(r"^[a-z][a-z0-9+.-]*://(?:[^/@\s]*@)?(\[[0-9a-fA-F:.]+\]|[^/:?#\s]+)", re.IGNORECASE)
_BARE = re.compile(r"^(?:[^/@\s]*@)?(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]+|[0-9a-fA-F:]+)(?::\d{1,5})?(?:/.*)?$")
_NAME = re.compile(r"^(?=.*[A-Za-z])[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)+\.?$")


def host_of(text: str) -> str:
    """The host in a URL or a bare `host[:port]`, in lower case; "" when there is none."""
    text = text.strip()[:2048]
    if match := _URL.match(text):
        return match[1].strip("[]").lower()
    if text.startswith("//"):
        return host_of("http:" + text)
    match = _BARE.match(text)
    return match[1].strip("[]").lower() if match else ""


def _under(host: str, whole: str, domains: tuple[str, ...]) -> bool:
    for domain in domains:
        name, _, path = domain.partition("/")
        if (host == name or host.endswith("." + name)) and (not path or path in whole):
            return True
    return False


def host_matches(text: str, patterns: tuple[str, ...]) -> bool:
    """True when a pattern names the text's host, or a domain above it; `*` stands for anything."""
    if not patterns:
        return False
    host = host_of(text)
    for pattern in patterns:
        expression = re.escape(pattern.lower()).replace(r"\*", ".*")
        if re.match(rf"^(?:.*\.)?{expression}$", host):
            return True
    return False


def _address(host: str) -> HostKind | None:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return "encoded" if _encoded(host) else None
    if address.is_unspecified:
        return "any"
    if address.is_loopback:
        return "loopback"
    documentation = ("192.0.2.", "198.51.100.", "203.0.113.")
    if host.startswith(documentation) or host in ("8.8.8.8", "8.8.4.4", "1.1.1.1"):
        return "known"
    return "private" if address.is_private or address.is_link_local else "address"


def _encoded(host: str) -> bool:
    """`0x7f000001`, `2130706433`, `0177.0.0.1`: addresses that only a resolver's leniency reads."""
    parts = host.split(".")
    if len(parts) > 4 or not all(re.fullmatch(r"0x[0-9a-f]+|\d+", part) for part in parts):
        return False
    if len(parts) == 1:
        return host.startswith("0x") or (host.isdecimal() and int(host[:12]) > 0xFFFF)
    return True


def classify_host(text: str) -> HostKind:
    """What kind of place a URL or host name is; the first 2,048 characters tell."""
    return _classify_host(text.strip()[:2048])


@lru_cache(maxsize=2048)
def _classify_host(text: str) -> HostKind:  # noqa: C901, PLR0911 - a list of kinds, tried in order
    host = host_of(text)
    if not host:
        return "none"
    if host in _METADATA:
        return "metadata"
    if host in ("localhost", "localhost.localdomain", "ip6-localhost"):
        return "loopback"
    if (kind := _address(host)) is not None:
        return kind
    if host.endswith((".onion", ".i2p")):
        return "hidden"
    if host.startswith("xn--") or ".xn--" in host:
        return "encoded"
    if _under(host, text, _DROP):
        return "drop"
    if host.endswith(_INTERNAL):
        return "private"
    if _under(host, text, _SHARED):
        return "shared"
    if _under(host, text, _KNOWN) or host.endswith(_RESERVED) or host.split(".")[0] in ("example", "api.example"):
        return "known"
    if "example" in host or not _NAME.match(host):
        return "known" if "example" in host else "none"
    return "other"
