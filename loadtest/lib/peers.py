"""The proxies that are compared, with settings as like as their languages allow.

All keep connections to backends alive, add X-Forwarded-For, -Proto, -Port and X-Real-IP, and choose the backend by
the host. Idle times and connection limits are raised so far that none is met; buffers are each one's own default.
All accept connections once their first bytes have come (TCP_DEFER_ACCEPT), which sluice always does; the floor takes
them as they come.
"""

import json
import subprocess
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

from . import admin, procs

PEERS = ["floor", "sluice", "nginx", "haproxy"]
# Another build of sluice takes part where its program is named.
BEFORE = "before"
# The program of each peer that is not built here.
PROGRAMS = {"nginx": "nginx", "haproxy": "haproxy"}
# A host of many is one of these numbers between the two.
HOST_PREFIX, HOST_SUFFIX = "h", ".example.test"
IDLE_SECONDS = 600


@dataclass(frozen=True)
class Variant:
    """How a proxy is set up."""
    workers: int = 1
    log: bool = False
    hosts: int = 0
    # Lines `use_backend` of a file that sluice and HAProxy both serve, a host each.
    rules: int = 0
    # Routes that sluice may keep a core; None is its default.
    cached_routes: int | None = None
    # For how many seconds a backend that failed is left alone; None is everyone's default.
    dead_seconds: int | None = None
    # Encrypted: a certificate of P-256, and no tickets or sessions, so that every handshake is a whole one.
    tls: bool = False
    # Classes of requests: buckets of sluice, which are never full here, and priority classes of HAProxy's queues.
    classes: bool = False
    # Responses are stored for an hour, and served from memory.
    cache: bool = False
    # All that an operator watches by is on: metrics that are scraped every second, a JSON log, and probes of the backends.
    # nginx has a page of its counts for metrics, and no probes.
    whole: bool = False
    # The members of www.test, all of them the same server, and how one of them is chosen: a scheduler of sluice.
    members: int = 1
    scheduler: str = ""
    # Further settings of sluice's `server`: pairs of name and value.
    server: tuple = ()

    def label(self):
        parts = []
        if self.workers != 1:
            parts.append(f"{self.workers} workers")
        if self.log:
            parts.append("log")
        if self.hosts:
            parts.append(f"{self.hosts} hosts")
        if self.rules:
            parts.append(f"{self.rules} rules")
        if self.cached_routes is not None:
            parts.append(f"cache of {self.cached_routes}")
        if self.tls:
            parts.append("TLS")
        if self.classes:
            parts.append("classes")
        if self.cache:
            parts.append("cache")
        if self.whole:
            parts.append("metrics, JSON log, probes")
        if self.scheduler:
            parts.append(f"{self.scheduler} over {self.members}")
        return ", ".join(parts)


# Schedulers of sluice, and those of HAProxy that do the same.
SCHEDULERS = {"random": "random(1)", "rr": "roundrobin", "chance": "first", "leastLoad": "leastconn", "hash": "source"}

# Where sluice listens without encryption, also where the variant has it.
PLAIN_PORT = "plain"


@dataclass
class Running:
    """A proxy that runs."""
    name: str
    variant: Variant
    processes: list
    ports: dict = field(default_factory=dict)
    # Where metrics are to be had, and at which path: they are scraped every second while there is load.
    metrics: tuple | None = None

    def port(self, host):
        return self.ports.get(host, self.ports.get("*"))

    def cpu_seconds(self):
        times = [process.cpu_seconds() for process in self.processes]
        return sum(user for user, _ in times), sum(system for _, system in times)

    def memory(self):
        sizes = [process.memory() for process in self.processes]
        return sum(rss for rss, _ in sizes), sum(private for _, private in sizes)

    def is_running(self):
        return all(process.is_running() for process in self.processes)

    def scraped(self):
        """Scrapes its metrics every second until it is left, where it is to be."""
        return admin.Repeating(self._scrape, 1) if self.metrics else nullcontext()

    def _scrape(self):
        status, body, _ = admin.get(*self.metrics)
        if status != 200 or not body:
            raise procs.Failure(f"the metrics of {self.name}: {status} {body[:200]}")

    def go_first(self, really=True):
        for process in self.processes:
            process.go_first(really)

    def end(self):
        for process in self.processes:
            process.end()


