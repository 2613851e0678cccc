//! Where files of HAProxy's listen: TLS, the PROXY protocol, beside a file of routes.

use super::{DEFAULTS, named, server, setup};
use crate::support::proxy::Setup;
use crate::support::tls::Authority;
use crate::support::{HOST, canned, client, unused_address};
use serde_json::json;

#[test]
fn certificates_are_chosen_by_name() {
    let web = named("web");
    let authority = Authority::new();
    let pairs = ["a.example", "b.example"].map(|name| (name, authority.issue(&[name])));
    let secure = unused_address();
    let mut setup = setup(|address| {
        format!(
            "frontend www\n bind {address}\n bind {secure} ssl crt PATH/certs alpn h2,http/1.1\n http-request set-header X-Tls 1 if {{ ssl_fc }}\n \
             http-request redirect scheme https if !{{ ssl_fc }}\n default_backend web\nbackend web\n{}",
            server("s", &web, "")
        )
    });
    for (name, pair) in &pairs {
        setup = setup.secret(&format!("certs/{name}.pem"), &format!("{}{}", pair.certificate, pair.key));
    }
    let text = std::fs::read_to_string(setup.dir().join("haproxy.cfg")).expect("the file");
    let folder = setup.dir().display().to_string();
    let proxy = setup.file("haproxy.cfg", &text.replace("PATH", &folder)).start();
    for (name, pair) in &pairs {
        let stream = authority.trust().connect(secure, name);
        assert_eq!(stream.certificate(), pair.der(), "{name}");
        let mut client = client::Client::over(Box::new(stream));
        client.get(name, "/").expect_ok("web /");
    }
    assert!(web.requests().iter().all(|request| request.head.get("x-tls") == Some("1")));
    let response = proxy.client().get("a.example", "/x");
    assert_eq!((response.status(), response.head.get("location")), (302, Some("https://a.example/x")));
}

#[test]
fn a_server_is_trusted_by_its_own_authorities() {
    let backend = named("web");
    let authority = Authority::new();
    let behind = Setup::for_backends([backend.url()]).with_https();
    let ip = behind.secure_ip();
    let behind = behind.default_certificate(&authority.issue(&[&ip])).start();
    let secure = format!("{ip}:{}", behind.secure_address().port());
    let file = |address, ca: &str| {
        format!(
            "{DEFAULTS}global\n ca-base CA\nlisten www\n bind {address}\n server s {secure} ssl verify required ca-file {ca}\n"
        )
    };
    for (trusted, status) in [(&authority, 200), (&Authority::new(), 503)] {
        let address = unused_address();
        let setup = super::at(address, Setup::new().driver("haproxy:haproxy.cfg").file("own.pem", &trusted.pem()));
        let text = file(address, "own.pem").replace("CA", setup.dir().to_str().expect("a plain path"));
        let proxy = setup.file("haproxy.cfg", &text).start();
        assert_eq!(proxy.client().get(HOST, "/").status(), status, "{}", proxy.stderr());
    }
    let address = unused_address();
    let setup = super::at(
        address,
        Setup::new().driver("haproxy:haproxy.cfg").file("haproxy.cfg", &file(address, "/no/such.pem")),
    );
    let (status, said) = setup.start_in_vain();
    assert!(
        !status.success()
            && said.contains("ca-file of the server https://")
            && said.contains("/no/such.pem: No such file"),
        "{said}"
    );
}

#[test]
fn the_proxy_protocol_tells_the_client() {
    let web = named("web");
    let proxied = unused_address();
    let proxy = setup(|address| {
        format!(
            "frontend www\n bind {address}\n bind {proxied} accept-proxy\n option forwardfor\n http-request deny if {{ src 192.0.2.0/24 }}\n \
             http-request set-header X-Dst \"%[dst]:%[dst_port] %[src_port]\"\n default_backend web\nbackend web\n{}",
            server("s", &web, "")
        )
    })
    .start();
    for (source, status) in [("192.0.2.7", 403), ("198.51.100.7", 200)] {
        let mut client = client::Client::over(Box::new(client::connect(proxied, None)));
        client.send(format!("PROXY TCP4 {source} 203.0.113.1 4000 443\r\n"));
        assert_eq!(client.get("www", "/").status(), status, "{source}");
    }
    let request = web.only_request();
    assert_eq!(request.head.get("x-forwarded-for"), Some("198.51.100.7"));
    assert_eq!(request.head.get("x-dst"), Some("203.0.113.1:443 4000"));
    drop(proxy);
}

#[test]
fn a_file_serves_beside_routes() {
    let (routed, ruled) = (named("routed"), named("ruled"));
    let address = unused_address();
    let text = format!("{DEFAULTS}listen www\n bind {address}\n{}", server("s", &ruled, ""));
    let proxy = Setup::new()
        .route(HOST, [routed.url()])
        .file("haproxy.cfg", &text)
        .driver(json!(["file:routes.json", "haproxy:haproxy.cfg"]))
        .start();
    proxy.client().get(HOST, "/").expect_ok("routed /");
    let mut client = client::Client::over(Box::new(client::connect(address, None)));
    client.exchange(canned::get(HOST, "/")).expect_ok("ruled /");
    assert_eq!(proxy.client().get("other.example", "/").status(), 400, "rules are those of their own listeners");
}
