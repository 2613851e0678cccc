"""The rows of the comparison: what is asked, of whom, and what sluice is to reach."""

from dataclasses import dataclass, replace

from .backends import SMALL_BODY_BYTES
from .peers import HOST_PREFIX, HOST_SUFFIX, SCHEDULERS, Variant

PLAIN = Variant()
TLS = Variant(tls=True)
CACHE = Variant(cache=True)
MANY_HOSTS = 100_000
MANY_RULES = 1000


@dataclass(frozen=True)
class Aim:
    """CPU a request at most this many times that of something: the floor, the best peer, sluice with one worker and no log
    ("plain"), with one worker and a cache ("cache"), or with one rule in the place of many ("one")."""
    of: str
    times: float

    def text(self):
        names = {"floor": "floor", "peer": "best peer", "plain": "plain sluice", "cache": "one worker", "one": "one rule"}
        return f"≤ {self.times:.2f} × {names[self.of]}"


@dataclass(frozen=True)
class Work:
    key: str
    title: str
    connections: int = 64
    host: str = "www.test"
    path: str = "/"
    headers: tuple = ()
    lua: str = ""
    lua_method: str = "GET"
    # Of an answer, or of a WebSocket message.
    body_bytes: int = SMALL_BODY_BYTES
    websocket: bool = False
    # An answer that ends its connection counts as an error.
    keeps: bool = False
    variant: Variant = PLAIN
    # Further set-ups that take part, beside every peer in `variant`.
    also: tuple = ()
    aims: tuple = ()

    def as_asked_of(self, variant):
        """A proxy that does not have the row's many hosts is asked for one instead."""
        if (self.variant.hosts and not variant.hosts) or variant.rules < self.variant.rules:
            return replace(self, key=f"{self.key}-one", host="www.test", lua="")
        return self


POST_LUA = """
wrk.method = "POST"
wrk.body = string.rep("p", 1024)
"""

# One host after the other, so that a cache that is smaller than their number misses every time.
def _hosts_lua(count):
    return """
local number, before, after = -1, "GET / HTTP/1.1\\r\\nHost: BEFORE", "AFTER\\r\\n\\r\\n"
function request()
    number = (number + 1) % COUNT
    return before .. number .. after
end
""".replace("COUNT", str(count)).replace("BEFORE", HOST_PREFIX).replace("AFTER", HOST_SUFFIX)


# Every request is for another object, so each is a miss, and is stored; the cache is full after a while.
MISS_LUA = """
local number, before, after = 0, "GET /?", " HTTP/1.1\\r\\nHost: www.test\\r\\n\\r\\n"
function init() math.randomseed(os.time()) number = math.random(2 ^ 30) * 4096 end
function request()
    number = number + 1
    return before .. string.format("%d", number) .. after
end
"""