def start(name, variant, cores, backends, build_dir):
    """Starts a proxy on as many of `cores` as the variant has workers. `backends` has the ports behind each host."""
    cores = cores[:variant.workers]
    folder = procs.work_dir() / f"{name}-{procs.free_port()}"
    folder.mkdir()
    folder.chmod(0o777)
    starter = {"floor": _start_floor, "sluice": _start_sluice, BEFORE: _start_before, "nginx": _start_nginx,
               "haproxy": _start_haproxy}
    return starter[name](variant, cores, backends, folder, build_dir)


def can(name, variant):
    """The floor copies bytes, and can do nothing else: beside a cache it shows what asking the backend costs at least. nginx has
    no classes of requests, no rules of HAProxy's and not all schedulers, and HAProxy's cache takes no object that is larger than one of its buffers."""
    is_beyond = {"floor": variant.tls or variant.classes or variant.scheduler, "nginx": variant.classes or variant.rules or variant.scheduler, "haproxy": variant.cache}
    return not is_beyond.get(name, False)


def make_certificate(folder):
    """A certificate and its key, as nginx and sluice want them and, in one file, as HAProxy does."""
    certificate, key = folder / "site.crt", folder / "site.key"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-keyout", key, "-out", certificate, "-days", "30", "-subj", "/CN=www.test",
                    "-addext", "subjectAltName=DNS:www.test", "-addext", "basicConstraints=critical,CA:FALSE"],
                   check=True, capture_output=True)
    # Who was started as root reads it as another user.
    key.chmod(0o644)
    both = folder / "site.pem"
    both.write_text(certificate.read_text() + key.read_text())
    return certificate, key, both


def host_names(variant):
    return [f"{HOST_PREFIX}{number}{HOST_SUFFIX}" for number in range(max(variant.hosts, variant.rules))]


def _start_floor(variant, cores, backends, folder, build_dir):
    running = Running("floor", variant, [])
    for host, ports in backends.items():
        port = procs.free_port()
        for core in cores:
            command = [build_dir / "examples/baseline_relay", "--listen", f"127.0.0.1:{port}",
                       "--backend", f"127.0.0.1:{ports[0]}"]
            running.processes.append(procs.Process(command, {core}, folder.name).await_port(port))
        running.ports[host] = port
    running.ports["*"] = next(iter(running.ports.values()))
    return running


def _start_before(variant, cores, backends, folder, _build_dir):
    return _start_build(BEFORE, PROGRAMS[BEFORE], variant, cores, backends, folder)


def _start_sluice(variant, cores, backends, folder, build_dir):
    return _start_build("sluice", build_dir / "sluice", variant, cores, backends, folder)


