//! The routes file: which frontend serves a host, and what happens when the file changes.

use crate::support::backend::Backend;
use crate::support::client::Client;
use crate::support::proxy::{Proxy, Setup, frontend};
use crate::support::{HOST, canned, until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sluice::base::clock::Clock;
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// How soon a good edit is to be live.
const LIVE: Duration = Duration::from_millis(100);

/// So many connections that every worker has some of them.
const CONNECTIONS: usize = 16;

fn one_frontend(backend: &Backend) -> Value {
    json!({ HOST: frontend(HOST, [backend.url()]) })
}

fn open_clients(proxy: &Proxy) -> Vec<Client> {
    (0..CONNECTIONS).map(|_| proxy.client()).collect()
}

/// Waits until all these connections are served by the backend that says `name`; every request must be answered.
#[track_caller]
fn until_all_say(clients: &mut [Client], name: &str) {
    until(&format!("every worker sends requests to {name}"), || {
        let responses = clients.iter_mut().map(|client| client.get(HOST, "/"));
        let said = responses.map(|response| {
            assert_eq!(response.status(), 200, "{}{}", response.head, response.text());
            response.text()
        });
        said.filter(|text| text != name).count() == 0
    });
}

#[test]
fn a_good_edit_is_live_on_all_workers_in_time() {
    let backends = [Backend::always(canned::ok("one")), Backend::always(canned::ok("other"))];
    let proxy = Setup::for_backends([backends[0].url()]).start();
    let mut clients = open_clients(&proxy);
    until_all_say(&mut clients, "one");
    let clock = Clock::new();
    let mut times = Vec::new();
    // The machine may be busy with other things at the wrong moment, but hardly each time.
    for turn in 1..=5 {
        let (name, backend) = [("one", &backends[0]), ("other", &backends[1])][turn % 2];
        let edited = clock.now();
        proxy.write_routes(&one_frontend(backend));
        until_all_say(&mut clients, name);
        times.push(clock.now().since(edited));
    }
    assert!(times.iter().min() < Some(&LIVE), "edits were live after {times:?}");
}

#[test]
fn edits_drop_no_request() {
    let backends = [Backend::always(canned::ok("one")), Backend::always(canned::ok("other"))];
    let proxy = Setup::for_backends([backends[0].url()]).start();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut client = proxy.client();
                while !over.load(Ordering::SeqCst) {
                    assert_eq!(client.get(HOST, "/").status(), 200);
                }
            });
        }
        let edits = scope.spawn(|| {
            for turn in 1..=10 {
                let backend = &backends[turn % 2];
                let heads = backend.heads();
                proxy.write_routes(&one_frontend(backend));
                until("the edit is live", || backend.heads() > heads + 10);
            }
        });
        let edited = edits.join();
        over.store(true, Ordering::SeqCst);
        edited.expect("every edit became live");
    });
}

#[test]
fn frontends_come_and_go() {
    let backend = Backend::always(canned::ok("ok"));
    let proxy = Setup::for_backends([backend.url()]).start();
    let mut client = proxy.client();
    client.get(HOST, "/").expect_ok("ok");
    assert_eq!(client.get("new.test", "/").status(), 400);
    proxy.write_routes(&json!({"new.test": frontend("new.test", [backend.url()])}));
    until("the new frontend is known", || client.get("new.test", "/").status() == 200);
    assert_eq!(client.get(HOST, "/").status(), 400, "the old frontend is gone");
}

#[test]
fn an_edit_without_a_rename_is_seen_too() {
    let backends = [Backend::always(canned::ok("one")), Backend::always(canned::ok("other"))];
    let proxy = Setup::for_backends([backends[0].url()]).start();
    let mut clients = open_clients(&proxy);
    until_all_say(&mut clients, "one");
    let text = json!({"frontends": one_frontend(&backends[1])}).to_string();
    fs::write(proxy.path("routes.json"), text).expect("writing in place");
    until_all_say(&mut clients, "other");
}

#[test]
fn a_backend_that_stays_keeps_its_connections() {
    let (stays, goes) = (Backend::always(canned::ok("stays")), Backend::always(canned::ok("goes")));
    let proxy = Setup::for_backends([stays.url(), goes.url()]).workers(1).start();
    let mut client = proxy.client();
    until("both backends have a connection", || {
        client.get(HOST, "/");
        stays.heads() > 0 && goes.heads() > 0
    });
    proxy.write_routes(&json!({ HOST: frontend(HOST, [stays.url()]) }));
    until("the removed backend is let go", || goes.open_connections() == 0);
    (0..20).for_each(|_| client.get(HOST, "/").expect_ok("stays"));
    assert_eq!(stays.connections(), 1);
}

