//! Options of a frontend that say what this node does in its name: pages, statuses, rates of clients, and what the log says
//! when one of their values has ended a request. And the `Host` of a backend.

use crate::clusters::{expect_own, sends, write};
use crate::responses::Full;
use crate::support::backend::Backend;
use crate::support::client::Client;
use crate::support::message::How;
use crate::support::proxy::{Proxy, Setup};
use crate::support::{Gate, HOST, canned, until, unused_address};
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
    let backend = Backend::serve(move |request, conn| {
        if request.head.target() == "/slow" {
            inner.pass();
        }
        // The request may have been ended.
        let _ = conn.try_send(&canned::ok("finished"));
    });
    let proxy = Setup::for_backends([backend.url()]).workers(1).start();
    for (step, mode) in ["close", "notify", "ignore"].into_iter().enumerate() {
        let options = json!({"onClientAbort": mode});
        write_known(&proxy, &[backend.url()], &options, step);
        let before = backend.heads();
        let mut client = sends(&proxy, "/slow");
        backend.until_heads(before + 1);
        client.finish_writing();
        if mode == "ignore" {
            gate.open();
            client.response_to("GET").expect_ok("finished");
        } else {
            // The gate is closed: nothing else than its departure ends the request.
            assert_eq!(client.rest(), (Vec::new(), How::Closed), "{mode}");
        }
    }
}

/// Writes options, and waits until they are known. `step` is the number of the edit.
fn write_known(proxy: &Proxy, urls: &[String], options: &serde_json::Value, step: usize) {
    let limit = 100 - step;
    let mut options = options.clone();
    options["maxBodyBytes"] = json!(limit);
    write(proxy, urls, &options);
    let body = "x".repeat(limit + 1);
    until(&format!("{options} is known"), || proxy.client().exchange(canned::post(HOST, "/", &body)).status() == 413);
}

#[test]
fn every_time_limit_is_an_option_that_changes_live() {
    let backend = Backend::serve(|request, conn| {
        let begun: &[u8] = match request.head.target() {
            "/body" => b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
            "/stream" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
            "/tunnel" => b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nhalf",
            "/silent" => b"",
            _ => b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        };
        conn.send(begun);
        // Until the proxy has had enough.
        if request.head.target() != "/" {
            conn.bytes(1);
        }
        conn.finish();
    });
    let proxy = Setup::for_backends([backend.url()]).set("responseTimeout", 3600).workers(1).start();
    let begin = |path: &str| -> Client {
        let mut client = proxy.client();
        let upgrade = if path == "/tunnel" { "Connection: upgrade\r\nUpgrade: echo\r\n" } else { "" };
        client.send(format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nX-Debug: 1\r\n{upgrade}\r\n"));
        client
    };
    let table = [
        ("/silent", "responseTimeout"),
        ("/body", "bodyTimeout"),
        ("/stream", "streamTimeout"),
        ("/tunnel", "tunnelTimeout"),
    ];
    for (step, (path, option)) in table.into_iter().enumerate() {
        let before = backend.heads();
        write_known(&proxy, &[backend.url()], &json!({ option: "150ms", "retries": 0 }), step);
        // Nothing but this limit is short.
        let others: Vec<_> = table.iter().filter(|(_, other)| *other != option).map(|(path, _)| begin(path)).collect();
        backend.until_heads(before + others.len());
        let mut client = begin(path);
        if path == "/silent" {
            expect_own(&mut client, 504, "response_timeout", None);
        } else {
            assert_eq!(client.head().status(), if path == "/tunnel" { 101 } else { 200 });
            let (rest, _) = client.rest();
            assert!(String::from_utf8_lossy(&rest).contains("half"), "{option}: {rest:?}");
        }
        until(&format!("{option} ends {path}"), || backend.open_connections() <= others.len());
        assert_eq!(backend.open_connections(), others.len(), "{option} ends {path} alone");
        drop(others);
        until("they are gone", || backend.open_connections() == 0);
    }

    let full = Full::new();
    write_known(&proxy, &[format!("http://{}", full.address)], &json!({"connectTimeout": "150ms", "retries": 0}), 9);
    let response = sends(&proxy, "/").response_to("GET");
    let found = (response.status(), response.head.get("x-debug-error"), response.head.get("x-debug-limit"));
    assert_eq!(found, (504, Some("connect_timeout"), Some("connectTimeout of the frontend (150ms)")));
}

#[test]
fn a_request_is_tried_as_often_as_its_frontend_says() {
    let backend = Backend::always(canned::ok("served"));
    for (retries, status) in [(0, 502), (1, 502), (2, 200)] {
        let nowhere = [(); 2].map(|()| format!("http://{}", unused_address()));
        let setup = Setup::for_backends(nowhere.into_iter().chain([backend.url()])).option(HOST, "retries", retries);
        let proxy = setup.option(HOST, "scheduler", "chance").set("retryOnError", 1).start();
        assert_eq!(proxy.client().get(HOST, "/").status(), status, "{retries} retries");
    }
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
