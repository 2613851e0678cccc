//! The page of statistics of a frontend, and how many clients a frontend has.

use super::{named, serve, server, setup};
use crate::support::canned;

fn get(path: &str, lines: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: www.example.org\r\n{lines}\r\n")
}

/// The cells of a row of the CSV.
fn row<'t>(text: &'t str, proxy: &str, server: &str) -> Vec<&'t str> {
    let is_it = |line: &&str| line.starts_with(&format!("{proxy},{server},"));
    text.lines().find(is_it).unwrap_or_else(|| panic!("no row {proxy},{server} in\n{text}")).split(',').collect()
}

#[test]
fn a_frontend_shows_its_page_to_those_who_may_see_it() {
    let web = named("web");
    let frontend = " maxconn 50\n stats enable\n stats uri /stats\n stats auth ann:secret\n stats realm Ops\n stats refresh 5s\n \
                    http-request use-service prometheus-exporter if { path /metrics }\n \
                    http-request deny if { path_beg /stats/no }\n default_backend web";
    let rest = format!("backend web\n{}{}", server("a", &web, "weight 3"), server("b", &web, "backup"));
    let proxy = serve(frontend, &rest);
    let mut client = proxy.client();
    client.get("www", "/x").expect_ok("web /x");
    let refused = client.get("www", "/stats");
    assert_eq!((refused.status(), refused.head.get("www-authenticate")), (401, Some("Basic realm=\"Ops\"")));
    assert_eq!(client.exchange(get("/stats", "Authorization: Basic YW5uOndyb25n\r\n")).status(), 401);
    // ann:secret
    let login = "Authorization: Basic YW5uOnNlY3JldA==\r\n";
    assert_eq!(client.exchange(get("/stats/no", login)).status(), 403, "rules come first");
    let page = client.exchange(get("/stats", login));
    assert_eq!((page.status(), page.head.get("refresh")), (200, Some("5")));
    assert!(page.head.get("content-type").is_some_and(|value| value.starts_with("text/html")));
    let html = page.text();
    assert!(html.contains("<caption>web</caption>") && html.contains(env!("CARGO_PKG_VERSION")), "{html}");
    let csv = client.exchange(get("/stats;csv;norefresh", login));
    assert_eq!((csv.head.get("content-type"), csv.head.get("refresh")), (Some("text/plain"), None));
    let csv = csv.text();
    assert!(csv.starts_with("# pxname,svname,"), "{csv}");
    let front = row(&csv, "www", "FRONTEND");
    assert_eq!((front[4], front[6], front[17]), ("1", "50", "OPEN"), "one client of 50");
    assert_eq!(row(&csv, "web", "a")[18], "3", "the weight");
    assert_eq!(row(&csv, "web", "BACKEND")[17], "UP");
    assert_eq!(proxy.client().exchange(canned::post("www", "/stats", "action=drain")).status(), 401);
    let metrics = client.exchange(get("/metrics", ""));
    assert!(metrics.status() == 200 && metrics.text().contains("sluice_"), "{}", metrics.text());
    client.exchange(get("/after", "")).expect_ok("web /after");
    assert_eq!(web.requests().len(), 2, "the page is this node's own");
}

#[test]
fn a_page_shows_its_scope_and_hides_the_version() {
    let web = named("web");
    let rest = format!(
        "backend web\n stats uri /own\n stats scope .\n stats hide-version\n{}backend other\n{}",
        server("a", &web, ""),
        server("a", &web, "")
    );
    let proxy = serve(" default_backend web", &rest);
    let html = proxy.client().get("www", "/own").text();
    assert!(html.contains("<caption>web</caption>") && !html.contains("<caption>other"), "{html}");
    assert!(!html.contains(env!("CARGO_PKG_VERSION")), "{html}");
}

#[test]
fn a_frontend_has_no_more_clients_than_it_may_have() {
    let web = named("web");
    let proxy = setup(|address| {
        format!(
            "frontend www\n bind {address}\n maxconn 2\n default_backend web\nbackend web\n{}",
            server("s", &web, "")
        )
    })
    .start();
    let mut clients = [proxy.client(), proxy.client()];
    for client in &mut clients {
        client.get("www", "/a").expect_ok("web /a");
    }
    let mut third = proxy.client();
    third.send(get("/third", ""));
    clients[0].get("www", "/b").expect_ok("web /b");
    assert!(web.requests().iter().all(|request| request.head.target() != "/third"), "it waits outside");
    drop(clients);
    third.response_to("GET").expect_ok("web /third");
}