def _start_build(name, program, variant, cores, backends, folder):
    port = procs.free_port()
    frontends = {host: [host, *(f"http://127.0.0.1:{backend}" for backend in ports)]
                 for host, ports in backends.items()}
    for host in host_names(variant):
        frontends[host] = frontends["www.test"]
    options = {}
    if variant.scheduler:
        # A name that means nothing here makes each a backend of its own, with connections of its own.
        url = frontends["www.test"][1]
        frontends["www.test"][1:] = [f"{url}#sni=m{number}" for number in range(variant.members)]
        options = {"www.test": {"scheduler": variant.scheduler}}
    elif variant.classes:
        options = {host: CLASSES for host in frontends}
    elif variant.cache:
        options = {host: {"cache": {"enabled": True, "defaultTtl": "1h"}} for host in frontends}
    elif variant.whole:
        options = {host: {"health": {"mode": "paranoid", "path": "/", "interval": "1"}} for host in frontends}
    (folder / "routes.json").write_text(json.dumps({"frontends": frontends, "options": options}))
    server = {
        "workers": len(cores),
        "cpus": ",".join(str(core) for core in cores),
        "accessLog": str(folder / "access.log") if variant.log or variant.whole else False,
        "accessLogFormat": "json" if variant.whole else "hipache",
        "maxSockets": 20000,
        "tcpTimeout": IDLE_SECONDS,
        **dict(variant.server),
    }
    if variant.cached_routes is not None:
        server["lruCache"] = {"size": variant.cached_routes}
    if variant.dead_seconds is not None:
        server["deadBackendTTL"] = variant.dead_seconds
    metrics = (procs.free_port(), "/metrics")
    text = {"server": server, "http": {"port": port, "bind": "127.0.0.1"}, "driver": "file:routes.json",
            "admin": {"bind": f"127.0.0.1:{metrics[0]}" if variant.whole else False}}
    if variant.rules:
        _write_haproxy_file(folder / "haproxy.cfg", variant, cores, backends, port)
        text = {"server": server, "driver": "haproxy:haproxy.cfg", "admin": text["admin"]}
    if variant.tls:
        certificate, key, _ = make_certificate(folder)
        text["http"]["port"] = procs.free_port()
        text["https"] = {"port": port, "bind": "127.0.0.1", "cert": str(certificate), "key": str(key),
                         "secureOptions": "SSL_OP_NO_TICKET"}
    config = folder / "config.json"
    config.write_text(json.dumps(text, indent=1))
    process = procs.Process([program, "--config", config], set(cores), folder.name)
    plain_port = text.get("http", {"port": port})["port"]
    ports = {"*": port, PLAIN_PORT: plain_port}
    return Running(name, variant, [process.await_port(port)], ports, metrics if variant.whole else None)


# Three classes, and requests of the second: so rules are asked for, and a token is taken on two levels.
CLASSES = {
    "maxRequests": 10_000,
    "buckets": {"gold": "50..100 %", "silver": "30..100 %", "bronze": "20..100 %"},
    "classify": [{"header": ["X-Class", name], "bucket": name} for name in ("gold", "silver", "bronze")],
}
HAPROXY_CLASSES = "".join(f"""
    http-request set-priority-class int({place}) if {{ req.hdr(X-Class) {name} }}"""
                          for place, name in enumerate(("gold", "silver", "bronze")))


def _start_nginx(variant, cores, backends, folder, _build_dir):
    port = procs.free_port()
    log = "access_log off;"
    if variant.log:
        log = f"access_log {folder}/access.log combined buffer=64k flush=1s;"
    metrics = (procs.free_port(), "/status")
    status = ""
    if variant.whole:
        log = f"{NGINX_JSON}\n    access_log {folder}/access.log json buffer=64k flush=1s;"
        status = f"server {{ listen 127.0.0.1:{metrics[0]}; location /status {{ stub_status; access_log off; }} }}"
    config = folder / "nginx.conf"
    config.write_text(f"""
daemon off;
worker_processes {len(cores)};
worker_cpu_affinity {" ".join(f"{1 << core:b}" for core in cores)};
worker_rlimit_nofile {procs.descriptor_limit()};
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 30000; }}
http {{
    {log}
    keepalive_requests 1000000000;
    keepalive_time 24h;
    keepalive_timeout {IDLE_SECONDS}s;
    tcp_nodelay on;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    {NGINX_FORWARDED}
    proxy_read_timeout {IDLE_SECONDS}s;
    proxy_max_temp_file_size 0;
    client_max_body_size 0;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    {_nginx_upstreams(variant, backends)}
    {_nginx_tls(variant, folder)}
    {_nginx_cache(variant, folder)}
    {_nginx_servers(backends, port, len(cores), variant.tls)}
    {_nginx_many_hosts(variant, port, folder)}
    {status}
}}
""")
    command = [PROGRAMS["nginx"], "-c", config, "-p", folder, "-e", folder / "error.log"]
    process = procs.Process(command, set(cores), folder.name)
    metrics = metrics if variant.whole else None
    return Running("nginx", variant, [process.await_port(port)], {"*": port}, metrics)


