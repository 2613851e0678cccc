//! Tests of lowering, and of the resulting rules.

use super::*;
use crate::haproxy::serve::{Dice, Outcome, Workspace};
use Treatment::{Lost, Mapped, Refused, Wrong};
use std::sync::Arc;

fn backend(lines: &str) -> Loaded {
    read(&format!("backend b\n mode http\n{lines}\n"))
}

#[test]
fn servers_become_members() {
    let table = [
        ("server s 10.0.0.1:80", "http://10.0.0.1:80#weight=1"),
        ("server s ::1:80", "http://[::1]:80#weight=1"),
        (
            "server s app.local:8080 weight 3 maxconn 20 backup",
            "http://app.local:8080#weight=3&capacity=20&role=backup",
        ),
        (
            "server s 10.0.0.1:80 disabled slowstart 30s send-proxy-v2",
            "http://10.0.0.1:80#weight=1&disabled=true&slowStart=30000ms&proxy=v2",
        ),
        (
            "server s 10.0.0.1:443 ssl verify none sni str(a.example)",
            "https://10.0.0.1:443#weight=1&verify=none&sni=a.example",
        ),
        ("server s a.example:443 ssl verify required ca-file @system-ca", "https://a.example:443#weight=1"),
        ("server s a.example:443 ssl ca-file /a/b.pem", "https://a.example:443#weight=1&ca=/a/b.pem"),
        ("server s a.example:443 ssl verify none ca-file /a/b.pem", "https://a.example:443#weight=1&verify=none"),
    ];
    for (line, expected) in table {
        let loaded = backend(line);
        let cluster = loaded.plan.clusters[0].as_ref().expect("a cluster");
        let urls: Vec<_> = cluster.urls.iter().map(crate::cluster::BackendUrl::as_str).collect();
        assert_eq!(urls, [expected], "{line}: {:#?}", remarks(&loaded));
        assert!(cluster.urls[0].attribute_errors().is_empty(), "{line}");
    }
}

#[test]
fn what_a_backend_says_becomes_options() {
    let table: &[(&str, &[(&str, &str)])] = &[
        ("", &[("scheduler", "rr"), ("retries", "3"), ("queueLimit", "1000000"), ("httpsRedirect", "false")]),
        (
            "balance leastconn\nretries 1\ntimeout queue 4s",
            &[("scheduler", "leastLoad"), ("retries", "1"), ("queueTimeout", "4000ms")],
        ),
        ("balance uri\nhash-type consistent", &[("scheduler", "hash"), ("hash.key", "path")]),
        ("balance hdr(X-User)", &[("hash.key", "header:x-user")]),
        ("balance url_param User", &[("hash.key", "query:User")]),
        (
            "timeout server 7s\ntimeout tunnel 1h",
            &[("responseTimeout", "7000ms"), ("bodyTimeout", "7000ms"), ("tunnelTimeout", "3600000ms")],
        ),
        (
            "timeout connect 3s\ntimeout queue 0\ntimeout server 5s\ntimeout tunnel 0",
            &[("queueTimeout", "3000ms"), ("tunnelTimeout", "5000ms")],
        ),
        (
            "option httpchk HEAD /up HTTP/1.1\\r\\nHost:\\ h.example\nserver s 10.0.0.1:80 check inter 3s fall 2 rise 4",
            &[
                ("health.mode", "paranoid"),
                ("health.method", "HEAD"),
                ("health.path", "/up"),
                ("health.host", "h.example"),
                ("health.interval", "3000ms"),
                ("health.fall", "2"),
                ("health.rise", "4"),
            ],
        ),
        (
            "option httpchk\nhttp-check send meth GET uri /x hdr Host a\nhttp-check expect status 200,204\nserver s 10.0.0.1:80 check",
            &[("health.method", "GET"), ("health.path", "/x"), ("health.host", "a"), ("health.expect", "200,204")],
        ),
        ("server s 10.0.0.1:80 maxqueue 5\nserver t 10.0.0.2:80 maxqueue 6", &[("queueLimit", "11")]),
    ];
    for (lines, expected) in table {
        let loaded = backend(lines);
        let options: Vec<_> = loaded.plan.clusters[0].as_ref().expect("a cluster").options.pairs().collect();
        for pair in *expected {
            assert!(options.contains(pair), "{lines}: no {pair:?} in {options:?}");
        }
        let lost: Vec<_> = remarks(&loaded).into_iter().filter(|remark| remark.1 > Mapped).collect();
        assert!(lost.is_empty(), "{lines}: {lost:#?}");
    }
}

