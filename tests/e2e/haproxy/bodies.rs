//! Bodies that are compressed on their way, and checks that go by their own requests.

use super::{serve, server};
use crate::support::backend::Backend;
use crate::support::until;
use flate2::read::MultiGzDecoder;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn get(path: &str, lines: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: www.example.org\r\n{lines}\r\n")
}

#[test]
fn responses_are_compressed_for_clients_that_accept_it() {
    let text = "all work and no play, ".repeat(20_000);
    let body = text.clone();
    let web = Backend::serve(move |request, conn| {
        let head = match request.head.target() {
            "/picture" => "Content-Type: image/png\r\n",
            _ => "Content-Type: text/plain; charset=utf-8\r\nETag: \"1\"\r\n",
        };
        match request.head.target() {
            "/chunked" => {
                let (first, second) = body.split_at(1000);
                conn.send(format!("HTTP/1.1 200 OK\r\n{head}Transfer-Encoding: chunked\r\n\r\n"));
                for part in [first, second] {
                    conn.send(format!("{:x}\r\n{part}\r\n", part.len()));
                }
                conn.send("0\r\n\r\n");
            }
            _ => conn.send(format!("HTTP/1.1 200 OK\r\n{head}Content-Length: {}\r\n\r\n{body}", body.len())),
        }
    });
    let frontend = " compression algo gzip deflate\n compression type text/ application/json\n compression offload\n default_backend web";
    let proxy = serve(frontend, &format!("backend web\n{}", server("s", &web, "")));
    let mut client = proxy.client();
    for path in ["/sized", "/chunked"] {
        let response = client.exchange(get(path, "Accept-Encoding: br, gzip\r\n"));
        let field = |name| response.head.get(name);
        assert_eq!((field("content-encoding"), field("vary")), (Some("gzip"), Some("Accept-Encoding")), "{path}");
        assert_eq!((field("etag"), field("content-length")), (Some("W/\"1\""), None), "{path}");
        assert!(response.body.len() * 20 < text.len(), "{path}: {} bytes", response.body.len());
        let mut found = String::new();
        MultiGzDecoder::new(&*response.body).read_to_string(&mut found).expect("a gzip");
        assert!(found == text, "{path}: {} bytes", found.len());
    }
    for (path, lines) in [("/sized", ""), ("/picture", "Accept-Encoding: gzip\r\n")] {
        let response = client.exchange(get(path, lines));
        assert_eq!((response.head.get("content-encoding"), response.body.len()), (None, text.len()), "{path}");
    }
    assert!(web.requests().iter().all(|request| request.head.get("accept-encoding").is_none()), "offload");
}

#[test]
fn checks_take_a_server_out_and_bring_it_back() {
    let is_good = Arc::new(AtomicBool::new(true));
    let checked = Arc::clone(&is_good);
    let web = Backend::serve(move |request, conn| match request.head.target() {
        "/up" if request.head.get("host") == Some("check.example") && checked.load(Ordering::Relaxed) => {
            conn.send("HTTP/1.1 204 No Content\r\n\r\n");
        }
        "/up" => conn.send("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"),
        _ => conn.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
    });
    let rest = format!(
        "backend web\n option httpchk\n http-check send meth GET uri /up ver HTTP/1.1 hdr Host check.example\n \
         http-check expect status 200-299\n timeout check 1s\n{}",
        server("s", &web, "check inter 20ms fastinter 10ms rise 1 fall 2")
    );
    let proxy =
        serve(" use_backend web if { nbsrv(web) gt 0 }\n http-request return status 204 if { nbsrv(web) eq 0 }", &rest);
    let mut client = proxy.client();
    let mut status = || client.get("www", "/x").status();
    until("the server is up", || status() == 200);
    is_good.store(false, Ordering::Relaxed);
    until("the checks have failed", || status() == 204);
    is_good.store(true, Ordering::Relaxed);
    until("the checks succeed", || status() == 200);
}