def _nginx_upstreams(variant, backends):
    pause = f" max_fails=1 fail_timeout={variant.dead_seconds}s" if variant.dead_seconds else ""
    return "".join(f"""
    upstream {_section(host)} {{
        {" ".join(f"server 127.0.0.1:{backend}{pause};" for backend in ports)}
        keepalive 1000;
        keepalive_requests 1000000000;
        keepalive_time 24h;
        keepalive_timeout {IDLE_SECONDS}s;
    }}""" for host, ports in backends.items())


def _nginx_tls(variant, folder):
    if not variant.tls:
        return ""
    certificate, key, _ = make_certificate(folder)
    return f"""
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_tickets off;
    ssl_session_cache off;"""


def _nginx_cache(variant, folder):
    """Objects are files in the page cache, which nginx sends by sendfile: that is its way to keep them in memory."""
    if not variant.cache:
        return ""
    return f"""
    proxy_cache_path {folder}/cache levels=1:2 keys_zone=objects:64m max_size=256m inactive=1h use_temp_path=off;
    proxy_cache objects;
    proxy_cache_key $scheme$http_host$request_uri;
    proxy_cache_valid 200 1h;
    proxy_cache_lock on;
    open_file_cache max=10000 inactive=1h;
    sendfile on;
    tcp_nopush on;"""


def _nginx_servers(backends, port, workers, tls):
    text = ""
    # Options of a socket stand with its first mention only.
    options = f" backlog=4096 deferred{' reuseport' if workers > 1 else ''}{' ssl' if tls else ''}"
    for host in backends:
        text += f"""
    server {{
        listen 127.0.0.1:{port}{options};
        server_name {host};
        location / {{ proxy_pass http://{_section(host)}; }}
        location /ws {{
            proxy_pass http://{_section(host)};
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            {NGINX_FORWARDED}
        }}
    }}"""
        options = ""
    return text


def _nginx_many_hosts(variant, port, folder):
    if not variant.hosts:
        return ""
    lines = "".join(f"{host} {_section('www.test')};\n" for host in host_names(variant))
    (folder / "hosts.map").write_text(lines)
    return f"""
    map_hash_max_size {4 * variant.hosts};
    map_hash_bucket_size 128;
    map $host $target {{ include {folder}/hosts.map; }}
    server {{
        listen 127.0.0.1:{port};
        server_name *{HOST_SUFFIX};
        location / {{ proxy_pass http://$target; }}
    }}"""


def _section(host):
    """A host's name where dots are not welcome."""
    return host.replace(".", "_")


# Fields as the JSON log of sluice has them, as far as nginx knows them.
NGINX_JSON = """log_format json escape=json '{"time":"$time_iso8601","client":"$remote_addr","method":"$request_method",'
        '"target":"$request_uri","host":"$host","status":$status,"bytes":$bytes_sent,"received":$request_length,'
        '"seconds":$request_time,"backend":"$upstream_addr","connect":"$upstream_connect_time",'
        '"first_byte":"$upstream_header_time","referer":"$http_referer","user_agent":"$http_user_agent"}';"""

NGINX_FORWARDED = """proxy_set_header Host $http_host;
    proxy_set_header X-Real-IP $remote_addr;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme;
    proxy_set_header X-Forwarded-Port $server_port;"""


def _start_haproxy(variant, cores, backends, folder, _build_dir):
    port = procs.free_port()
    config = folder / "haproxy.cfg"
    metrics = (procs.free_port(), "/metrics") if variant.whole else None
    _write_haproxy_file(config, variant, cores, backends, port, metrics)
    process = procs.Process([PROGRAMS["haproxy"], "-db", "-f", config], set(cores), folder.name)
    return Running("haproxy", variant, [process.await_port(port)], {"*": port}, metrics)