/// HAProxy treats a time of zero as no timeout.
#[test]
fn a_timeout_of_zero_is_no_timeout() {
    let loaded = backend("timeout server 0\ntimeout connect 0\ntimeout tunnel 0s\ntimeout queue 0");
    let options: Vec<_> = loaded.plan.clusters[0].as_ref().expect("a cluster").options.pairs().collect();
    assert!(!options.iter().any(|(name, _)| name.ends_with("Timeout")), "{options:?}");
    let told = remarks(&loaded);
    let is_told =
        |(_, treatment, note): &&(u32, Treatment, String)| *treatment == Mapped && note.contains("0 is no limit");
    assert_eq!(told.iter().filter(is_told).count(), 4, "{told:#?}");
}

#[test]
fn binds_become_listeners() {
    let table: &[(&str, &[&str])] = &[
        ("bind 127.0.0.1:80", &["127.0.0.1:80"]),
        ("bind *:80,10.0.0.1:81", &["0.0.0.0:80", "10.0.0.1:81"]),
        ("bind 10.0.0.1:80-82", &["10.0.0.1:80", "10.0.0.1:81", "10.0.0.1:82"]),
        ("bind :::443 v4v6", &["[::]:443", "0.0.0.0:443"]),
        ("bind :::443 v6only", &["[::]:443"]),
        ("bind :::443\nbind *:443", &["[::]:443", "0.0.0.0:443"]),
    ];
    for (lines, expected) in table {
        let loaded = read(&format!("frontend f\n mode http\n{lines}\n"));
        let addresses: Vec<_> = loaded.plan.listeners.iter().map(|listener| listener.address.to_string()).collect();
        assert_eq!(addresses, *expected, "{lines}: {:#?}", remarks(&loaded));
    }
    let loaded =
        read("frontend f\n mode http\n bind :443 ssl crt a.pem crt /b accept-proxy\nglobal\n crt-base /certs\n");
    let listener = &loaded.plan.listeners[0];
    let tls = listener.tls.as_ref().expect("TLS");
    assert!(listener.accepts_proxy);
    let paths: Vec<_> = tls.certificates.iter().map(|certificate| certificate.path.display().to_string()).collect();
    assert_eq!(paths, ["/certs/a.pem", "/b"]);
}

/// HAProxy's example of `crt-store`.
#[test]
fn certificates_come_from_stores() {
    let stores = "crt-store
 load crt site1.crt key site1.key alias site1
crt-store web
 crt-base /certs
 key-base /keys
 \
                  load crt site3.crt alias site3
 load crt site4.crt key site4.key
";
    let words = "crt @/site1 crt site2.crt crt @web/site3 crt @web/site4.crt";
    let loaded = read(&format!(
        "{stores}frontend f
 mode http
 bind :443 ssl {words}
global
 crt-base /base
"
    ));
    let tls = loaded.plan.listeners[0].tls.as_ref().expect("TLS");
    let shown: Vec<_> = tls
        .certificates
        .iter()
        .map(|certificate| {
            let key = certificate.key.as_ref().map_or_else(String::new, |key| key.display().to_string());
            format!("{} {key}", certificate.path.display())
        })
        .collect();
    assert_eq!(
        shown,
        ["/base/site1.crt site1.key", "/base/site2.crt ", "/certs/site3.crt ", "/certs/site4.crt /keys/site4.key"]
    );
    let text = format!(
        "{stores}frontend f
 mode http
 bind :443 ssl crt @web/site1
"
    );
    expect_one(&text, &read(&text), Wrong, "no certificate \"site1\" in the crt-store \"web\"");
}

#[test]
fn causes_to_try_again_have_haproxys_words() {
    let table = [
        ("", "connect", ""),
        ("retry-on none", "none", ""),
        ("retry-on conn-failure empty-response response-timeout 503", "connect,close,timeout,503,busy", ""),
        ("retry-on all-retryable-errors", "connect,close,timeout,502,503,busy,504", "500 and junk-response"),
        ("retry-on 504 404", "504", "404: such a response"),
        ("retry-on 504\nretry-on none", "none", ""),
    ];
    for (lines, expected, lost) in table {
        let loaded = backend(lines);
        let cluster = loaded.plan.clusters[0].as_ref().expect("a cluster");
        let found = cluster.options.pairs().find(|(name, _)| *name == "retryOn").map(|(_, value)| value);
        let told = remarks(&loaded);
        let is_told =
            told.iter().any(|(_, treatment, note)| *treatment == Lost && note.contains(lost) && !lost.is_empty());
        assert_eq!((found, is_told), (Some(expected), !lost.is_empty()), "{lines}: {told:#?}");
    }
}

