//! Ports that clusters on demand share with files, with other processes and with limits.

use super::{Admin, arguments, free_port};
use crate::support::backend::Backend;
use crate::support::client::{Client, connect};
use crate::support::proxy::Setup;
use crate::support::{HOST, PATIENCE, canned, until};
use serde_json::json;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Whether a connection to this port of the proxy is refused.
fn is_closed(admin: &Admin, port: u16) -> bool {
    TcpStream::connect(SocketAddr::new(admin.proxy.address().ip(), port)).is_err()
}

/// The text of a response at this port; that of none is empty. A connection is reset if the port is closed before a worker
/// has accepted it.
fn text_at(admin: &Admin, port: u16) -> String {
    let address = SocketAddr::new(admin.proxy.address().ip(), port);
    let Ok(stream) = TcpStream::connect(address) else { return String::new() };
    stream.set_read_timeout(Some(PATIENCE)).expect("setting the read timeout");
    let mut client = Client::over(Box::new(stream));
    let is_sent = client.try_send(canned::get("what.ever.test", "/"));
    let response = is_sent.then(|| client.try_response_to("GET").ok()).flatten();
    response.map_or_else(String::new, |response| response.text())
}

/// A file of HAProxy's that comes to name a port of a cluster on demand has it once the cluster has gone, and not before.
#[test]
fn a_port_on_demand_that_a_file_names_stays_until_its_cluster_goes() {
    let (ruled, demanded) = (Backend::always(canned::ok("ruled")), Backend::always(canned::ok("on demand")));
    let (port, other, unrelated) = (free_port(), free_port(), free_port());
    let file = |ports: &[u16]| {
        let binds: String = ports.iter().map(|port| format!(" bind 127.0.0.1:{port}\n")).collect();
        format!(
            "defaults\n mode http\n timeout connect 5s\n timeout client 10s\n timeout server 10s\n\
             listen www\n{binds} server s {}\n",
            ruled.address()
        )
    };
    let setup =
        Setup::new().file("haproxy.cfg", &file(&[other])).driver(json!(["file:routes.json", "haproxy:haproxy.cfg"]));
    let admin = Admin::start(setup);
    let ip = admin.proxy.address().ip();
    let file = |ports: &[u16]| file(ports).replace("127.0.0.1", &ip.to_string());
    admin.proxy.replace("haproxy.cfg", &file(&[other]));
    until("the file is served", || text_at(&admin, other) == "ruled");
    admin.expect("PUT", &format!("/web?port={port}"), "", 201);
    admin.expect("PUT", "/web/backends/one", &arguments(&demanded), 201);
    until("the cluster serves", || text_at(&admin, port) == "on demand");
    // The file names the port: it is refused, also when sockets are handed out anew.
    admin.proxy.replace("haproxy.cfg", &file(&[other, port]));
    let named = format!("listening on {ip}:{port}: a cluster on demand has this port");
    until("the conflict is named", || admin.proxy.stderr().contains(&named));
    admin.expect("PUT", &format!("/unrelated?port={unrelated}"), "", 201);
    until("another port is open", || !is_closed(&admin, unrelated));
    for _ in 0..16 {
        assert_eq!(text_at(&admin, port), "on demand");
    }
    // The file loses the line first: the port stays.
    admin.proxy.replace("haproxy.cfg", &file(&[port]));
    until("the file is read", || is_closed(&admin, other));
    admin.proxy.replace("haproxy.cfg", &file(&[other]));
    until("the file is read", || text_at(&admin, other) == "ruled");
    assert_eq!(text_at(&admin, port), "on demand");
    // The cluster goes first: the file has the port, and keeps it.
    admin.proxy.replace("haproxy.cfg", &file(&[port]));
    until("the file is read", || is_closed(&admin, other));
    assert_eq!(text_at(&admin, port), "on demand");
    admin.expect("DELETE", "/web", "", 204);
    until("the file is served there", || text_at(&admin, port) == "ruled");
    admin.expect("PUT", &format!("/web?port={port}"), "", 409);
    admin.expect("DELETE", "/unrelated", "", 204);
    for _ in 0..16 {
        assert_eq!(text_at(&admin, port), "ruled");
    }
}

/// A port is free behind the response to the edit that closes it, though busy workers have yet to read of it.
#[test]
fn a_port_that_was_closed_can_be_had_at_once() {
    let backend = Backend::always(canned::ok("ok"));
    let admin = Admin::start(Setup::for_backends([backend.url()]).workers(3));
    let (port, is_over) = (free_port(), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut client = admin.proxy.client();
                while !is_over.load(Ordering::Relaxed) {
                    client.get(HOST, "/").expect_ok("ok");
                }
            });
        }
        let mut edits = admin.client();
        let mut problem = None;
        for round in 0..200 {
            let put = admin.request("PUT", &format!("/c{round}?port={port}"), "");
            let status = edits.exchange(put).status();
            let delete = admin.request("DELETE", &format!("/c{round}"), "");
            problem = problem.or((status != 201).then_some((round, status)));
            if problem.is_some() || edits.exchange(delete).status() != 204 {
                break;
            }
        }
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(problem, None, "round and status of a PUT");
    });
    until("the port is closed", || is_closed(&admin, port));
}

/// A port that another process has at the start is opened when it is free.
#[test]
fn a_port_that_could_not_be_had_at_the_start_is_tried_again() {
    let backend = Backend::always(canned::ok("ok"));
    let mut admin = Admin::start(super::with_state());
    let listener = TcpListener::bind((admin.proxy.address().ip(), 0)).expect("a port");
    let address = listener.local_addr().expect("its address");
    let port = address.port();
    drop(listener);
    admin.expect("PUT", &format!("/web?port={port}"), "", 201);
    admin.expect("PUT", "/web/backends/one", &arguments(&backend), 201);
    until("it serves", || text_at(&admin, port) == "ok");
    until("it is kept", || admin.proxy.read("state/web.db").contains("backend"));
    admin.proxy.signal(nix::sys::signal::Signal::SIGTERM);
    admin.proxy.until_exit();
    let taken = TcpListener::bind(address).expect("the port");
    admin.proxy.restart();
    until("the proxy is ready", || admin.proxy.accepts() && admin.get("/readyz").status() == 200);
    let named = format!("clusters on demand at port {port} are not reached there");
    assert!(admin.proxy.stderr().contains(&named), "{}", admin.proxy.stderr());
    drop(taken);
    until("it is open", || text_at(&admin, port) == "ok");
}

/// Ports take a share of the files, so that clients and backends have the rest.
#[test]
fn ports_are_limited_by_open_files() {
    let backend = Backend::always(canned::ok("ok"));
    let setup = Setup::for_backends([backend.url()]).workers(2).prelude("ulimit -Sn 256; ulimit -Hn 600; ");
    let admin = Admin::start(setup);
    // 600 / 16 sockets, two a port.
    for number in 0..18 {
        admin.expect("PUT", &format!("/c{number}?port={}", free_port()), "", 201);
    }
    let refused = admin.expect("PUT", &format!("/more?port={}", free_port()), "", 409);
    assert!(refused.text().contains("the limit of open files allows 37"), "{}", refused.text());
    admin.expect("GET", "/more", "", 404);
    let mut clients: Vec<Client> =
        (0..100).map(|_| Client::over(Box::new(connect(admin.proxy.address(), None)))).collect();
    clients.iter_mut().for_each(|client| client.get(HOST, "/").expect_ok("ok"));
    admin.expect("DELETE", "/c3", "", 204);
    admin.expect("PUT", &format!("/more?port={}", free_port()), "", 201);
}