WORKS = [
    Work("small", "140 B, keep-alive, 64 connections", aims=(Aim("peer", 0.75),)),
    Work("small-1000", "140 B, keep-alive, 1,000 connections", connections=1000, aims=(Aim("peer", 0.75),)),
    Work("small-1", "140 B, keep-alive, 1 connection", connections=1),
    Work("64k", "64 KiB, keep-alive", path="/files/64k", body_bytes=64 * 1024, aims=(Aim("peer", 0.55),)),
    Work("1m", "1 MiB, keep-alive", path="/files/1m", body_bytes=1024 * 1024, aims=(Aim("peer", 0.60),)),
    Work("connect", "140 B, a connection a request", headers=("Connection: close",), aims=(Aim("peer", 0.60),)),
    Work("post", "POST of 1 KiB, answer of 140 B", lua=POST_LUA, lua_method="POST"),
    Work("chunked", "answer of 8 chunks of 1 KiB", host="made.test", path="/chunked/8/1024", body_bytes=8192),
    Work("chunked-1m", "answer of 128 chunks of 8 KiB", host="made.test", path="/chunked/128/8192",
         body_bytes=1024 * 1024),
    Work("hosts", "140 B, 100,000 hosts in rotation", host=f"{HOST_PREFIX}7{HOST_SUFFIX}", lua=_hosts_lua(MANY_HOSTS),
         variant=Variant(hosts=MANY_HOSTS, cached_routes=131_072),
         also=(("sluice", Variant(hosts=MANY_HOSTS, cached_routes=1000)), ("sluice", PLAIN))),
    Work("rules", "140 B, use_backend among 1,000 hosts", host=f"{HOST_PREFIX}7{HOST_SUFFIX}",
         lua=_hosts_lua(MANY_RULES), variant=Variant(rules=MANY_RULES), also=(("sluice", Variant(rules=1)),),
         aims=(Aim("peer", 0.75), Aim("one", 1.03))),
    Work("ws-64", "WebSocket echo of 64 B", host="ws.test", path="/ws", body_bytes=64, websocket=True,
         aims=(Aim("peer", 1.0),)),
    Work("ws-16k", "WebSocket echo of 16 KiB", host="ws.test", path="/ws", body_bytes=16 * 1024, websocket=True,
         aims=(Aim("peer", 1.0),)),
    Work("log", "140 B, with access log", variant=Variant(log=True),
         also=(("sluice", PLAIN), ("nginx", PLAIN), ("haproxy", PLAIN)), aims=(Aim("plain", 1.03),)),
    # What an operator watches by: metrics scraped every second, a JSON log, probes.
    Work("whole", "140 B, the whole product on: metrics, JSON log, health", variant=Variant(whole=True),
         also=(("sluice", PLAIN), ("nginx", PLAIN), ("haproxy", PLAIN)), aims=(Aim("peer", 1.0), Aim("plain", 1.06))),
    # Buckets of which none is full: what they cost where nothing waits.
    Work("classes", "140 B, classes of requests", headers=("X-Class: silver",), variant=Variant(classes=True),
         also=(("sluice", PLAIN), ("haproxy", PLAIN)), aims=(Aim("plain", 1.03),)),
    Work("tls", "TLS, 140 B, keep-alive, 64 connections", variant=TLS, aims=(Aim("peer", 0.65),)),
    Work("tls-64k", "TLS, 64 KiB, keep-alive", path="/files/64k", body_bytes=64 * 1024, variant=TLS,
         aims=(Aim("peer", 1.0),)),
    Work("tls-connect", "TLS, 140 B, a whole handshake a request", headers=("Connection: close",), variant=TLS,
         aims=(Aim("peer", 0.45),)),
    # 1.9 times the requests of one worker, seen as CPU: load generators leave no core free on a small machine.
    Work("workers", "140 B, two workers", variant=Variant(workers=2),
         also=(("sluice", PLAIN), ("nginx", PLAIN), ("haproxy", PLAIN)), aims=(Aim("plain", 1.05),)),
    Work("cached", "140 B from the cache", variant=CACHE, aims=(Aim("peer", 0.60), Aim("floor", 0.80))),
    Work("cached-64k", "64 KiB from the cache", path="/files/64k", body_bytes=64 * 1024, variant=CACHE,
         aims=(Aim("peer", 0.60), Aim("floor", 0.80))),
    Work("cached-workers", "140 B from the cache, one object, two workers", variant=Variant(workers=2, cache=True),
         also=(("sluice", CACHE), ("nginx", CACHE)), aims=(Aim("cache", 1.05),)),
    Work("cache-miss", "140 B, misses that are stored", lua=MISS_LUA, variant=CACHE,
         also=(("sluice", PLAIN), ("nginx", PLAIN)), aims=(Aim("plain", 1.05),)),
]

# What a choice among few and among very many costs. Connections are kept by member: over many, most are idle.
WORKS += [
    Work(f"{scheduler}-{members}", f"140 B, {scheduler} over {members:,} members",
         variant=Variant(scheduler=scheduler, members=members), also=(("sluice", PLAIN),),
         aims=(Aim("peer", 0.85), Aim("plain", 1.10)) if members == 4 else (Aim("peer", 0.85),))
    for members in (4, 1000) for scheduler in SCHEDULERS
]