/// HAProxy has rules in a `defaults` section with a name only, and not for both sides: they would be gone through twice.
#[test]
fn rules_of_defaults_are_not_gone_through_twice() {
    let rule = "http-request add-header A b";
    let table = [
        (format!("defaults\n mode http\n {rule}\nfrontend f\n bind :80\n"), "with a name only"),
        (
            format!("defaults d\n mode http\n {rule}\nfrontend f from d\n bind :80\nbackend b from d\n"),
            "cannot both have the rules of the defaults at line 1",
        ),
        (
            format!("defaults d\n mode http\n {rule}\nlisten l from d\n bind :80\n"),
            "a listen section cannot have the rules",
        ),
        (
            "defaults d\n mode http\n reqadd A:\\ b\nfrontend f from d\n bind :80\n".to_owned(),
            "stands in frontend, listen",
        ),
    ];
    for (text, part) in table {
        expect_one(&text, &read(&text), Wrong, part);
    }
    let text =
        format!("defaults d\n mode http\n {rule}\nfrontend f from d\n bind :80\ndefaults\n mode http\nbackend b\n");
    assert_eq!(read(&text).verdict(false), crate::haproxy::Verdict::Whole, "{:#?}", remarks(&read(&text)));
}

/// The value is what HAProxy 2.6 made of this key and address.
#[test]
fn a_dynamic_cookie_is_that_of_haproxy() {
    let lines = "dynamic-cookie-key MYKEY\ncookie C insert dynamic\nserver a 127.0.0.1:18081\nserver b 127.0.0.1:18081 cookie own";
    let loaded = backend(lines);
    assert!(remarks(&loaded).iter().all(|(_, treatment, _)| *treatment <= Mapped), "{:#?}", remarks(&loaded));
    let servers = &loaded.plan.configuration.proxies[0].servers;
    let cookies: Vec<_> = servers.iter().map(|server| server.cookie.as_deref()).collect();
    assert_eq!(cookies, [Some("85a427c55b2c4e8f"), Some("own")]);
    let loaded = backend(&lines.replace(" dynamic", ""));
    assert_eq!(loaded.plan.configuration.proxies[0].servers[0].cookie, None);
}

#[test]
fn unsupported_values_are_reported() {
    let table: &[(&str, Treatment, &str)] = &[
        ("server s /run/a.sock", Refused, "/run/a.sock: sluice connects to no UNIX sockets"),
        ("server s unix@a.sock", Refused, "a.sock: sluice connects to no UNIX sockets"),
        ("server s abns@a", Refused, "abns@: sluice connects over TCP"),
        ("server s *:80", Refused, "the client's own destination is not used"),
        ("server s 10.0.0.1", Refused, "the port that the client connected to"),
        ("server s 10.0.0.1:+1", Refused, "the port that the client connected to"),
        ("server s 10.0.0.1:1 ssl ca-file /a&b.pem", Refused, "has no &"),
        ("cookie C insert dynamic\nserver s 10.0.0.1:1", Lost, "dynamic-cookie-key is missing"),
        ("cookie C insert dynamic\ndynamic-cookie-key k\nserver s a.example:1", Lost, "needs an address"),
        ("stats admin if TRUE", Lost, "the admin service disables and enables servers"),
        ("http-response deny if { src_http_req_rate(b) gt 5 }", Refused, "b has no stick-table"),
        ("http-response return status 200 if { src_http_req_rate(b) gt 5 }", Refused, "b has no stick-table"),
        ("reqrep ^X-A:(.*) Content-Length:\\\\1", Refused, "sluice's own"),
        ("reqadd \"X A: b\"", Refused, "no header line"),
        ("http-error status 503 hdr \"A: b\\\\r\\\\nC\" v", Wrong, "no name of a header"),
        ("balance hash path", Lost, "the client's address is hashed"),
        ("errorfile 503 missing.http", Wrong, "no such file"),
        ("errorfiles nowhere", Wrong, "no section http-errors"),
        ("http-request deny if { src_http_req_rate(b) gt 5 }", Refused, "b has no stick-table"),
        ("http-request track-sc0 src table nowhere", Refused, "nowhere has no stick-table"),
        ("stick on src", Refused, "b has no stick-table"),
        ("server s 10.0.0.1:80 check port 81", Lost, "another address or port"),
        ("http-response set-header Connection close", Lost, "sluice's own"),
        ("http-check expect rstatus ^2\noption httpchk\nserver s 10.0.0.1:1 check", Refused, "rstatus"),
    ];
    for (lines, treatment, part) in table {
        let loaded = backend(lines);
        let told = remarks(&loaded);
        let is_told = told.iter().any(|(_, found, note)| found == treatment && note.contains(part));
        assert!(is_told, "{lines}: {told:#?}");
    }
    let hashed =
        "userlist u\n user a password $5$abc\nbackend b\n mode http\n http-request auth unless { http_auth(u) }\n";
    assert!(remarks(&read(hashed)).iter().any(|(_, treatment, _)| *treatment == Refused));
}

