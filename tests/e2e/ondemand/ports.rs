//! Clusters for a port, and the listeners that they bring.

use super::{Admin, arguments, free_port};
use crate::support::backend::Backend;
use crate::support::client::{Client, connect};
use crate::support::proxy::Setup;
use crate::support::{HOST, canned, until, unused_address};
use serde_json::json;
use std::net::{SocketAddr, TcpListener, TcpStream};

/// Whether connections to this port of the proxy are refused.
fn is_closed(admin: &Admin, port: u16) -> bool {
    TcpStream::connect(SocketAddr::new(admin.proxy.address().ip(), port)).is_err()
}

#[test]
fn a_port_is_opened_on_every_core_and_closed_behind_the_last_cluster() {
    let backend = Backend::always(canned::ok("at the port"));
    let admin = Admin::start(Setup::new().workers(3));
    let port = free_port();
    assert!(is_closed(&admin, port));
    let made = admin.expect("PUT", &format!("/any?port={port}"), "", 201);
    assert_eq!(made.head.get("Location"), Some(format!("http://any:{port}/").as_str()));
    admin.expect("PUT", "/any/backends/one", &arguments(&backend), 201);
    until("it serves", || admin.at(port).get("what.ever.test", "/").status() == 200);
    // Connections are spread over the sockets of all workers.
    for number in 0..30 {
        admin.at(port).get(&format!("host{number}.test"), "/").expect_ok("at the port");
    }
    assert_eq!(admin.proxy.client().get("what.ever.test", "/").status(), 400, "at no other port");
    admin.expect("PUT", &format!("/second?hostname=second.test&port={port}"), "", 201);
    admin.expect("DELETE", "/any", "", 204);
    assert_eq!(admin.at(port).get("what.ever.test", "/").status(), 400);
    assert_eq!(admin.at(port).get("second.test", "/").status(), 502, "no backend yet");
    admin.expect("POST", "/second", "port=", 202);
    until("the port is closed", || is_closed(&admin, port));
    assert_eq!(admin.proxy.client().get("second.test", "/").status(), 502, "for its host alone now");
    admin.expect("POST", "/second", &format!("port={port}&hostname="), 202);
    until("the port is open", || !is_closed(&admin, port));
    assert_eq!(admin.proxy.client().get("second.test", "/").status(), 400);
}

#[test]
fn the_most_specific_cluster_serves_at_each_listener() {
    let backends = ["file", "host", "port", "both"].map(|name| Backend::always(canned::ok(name)));
    let admin = Admin::start(Setup::for_backends([backends[0].url()]));
    let port = free_port();
    let own = admin.proxy.address().port();
    let rows = |expected: [(u16, &str, &str); 4]| {
        for (port, host, text) in expected {
            until(&format!("{host}:{port} is {text}"), || {
                let found = admin.at(port).get(host, "/");
                if found.status() == 200 { found.text() == text } else { text.is_empty() }
            });
        }
    };
    admin.expect("PUT", &format!("/port?port={port}"), "", 201);
    admin.expect("PUT", "/port/backends/one", &arguments(&backends[2]), 201);
    rows([(own, HOST, "file"), (own, "x.test", ""), (port, HOST, "port"), (port, "x.test", "port")]);
    admin.expect("PUT", &format!("/both?hostname=x.test&port={port}"), "", 201);
    admin.expect("PUT", "/both/backends/one", &arguments(&backends[3]), 201);
    rows([(own, HOST, "file"), (own, "x.test", ""), (port, HOST, "port"), (port, "x.test", "both")]);
    admin.expect("PUT", "/host?hostname=x.test", "", 201);
    admin.expect("PUT", "/host/backends/one", &arguments(&backends[1]), 201);
    rows([(own, HOST, "file"), (own, "x.test", "host"), (port, HOST, "port"), (port, "x.test", "both")]);
    admin.expect("DELETE", "/both", "", 204);
    rows([(own, HOST, "file"), (own, "x.test", "host"), (port, HOST, "port"), (port, "x.test", "host")]);
    // A cluster for a port of the configuration needs no listener of its own.
    admin.expect("PUT", &format!("/both?hostname={HOST}&port={own}"), "", 201);
    admin.expect("PUT", "/both/backends/one", &arguments(&backends[3]), 201);
    rows([(own, HOST, "both"), (own, "x.test", "host"), (port, HOST, "port"), (port, "x.test", "host")]);
    admin.expect("DELETE", "/both", "", 204);
    admin.expect("DELETE", "/host", "", 204);
    rows([(own, HOST, "file"), (own, "x.test", ""), (port, HOST, "port"), (port, "x.test", "port")]);
    admin.expect("DELETE", "/port", "", 204);
    rows([(own, HOST, "file"), (own, "x.test", ""), (own, HOST, "file"), (own, "x.test", "")]);
}

