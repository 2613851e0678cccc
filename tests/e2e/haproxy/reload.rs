//! A file that changes: by difference, all or nothing.

use super::{DEFAULTS, at, named, server, setup};
use crate::admin::Admin;
use crate::succession::{replaceable, upgrade};
use crate::support::client::{Client, connect};
use crate::support::proxy::Setup;
use crate::support::tls::Authority;
use crate::support::{HOST, canned, until, unused_address};
use nix::sys::signal::Signal;
use serde_json::json;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

#[test]
fn a_change_is_taken_by_difference_and_a_faulty_file_changes_nothing() {
    let (a, b) = (named("a"), named("b"));
    let file =
        |address, servers: &str| format!("frontend www\n bind {address}\n default_backend web\nbackend web\n{servers}");
    let proxy = setup(|address| file(address, &server("a", &a, ""))).workers(1).start();
    let mut client = proxy.client();
    client.get("www", "/1").expect_ok("a /1");
    let write = |text: &str| proxy.replace("haproxy.cfg", &format!("{DEFAULTS}{text}"));
    write(&file(proxy.address(), &(server("a", &a, "disabled") + &server("b", &b, ""))));
    until("the new server serves", || client.get("www", "/2").text() == "b /2");
    write(&file(proxy.address(), " server a 127.0.0.1:1 weigth 5\n"));
    until("the fault is named", || proxy.stderr().contains("haproxy.cfg:10:23: wrong server"));
    proxy.signal(Signal::SIGHUP);
    client.get("www", "/3").expect_ok("b /3");
    write(&file(proxy.address(), &(server("a", &a, "") + &server("b", &b, "disabled"))));
    until("the first server serves again", || client.get("www", "/4").text() == "a /4");
    assert_eq!(a.connections(), 1, "a server that stays keeps its connections");
}

#[test]
fn listeners_come_and_go_while_it_runs() {
    let web = named("web");
    let (first, second) = (unused_address(), unused_address());
    let file = |addresses: &[std::net::SocketAddr]| {
        let binds: String = addresses.iter().map(|address| format!(" bind {address}\n")).collect();
        format!("{DEFAULTS}frontend www\n{binds} default_backend web\nbackend web\n{}", server("s", &web, ""))
    };
    let proxy = at(first, setup(|_| String::new())).file("haproxy.cfg", &file(&[first])).start();
    let mut old = proxy.client();
    old.get("www", "/").expect_ok("web /");
    proxy.replace("haproxy.cfg", &file(&[first, second]));
    until("the new address is served", || TcpStream::connect(second).is_ok());
    let mut client = Client::over(Box::new(connect(second, None)));
    client.exchange(canned::get("www", "/new")).expect_ok("web /new");
    proxy.replace("haproxy.cfg", &file(&[second]));
    until("the old address is left", || TcpStream::connect(first).is_err());
    old.get("www", "/still").expect_ok("web /still");
    client.exchange(canned::get("www", "/new2")).expect_ok("web /new2");
}

#[test]
fn an_address_of_the_configuration_is_no_address_of_a_file() {
    let (web, routed) = (named("web"), named("routed"));
    let (own, other) = (unused_address(), unused_address());
    let file = |address: SocketAddr| {
        format!("{DEFAULTS}frontend www\n bind {address}\n default_backend web\nbackend web\n{}", server("s", &web, ""))
    };
    let setup = |address| {
        let setup = Setup::for_backends([routed.url()]).file("haproxy.cfg", &file(address));
        at(own, setup.driver(json!(["file:routes.json", "haproxy:haproxy.cfg"])))
    };
    let (status, stderr) = setup(own).start_in_vain();
    let named = format!("bind {own} is taken by http.bind ({own})");
    assert!(!status.success() && stderr.contains(&named), "{stderr}");
    let admin = Admin::start(setup(other));
    let proxy = &admin.proxy;
    for (address, name) in [(own, "http.bind"), (admin.address(), "admin.bind")] {
        let named = format!("bind {address} is taken by {name} ({address})");
        proxy.replace("haproxy.cfg", &file(address));
        until("the file is refused", || proxy.stderr().contains(&named));
        let mut client = Client::over(Box::new(connect(other, None)));
        client.exchange(canned::get(HOST, "/")).expect_ok("web /");
        proxy.replace("haproxy.cfg", &file(other));
        let reload = format!("POST /v1/actions/reload HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\n\r\n", admin.host());
        assert_eq!(admin.client().exchange(reload).status(), 202);
        proxy.client().get(HOST, "/").expect_ok("routed /");
    }
}