/// The result of a frontend's rules for a request: the outcome, and the head or the response.
fn decide(lines: &str, head: &str) -> (Outcome, String) {
    let loaded = frontend(lines);
    let lost: Vec<_> = remarks(&loaded).into_iter().filter(|remark| remark.1 > Mapped).collect();
    assert!(lost.is_empty(), "{lines}: {lost:#?}");
    let configuration = Arc::new(loaded.plan.configuration);
    let mut work = Workspace::default();
    let mut evaluation = work.evaluation(&configuration, 0, facts());
    let outcome = evaluation.decide(
        head.as_bytes(),
        false,
        Dice { unix_seconds: 0, subsec_millis: 0, random: 7, now: 0 },
        &mut work,
    );
    let text = match outcome {
        Outcome::Respond | Outcome::Deny => {
            let reply = work.take_reply();
            format!("{} {}", reply.status(), String::from_utf8_lossy(reply.fields()).replace("\r\n", "; "))
        }
        _ => String::from_utf8_lossy(work.changed_request().unwrap_or_default()).replace("\r\n", "; "),
    };
    (outcome, text)
}

#[test]
fn rules_are_done_in_their_order() {
    const HEAD: &str = "GET /a?q=1 HTTP/1.1\r\nHost: h.example:80\r\nX-A: 1\r\nX-A: 2\r\n\r\n";
    let table: &[(&str, Outcome, &str)] = &[
        ("", Outcome::NoBackend, ""),
        ("default_backend web", Outcome::Forward, ""),
        (
            "http-request set-header X-A 3\nhttp-request add-header X-B %[req.hdr(x-a)]\ndefault_backend web",
            Outcome::Forward,
            "GET /a?q=1 HTTP/1.1; Host: h.example:80; X-A: 3; X-B: 3; ; ",
        ),
        (
            "http-request set-path /b%[path]\nhttp-request set-query x=%[query]\nhttp-request set-method PUT\ndefault_backend web",
            Outcome::Forward,
            "PUT /b/a?x=q=1 HTTP/1.1; Host: h.example:80; X-A: 1; X-A: 2; ; ",
        ),
        (
            "http-request replace-header Host (.*):80 \\1\nhttp-request del-header X-A\ndefault_backend web",
            Outcome::Forward,
            "GET /a?q=1 HTTP/1.1; Host: h.example; ; ",
        ),
        (
            "http-request set-var(txn.v) req.hdr(x-none)\nhttp-request deny if { var(txn.v) -m found }\ndefault_backend web",
            Outcome::Forward,
            "",
        ),
        ("http-request allow\nhttp-request deny\ndefault_backend web", Outcome::Forward, ""),
        (
            "redirect location /x\nhttp-request deny",
            Outcome::Deny,
            "403 Cache-Control: no-cache; Content-Type: text/html; ",
        ),
        (
            "http-request redirect prefix https://n",
            Outcome::Respond,
            "302 Location: https://n/a?q=1; Cache-Control: no-cache; ",
        ),
        ("redirect scheme https code 301", Outcome::Respond, "301 Location: https://h.example:80/a?q=1; "),
        (
            "redirect prefix / drop-query append-slash set-cookie S=1",
            Outcome::Respond,
            "302 Location: /a/; Cache-Control: no-cache; Set-Cookie: S=1; path=/;; ",
        ),
        ("http-request reject", Outcome::Close, ""),
        ("tcp-request connection reject if { src 192.0.2.0/24 }", Outcome::Close, ""),
        (
            "reqirep ^GET\\ /a(.*) GET\\ /z\\1\ndefault_backend web",
            Outcome::Forward,
            "GET /z?q=1 HTTP/1.1; Host: h.example:80; X-A: 1; X-A: 2; ; ",
        ),
        ("option forwardfor except 192.0.2.0/24\ndefault_backend web", Outcome::Forward, ""),
        (
            "option forwardfor header X-Client if-none\ndefault_backend web",
            Outcome::Forward,
            "GET /a?q=1 HTTP/1.1; Host: h.example:80; X-A: 1; X-A: 2; X-Client: 192.0.2.1; ; ",
        ),
    ];
    for (lines, outcome, text) in table {
        assert_eq!(decide(lines, HEAD), (*outcome, (*text).to_owned()), "{lines}");
    }
}
