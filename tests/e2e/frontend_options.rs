//! Options of a frontend that say what this node does in its name: pages, statuses, rates of clients, and what the log says
//! when one of their values has ended a request. And the `Host` of a backend.

use crate::clusters::{expect_own, sends, write};
use crate::support::backend::Backend;
use crate::support::proxy::Setup;
use crate::support::{Gate, HOST, canned, until};
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

#[test]
fn a_frontend_has_pages_and_statuses_of_its_own() {
    let backend = Backend::always(canned::ok("served"));
    let setup = Setup::for_backends([backend.url()]).file("error_503.html", "of the node");
    let setup = setup.file("pages/error_503.html", "of the folder").file("pages/error_default.html", "any other");
    let dir = setup.dir().to_owned();
    let proxy = setup.set("staticDir", dir.to_str()).workers(1).start();
    let expect = |options: serde_json::Value, urls: &[String], status: u16, page: &str| {
        write(&proxy, urls, &options);
        until(&format!("{options}: {status} {page}"), || {
            let response = proxy.client().get(HOST, "/");
            (response.status(), response.text()) == (status, page.to_owned())
        });
    };
    let (folder, urls) = (dir.join("pages"), [backend.url()]);
    expect(json!({"disabled": true}), &urls, 503, "of the node");
    expect(json!({"disabled": true, "errorPages": folder}), &urls, 503, "of the folder");
    let own = json!({"disabled": true, "errorPages": folder, "errorPage.503": "<p>of the option"});
    expect(own, &urls, 503, "<p>of the option");
    let tea = json!({"disabled": true, "disabledStatus": 418, "errorPage.default": "tea"});
    expect(tea, &urls, 418, "tea");
    expect(json!({"emptyStatus": 404, "errorPages": folder}), &[], 404, "any other");
    // A wrong one is named, and leaves what held before.
    write(&proxy, &urls, &json!({"errorPages": "pages"}));
    until("it is named", || proxy.stderr().contains("expected the absolute path of a folder"));
    assert_eq!(proxy.client().get(HOST, "/").status(), 404);
}

#[test]
fn a_frontend_says_what_becomes_of_requests_whose_client_leaves() {
    let gate = Arc::new(Gate::default());
    let inner = Arc::clone(&gate);
    let backend = Backend::serve(move |_, conn| {
        inner.pass();
        conn.send(canned::ok("finished"));
    });
    let proxy = Setup::for_backends([backend.url()]).option(HOST, "onClientAbort", "ignore").start();
    let mut client = sends(&proxy, "/");
    client.finish_writing();
    backend.until_heads(1);
    gate.open();
    client.response_to("GET").expect_ok("finished");
}

#[test]
fn a_client_has_so_many_requests_a_second_and_so_has_a_frontend() {
    let backend = Backend::always(canned::ok("served"));
    let setup = Setup::for_backends([backend.url()]).option(HOST, "requestsPerSecondPerClient", 2);
    let proxy = setup.workers(2).start();
    for _ in 0..2 {
        sends(&proxy, "/").response_to("GET").expect_ok("served");
    }
    expect_own(&mut sends(&proxy, "/"), 429, "client_rate", Some("1"));
    proxy.client_from(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2))).get(HOST, "/").expect_ok("served");
    until("its time comes again", || proxy.client().get(HOST, "/").status() == 200);

    let setup = Setup::for_backends([backend.url()]).option(HOST, "requestsPerSecond", 1);
    let proxy = setup.option(HOST, "requestsPerSecondWait", false).workers(1).start();
    sends(&proxy, "/").response_to("GET").expect_ok("served");
    expect_own(&mut sends(&proxy, "/"), 429, "frontend_rate", Some("1"));
}

#[test]
fn what_has_ended_a_request_is_named_with_its_value() {
    let silent = Backend::serve(|_, _| {});
    let proxy = Setup::for_backends([silent.url()]).option(HOST, "responseTimeout", "150ms").workers(1).start();
    let response = sends(&proxy, "/").response_to("GET");
    let limit = "responseTimeout of the frontend (150ms)";
    assert_eq!((response.status(), response.head.get("x-debug-limit")), (504, Some(limit)));
    assert!(response.text().ends_with(&format!("<!-- response_timeout: {limit} -->\n")), "{}", response.text());
    until("the log has it", || proxy.stderr().contains(&format!("(504, ended by {limit})")));
    let proxy = Setup::for_backends([silent.url()]).set("responseTimeout", 0.15).workers(1).start();
    let response = sends(&proxy, "/").response_to("GET");
    assert_eq!(response.head.get("x-debug-limit"), Some("server.responseTimeout (150ms)"));
    let proxy = Setup::for_backends([silent.url()]).option(HOST, "maxBodyBytes", 5).workers(1).start();
    let request = format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nX-Debug: 1\r\nContent-Length: 6\r\n\r\nabcdef");
    let response = proxy.client().exchange(request);
    let found = (response.status(), response.head.get("x-debug-limit"));
    assert_eq!(found, (413, Some("maxBodyBytes of the frontend (5)")));
}

#[test]
fn a_backend_gets_the_host_of_its_attribute() {
    let backend = Backend::always(canned::ok("served"));
    let probe = json!({"health": {"mode": "paranoid", "interval": "20ms"}});
    let proxy = Setup::for_backends([format!("{}#host=inner.test:81", backend.url())]).workers(1).start();
    proxy.client().get(HOST, "/").expect_ok("served");
    let hosts = |agent: &str| {
        let requests = backend.requests();
        let is_probe = |host: &&crate::support::backend::Request| {
            host.head.get("User-Agent").is_some_and(|found| found.starts_with("sluice-health/")) == (agent == "probe")
        };
        let last =
            requests.iter().rfind(is_probe).map(|request| request.head.get("Host").unwrap_or_default().to_owned());
        last.unwrap_or_default()
    };
    assert_eq!(hosts("client"), "inner.test:81");
    assert_eq!(backend.requests()[0].head.all("Host").len(), 1);
    // It changes while the backend stays, and holds for probes too.
    write(&proxy, &[format!("{}#host=other.test", backend.url())], &probe);
    until("the next request has it", || {
        proxy.client().get(HOST, "/").expect_ok("served");
        hosts("client") == "other.test" && hosts("probe") == "other.test"
    });
    write(&proxy, &[backend.url()], &probe);
    until("the client's is back", || {
        proxy.client().get(HOST, "/").expect_ok("served");
        hosts("client") == HOST && hosts("probe") == "backend-healthcheck"
    });
}