/// No request that comes behind the response to an edit is routed as before, on any core.
#[test]
fn an_edit_holds_for_every_request_behind_its_response() {
    let backend = Backend::always(canned::ok("of the file"));
    let admin = Admin::start(Setup::for_backends([backend.url()]).workers(4));
    let own = admin.proxy.address().port();
    let mut edits = admin.client();
    let mut clients: Vec<_> = (0..8).map(|_| admin.proxy.client()).collect();
    let mut expect = |host: &str, status: u16, what: &str| {
        for (number, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.get(host, "/").status(), status, "{host} at connection {number} {what}");
        }
    };
    let matches = [format!("hostname={HOST}"), "hostname=x.test".to_owned(), format!("port={own}")];
    for round in 0..60 {
        let (host, before) = if round % 3 == 0 { (HOST, 200) } else { ("x.test", 400) };
        expect(host, before, "before");
        let put = admin.request("PUT", &format!("/x?{}", matches[round % 3]), "");
        assert_eq!(edits.exchange(put).status(), 201);
        expect(host, 502, "behind the response to PUT");
        let change = admin.request("POST", "/x", "enabled=false");
        assert_eq!(edits.exchange(change).status(), 202);
        expect(host, 503, "behind the response to POST");
        let delete = admin.request("DELETE", "/x", "");
        assert_eq!(edits.exchange(delete).status(), 204);
        expect(host, before, "behind the response to DELETE");
    }
}

#[test]
fn ports_that_cannot_be_had_are_refused_and_change_nothing() {
    let admin = Admin::start(Setup::new().set("onDemandPorts", "20000-65535"));
    let listener = TcpListener::bind((admin.proxy.address().ip(), 0)).expect("a port");
    let taken = listener.local_addr().expect("its address").port();
    admin.expect("PUT", "/app?hostname=app.test", "", 201);
    let refused = admin.expect("POST", "/app", &format!("port={taken}"), 409);
    assert!(refused.text().contains("Address already in use"), "{}", refused.text());
    drop(listener);
    let refused = admin.expect("PUT", "/low?port=8000", "", 409);
    assert!(refused.text().contains("server.onDemandPorts (20000-65535)"), "{}", refused.text());
    admin.expect("PUT", &format!("/admin?port={}", admin.address().port()), "", 409);
    assert_eq!(admin.show("/app")["port"], serde_json::Value::Null);
    admin.expect("GET", "/low", "", 404);
    admin.expect("POST", "/app", &format!("port={taken}"), 202);
    until("the port is open", || !is_closed(&admin, taken));
}

#[test]
fn a_port_of_an_haproxy_file_is_refused() {
    let (backend, ruled) = (Backend::always(canned::ok("ruled")), unused_address());
    let file = format!(
        "defaults\n mode http\n timeout connect 5s\n timeout client 10s\n timeout server 10s\n\
         listen www\n bind {ruled}\n server s {}\n",
        backend.address()
    );
    let setup = Setup::new().file("haproxy.cfg", &file).driver(json!(["file:routes.json", "haproxy:haproxy.cfg"]));
    let admin = Admin::start(setup);
    let port = ruled.port();
    let refused = admin.expect("PUT", &format!("/app?port={port}"), "", 409);
    assert!(refused.text().contains("is one of HAProxy's files, whose rules decide there"), "{}", refused.text());
    admin.expect("GET", "/app", "", 404);
    admin.expect("PUT", "/app?hostname=app.test", "", 201);
    admin.expect("POST", "/app", &format!("port={port}"), 409);
    assert_eq!(admin.show("/app")["port"], serde_json::Value::Null);
    Client::over(Box::new(connect(ruled, None))).get("app.test", "/").expect_ok("ruled");
}

#[test]
fn a_worker_that_is_replaced_serves_the_port_too() {
    let backend = Backend::always(canned::ok("ok"));
    let admin = Admin::start(Setup::new().workers(1));
    let port = free_port();
    admin.expect("PUT", &format!("/any?port={port}"), "", 201);
    admin.expect("PUT", "/any/backends/one", &arguments(&backend), 201);
    until("it serves", || admin.at(port).get("a.test", "/").status() == 200);
    let drain = format!("POST /v1/workers/0/drain HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\n\r\n", admin.host());
    assert_eq!(admin.client().exchange(drain).status(), 202);
    until("the worker is replaced", || admin.json("/v1/status")["replaced_workers"] == 1);
    until("the old one has ended", || admin.json("/v1/status")["workers"].as_array().map(Vec::len) == Some(1));
    admin.at(port).get("b.test", "/").expect_ok("ok");
    admin.expect("DELETE", "/any", "", 204);
    until("the port is closed", || is_closed(&admin, port));
}
