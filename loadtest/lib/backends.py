"""What stands behind the proxies."""

from . import procs

SMALL_BODY_BYTES = 140
# Behind it there is the load generator itself, while it runs.
OWN_HOST = "own.test"


def start(build_dir, cores):
    """nginx for bodies of a known length, a program of ours for chunked answers, and WebSocket echo: the ports of each
    host's backends."""
    made = procs.free_port()
    start_made(build_dir, made, cores)
    return {"www.test": [start_nginx(cores)], "made.test": [made], "ws.test": [start_echo(build_dir, cores)],
            OWN_HOST: [procs.free_port()]}


def start_made(build_dir, port, cores=None):
    """The backend that makes its answers as the path says."""
    command = [build_dir / "examples/backend", "--listen", f"127.0.0.1:{port}", "--name", f"on-{port}"]
    return procs.Process(command, cores, f"backend-{port}").await_port(port)


def start_echo(build_dir, cores=None):
    """The WebSocket backend that sends every message back."""
    port = procs.free_port()
    procs.Process([build_dir / "examples/wsload", "echo", "--listen", f"127.0.0.1:{port}"], cores,
                  "echo").await_port(port)
    return port


def start_events(build_dir, cores=None):
    """The backend that sends each client a numbered event every 50 ms."""
    port = procs.free_port()
    procs.Process([build_dir / "examples/wsload", "events", "--listen", f"127.0.0.1:{port}"], cores,
                  "events").await_port(port)
    return port


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
