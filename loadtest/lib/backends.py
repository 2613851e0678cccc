"""What stands behind the proxies."""

from dataclasses import dataclass

from . import procs

SMALL_BODY_BYTES = 140


@dataclass
class Backends:
    """Ports of the backends, by the host for which a proxy sends requests there."""
    static: int
    made: int
    echo: int

    def by_host(self):
        return {"www.test": self.static, "made.test": self.made, "ws.test": self.echo}


def start(build_dir, cores):
    """nginx for bodies of a known length, a program of ours for chunked answers, and WebSocket echo."""
    static = start_nginx(cores)
    made, echo = procs.free_port(), procs.free_port()
    procs.Process([build_dir / "examples/backend", "--listen", f"127.0.0.1:{made}"], cores,
                  "backend").await_port(made)
    procs.Process([build_dir / "examples/wsload", "echo", "--listen", f"127.0.0.1:{echo}"], cores,
                  "echo").await_port(echo)
    return Backends(static, made, echo)


def start_nginx(cores):
    port = procs.free_port()
    folder = procs.work_dir() / "backend-nginx"
    files = folder / "files"
    files.mkdir(parents=True)
    (files / "64k").write_bytes(b"x" * 64 * 1024)
    (files / "1m").write_bytes(b"x" * 1024 * 1024)
    config = folder / "nginx.conf"
    config.write_text(f"""
daemon off;
worker_processes 1;
worker_rlimit_nofile {procs.descriptor_limit()};
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 20000; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_time 24h;
    keepalive_timeout 600s;
    sendfile on;
    tcp_nopush on;
    open_file_cache max=16;
    client_body_temp_path {folder}/body;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{ return 200 "{'x' * SMALL_BODY_BYTES}"; }}
        location /files/ {{ root {folder}; }}
    }}
}}
""")
    command = ["nginx", "-c", config, "-p", folder, "-e", folder / "error.log"]
    procs.Process(command, cores, "backend-nginx").await_port(port)
    return port