#[test]
fn a_bad_edit_changes_nothing_and_is_reported() {
    let backend = Backend::always(canned::ok("ok"));
    let proxy = Setup::for_backends([backend.url()]).start();
    let mut client = proxy.client();
    client.get(HOST, "/").expect_ok("ok");
    // The comma at the end of the second line is one too many: the fault is found at the first brace of the third.
    proxy.write_routes_text("{\"frontends\": {\n  \"a.test\": [\"a\", \"http://127.0.0.1:1\"],\n}}\n");
    until("the report", || proxy.stderr().contains("routes.json: line 3, column 1: "));
    client.get(HOST, "/").expect_ok("ok");
    assert_eq!(client.get("a.test", "/").status(), 400);

    proxy.write_routes(&json!({"a.test": frontend("a.test", [backend.url()])}));
    until("the next good edit is live", || client.get("a.test", "/").status() == 200);
}

#[test]
fn a_file_that_is_gone_changes_nothing() {
    let backend = Backend::always(canned::ok("ok"));
    let proxy = Setup::for_backends([backend.url()]).start();
    let mut client = proxy.client();
    client.get(HOST, "/").expect_ok("ok");
    fs::remove_file(proxy.path("routes.json")).expect("removing the routes");
    proxy.signal(Signal::SIGHUP);
    until("the report", || proxy.stderr().contains("routes.json"));
    client.get(HOST, "/").expect_ok("ok");
    proxy.write_routes(&json!({"a.test": frontend("a.test", [backend.url()])}));
    until("the next good edit is live", || client.get("a.test", "/").status() == 200);
}

#[test]
fn sighup_reads_the_file_again() {
    let backends = [Backend::always(canned::ok("one")), Backend::always(canned::ok("other"))];
    let text = |backend| json!({"frontends": one_frontend(backend)}).to_string();
    // A watch on the proxy's own directory does not see what happens behind the link.
    let setup = Setup::new().file("elsewhere/routes.json", &text(&backends[0]));
    symlink("elsewhere/routes.json", setup.dir().join("routes.json")).expect("making a link");
    let proxy = setup.start();
    let mut clients = open_clients(&proxy);
    until_all_say(&mut clients, "one");
    fs::write(proxy.path("elsewhere/routes.json"), text(&backends[1])).expect("writing the routes");
    proxy.signal(Signal::SIGHUP);
    until_all_say(&mut clients, "other");
}

#[test]
fn hosts_are_looked_up_from_the_exact_name_to_the_wildcards() {
    let patterns = ["www.example.com", "*.example.com", "*.b.example.com", "*.deep.test", "*"];
    let backends: Vec<Backend> = patterns.iter().map(|pattern| Backend::always(canned::ok(pattern))).collect();
    let setup = patterns.iter().zip(&backends);
    let setup = setup.fold(Setup::new(), |setup, (pattern, backend)| setup.route(pattern, [backend.url()]));
    let proxy = setup.start();
    let mut client = proxy.client();
    let table = [
        ("www.example.com", "www.example.com"),
        ("WWW.Example.COM", "www.example.com"),
        ("www.example.com:8080", "www.example.com"),
        ("www.example.com.", "www.example.com"),
        ("www.example.com.:80", "www.example.com"),
        ("other.example.com", "*.example.com"),
        ("x.a.example.com", "*.example.com"),
        ("x.b.example.com", "*.b.example.com"),
        ("b.example.com", "*.example.com"),
        ("example.com", "*"),
        ("a.b.deep.test", "*.deep.test"),
        ("nobody.test", "*"),
        ("127.0.0.1", "*"),
        ("localhost:81", "*"),
        ("[::1]:81", "*"),
    ];
    for (host, pattern) in table {
        let response = client.get(host, "/");
        assert_eq!((response.status(), response.text().as_str()), (200, pattern), "for the host {host}");
    }
}

#[test]
fn an_absolute_target_names_the_host() {
    let backend = Backend::always(canned::ok("ok"));
    let proxy = Setup::for_backends([backend.url()]).start();
    let mut client = proxy.client();
    client.exchange(format!("GET http://{HOST}/path?q HTTP/1.1\r\nHost: other.test\r\n\r\n")).expect_ok("ok");
    let head = backend.only_request().head;
    // RFC 9112, section 3.2.2: the host of the target replaces the one of the field.
    assert_eq!(head.get("host"), Some(HOST), "in {head}");
}
