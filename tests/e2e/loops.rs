//! Backends that lead back to this node.

use crate::succession::{replaceable, upgrade};
use crate::support::backend::Backend;
use crate::support::proxy::{Proxy, Setup, frontend};
use crate::support::{HOST, canned, until};
use serde_json::json;

/// Gives a proxy this one backend, and waits until it is used.
fn lead(proxy: &Proxy, url: String) {
    proxy.write_routes(&json!({ HOST: frontend(HOST, [url]) }));
    until("the route is there", || proxy.client().get(HOST, "/ready").status() != 400);
}

fn passes(proxy: &Proxy, target: &str) -> Vec<String> {
    let log = proxy.read("access.log");
    let lines = log.lines().filter(|line| line.contains(&format!("GET {target} ")));
    lines.map(|line| line.split("\" ").nth(1).unwrap_or_default()[..3].to_owned()).collect()
}

#[test]
fn a_frontend_that_leads_to_itself_is_refused_at_the_second_turn() {
    let proxy = Setup::new().with_access_log().set("debugNetworks", json!(["127.0.0.0/8"])).start();
    lead(&proxy, format!("http://{}", proxy.address()));
    let mut client = proxy.client();
    let response = client.get(HOST, "/around");
    assert_eq!(response.status(), 508, "{}", response.head);
    assert!(response.head.to_string().contains("Loop Detected"), "{}", response.head);
    assert_eq!(client.get(HOST, "/again").status(), 508, "the client is kept");
    // Each worker writes its lines when it comes to it.
    until("all turns are logged", || ["/around", "/again"].iter().all(|path| passes(&proxy, path).len() >= 2));
    assert_eq!(passes(&proxy, "/around"), ["508", "508"], "one is passed on, and one is refused");
    let debug = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Debug: 1\r\n\r\n");
    let response = proxy.client().exchange(debug);
    assert_eq!(response.head.get("x-debug-error"), Some("loop_detected"), "{}", response.head);
}

#[test]
fn two_nodes_that_lead_to_each_other_are_told_from_two_in_a_row() {
    let backend = Backend::always(canned::ok("ok"));
    let (first, second) = (Setup::new().with_access_log().start(), Setup::new().with_access_log().start());
    lead(&second, backend.url());
    lead(&first, format!("http://{}", second.address()));
    first.client().get(HOST, "/through").expect_ok("ok");
    lead(&second, format!("http://{}", first.address()));
    until("the second one leads back", || first.client().get(HOST, "/ready").status() == 508);
    assert_eq!(first.client().get(HOST, "/around").status(), 508);
    until("the turns are logged", || passes(&first, "/around").len() >= 2 && !passes(&second, "/around").is_empty());
    assert_eq!((passes(&first, "/around").len(), passes(&second, "/around").len()), (2, 1));
}

/// During an upgrade a request of the old process may come back to the new one.
#[test]
fn a_successor_has_the_mark_of_its_predecessor() {
    let backend = Backend::always(canned::ok("ok"));
    let mut proxy = replaceable(Setup::for_backends([backend.url()])).start();
    proxy.client().get(HOST, "/").expect_ok("ok");
    for _ in 0..2 {
        upgrade(&mut proxy);
        proxy.client().get(HOST, "/").expect_ok("ok");
    }
    let requests = backend.requests();
    let marks: Vec<_> = requests.iter().map(|request| request.head.get("via").expect("an entry")).collect();
    assert_eq!(marks.len(), 3);
    assert!(marks.iter().all(|mark| *mark == marks[0]), "{marks:?}");
}