# The same as for nginx.
HAPROXY_JSON = """'{"time":"%tr","client":"%ci","method":"%HM","target":"%HU","status":%ST,"bytes":%B,"received":%U,"""\
    """"seconds":%Ta,"backend":"%s","connect":%Tc,"first_byte":%Tr,"queue":%Tw}'"""


def _write_haproxy_file(config, variant, cores, backends, port, metrics=None):
    folder = config.parent
    targets = {host: _section(host) for host in backends}
    targets.update({host: _section("www.test") for host in host_names(variant)})
    (folder / "hosts.map").write_text("".join(f"{host} {name}\n" for host, name in targets.items()))
    sections = "".join(f"""
backend {_section(host)}
{"    option httpchk GET /" if variant.whole else ""}
{_haproxy_servers(ports, variant if host == "www.test" else replace(variant, members=1, scheduler=""))}
""" for host, ports in backends.items())
    log_global = "log stdout len 1024 format raw daemon info" if variant.log or variant.whole else ""
    log_default = "log global\n    option httplog" if variant.log else ""
    exporter = ""
    if variant.whole:
        log_default = f"log global\n    log-format {HAPROXY_JSON}"
        exporter = f"frontend metrics\n    bind 127.0.0.1:{metrics[0]}\n    no log\n    "\
            "http-request use-service prometheus-exporter if { path /metrics }"
    # By itself HAProxy tries only connections again; requests too are for a test in which backends die.
    retries = "option redispatch 1\n    retry-on all-retryable-errors" if variant.dead_seconds else ""
    shards = " shards by-thread" if len(cores) > 1 else ""
    tls = f" ssl crt {make_certificate(folder)[2]} no-tls-tickets alpn http/1.1" if variant.tls else ""
    cache = "tune.ssl.cachesize 0" if variant.tls else ""
    scheme = "https" if variant.tls else "http"
    choice = f"use_backend %[req.hdr(host),field(1,:),lower,map({folder}/hosts.map)]"
    if variant.rules:
        rules = [f"use_backend {_section('www.test')} if {{ hdr(host) -i {host} }}" for host in host_names(variant)]
        choice = "\n    ".join([*rules, f"default_backend {_section('www.test')}"])
    config.write_text(f"""
global
    nbthread {len(cores)}
    cpu-map auto:1/1-{len(cores)} {" ".join(str(core) for core in cores)}
    maxconn {min(30000, procs.descriptor_limit() // 2 - 200)}
    {log_global}
    {cache}
defaults
    mode http
    {log_default}
    http-reuse always
    {retries}
    option forwardfor
    timeout connect 5s
    timeout client {IDLE_SECONDS}s
    timeout server {IDLE_SECONDS}s
    timeout tunnel {IDLE_SECONDS}s
    timeout http-keep-alive {IDLE_SECONDS}s
frontend web
    bind 127.0.0.1:{port} backlog 4096 defer-accept{shards}{tls}
    http-request set-header X-Real-IP %[src]
    http-request set-header X-Forwarded-Proto {scheme}
    http-request set-header X-Forwarded-Port %[dst_port]
{HAPROXY_CLASSES if variant.classes else ""}
    {choice}
{exporter}
{sections}
""")


def _haproxy_servers(ports, variant):
    more = " maxconn 10000" if variant.classes else " check inter 1s" if variant.whole else ""
    choice = f"    balance {SCHEDULERS[variant.scheduler]}\n    hash-type consistent\n" if variant.scheduler else ""
    servers = ((port, number) for port in ports for number in range(variant.members))
    return choice + "\n".join(f"    server on-{port}-{number} 127.0.0.1:{port}{more}" for port, number in servers)