#[test]
fn an_address_that_stays_gets_and_loses_tls_and_the_proxy_protocol() {
    let web = named("web");
    let authority = Authority::new();
    let pair = authority.issue(&["www.example"]);
    let setup = setup(|_| String::new()).secret("www.pem", &format!("{}{}", pair.certificate, pair.key));
    let address = setup.address.expect("an address");
    let certificate = setup.dir().join("www.pem").display().to_string();
    let file = |words: &str| {
        let server = server("s", &web, "");
        format!(
            "{DEFAULTS}frontend www\n bind {address} {words}\n option forwardfor\n default_backend web\nbackend web\n{server}"
        )
    };
    let proxy = setup.file("haproxy.cfg", &file("")).workers(1).start();
    let plain = || Client::over(Box::new(connect(address, None)));
    // Any response, or none: what is served there is another thing from one moment to the next.
    let answers = |first: &str| {
        let mut client = connect(address, None);
        let request = format!("{first}GET /plain HTTP/1.1\r\nHost: www.example\r\nConnection: close\r\n\r\n");
        let mut response = Vec::new();
        let _ = client.write_all(request.as_bytes()).and_then(|()| client.read_to_end(&mut response));
        String::from_utf8_lossy(&response).into_owned()
    };
    plain().get("www.example", "/").expect_ok("web /");
    proxy.replace("haproxy.cfg", &file(&format!("ssl crt {certificate}")));
    until("plain requests are refused", || !answers("").starts_with("HTTP/1.1 200"));
    let stream = authority.trust().connect(address, "www.example");
    Client::over(Box::new(stream)).get("www.example", "/tls").expect_ok("web /tls");
    let header = "PROXY TCP4 198.51.100.7 203.0.113.1 4000 443\r\n";
    proxy.replace("haproxy.cfg", &file("accept-proxy"));
    until("the header is asked for", || answers(header).starts_with("HTTP/1.1 200"));
    let told = web.requests().pop().expect("a request");
    assert_eq!(told.head.get("x-forwarded-for"), Some("198.51.100.7"));
    proxy.replace("haproxy.cfg", &file(""));
    until("plain requests are served", || answers("").starts_with("HTTP/1.1 200"));
    assert!(answers(header).starts_with("HTTP/1.1 400"), "clients do not say who they are");
}

#[test]
fn a_cluster_is_shown_with_its_file_and_a_server_can_be_disabled() {
    let (a, b) = (named("a"), named("b"));
    let setup = setup(|address| {
        let servers = server("a", &a, "") + &server("b", &b, "backup");
        format!("frontend www\n bind {address}\n default_backend web\nbackend web\n{servers}")
    });
    let admin = Admin::start(setup);
    let view = admin.json("/v1/frontends");
    let file = admin.proxy.path("haproxy.cfg").display().to_string();
    let shown = (view["frontends"][0]["key"].as_str(), view["frontends"][0]["id"].as_str());
    assert_eq!(shown, (Some(format!("web@{file}").as_str()), Some(format!("haproxy:{file}").as_str())), "{view}");
    let mut client = admin.proxy.client();
    client.get("www", "/").expect_ok("a /");
    let key = format!("web@{file}").replace('/', "%2F");
    let url = format!("{}%23weight=1", a.url().replace(':', "%3A").replace('/', "%2F"));
    let action = format!(
        "POST /v1/frontends/{key}/disable?backend={url} HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\n\r\n",
        admin.host()
    );
    let response = admin.client().exchange(action);
    assert_eq!(response.status(), 202, "{}", response.text());
    until("the backup serves", || client.get("www", "/").text() == "b /");
}

#[test]
fn the_check_and_the_start_say_the_same() {
    let text = "frontend www\n bind ADDRESS\n http-request deny if { ssl_c_used }\n default_backend web\nbackend web\n server s 127.0.0.1:1\n";
    let (is_good, said) = setup(|address| text.replace("ADDRESS", &address.to_string())).dry();
    assert!(!is_good && said.contains("haproxy.cfg:8:2: refused"), "{said}");
    let (status, said) = setup(|address| text.replace("ADDRESS", &address.to_string())).start_in_vain();
    assert!(!status.success() && said.contains("haproxy.cfg:8:2: refused"), "{said}");
    let lossy = setup(|address| text.replace("ADDRESS", &address.to_string()));
    let driver = serde_json::json!({"url": "haproxy:haproxy.cfg", "lossy": true});
    let (is_good, said) = lossy.driver(driver).dry();
    assert!(is_good, "{said}");
}

#[test]
fn an_idle_client_is_served_by_the_next_process() {
    let web = named("web");
    let setup = setup(|address| {
        format!(
            "frontend www\n bind {address}\n http-request set-header X-Ruled 1\n default_backend web\nbackend web\n{}",
            server("s", &web, "")
        )
    });
    let mut proxy = replaceable(setup).start();
    let mut client = proxy.client();
    client.get("www", "/1").expect_ok("web /1");
    upgrade(&mut proxy);
    client.get("www", "/2").expect_ok("web /2");
    until("the first process ends, with its client elsewhere", || proxy.first_has_ended());
    client.get("www", "/3").expect_ok("web /3");
    assert!(web.requests().iter().all(|request| request.head.get("x-ruled") == Some("1")));
}
