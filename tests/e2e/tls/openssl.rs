//! OpenSSL as the client: another implementation than the proxy's own.

use super::secure;
use crate::support::HOST;
use crate::support::backend::Backend;
use crate::support::canned;
use crate::support::proxy::Proxy;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// The key of a file, encrypted by OpenSSL.
pub(super) fn encrypt(key: &Path, passphrase: &str) -> String {
    encrypt_by(key, passphrase, &[])
}

/// The same, in the way that these arguments say.
pub(super) fn encrypt_by(key: &Path, passphrase: &str, arguments: &[&str]) -> String {
    let output = Command::new("openssl")
        .args(["pkcs8", "-topk8"])
        .args(arguments)
        .arg("-in")
        .arg(key)
        .args(["-passout", &format!("pass:{passphrase}")])
        .output()
        .expect("starting openssl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("a PEM text")
}

/// What `openssl s_client` says and is told, when it sends `input`.
fn s_client(proxy: &Proxy, arguments: &[&str], input: &str) -> String {
    talk(proxy, &[&["-servername", HOST], arguments].concat(), input)
}

/// What it says when it has nothing to send, and asks for whom its arguments say.
pub(super) fn s_client_alone(proxy: &Proxy, arguments: &[&str]) -> String {
    talk(proxy, arguments, "Q\n")
}

fn talk(proxy: &Proxy, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new("openssl")
        .args(["s_client", "-connect", &proxy.secure_address().to_string()])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starting openssl");
    // It ends with the connection; where that never came to be, nobody takes the input.
    let mut stdin = child.stdin.take().expect("a pipe");
    let _ = stdin.write_all(input.as_bytes());
    let output = child.wait_with_output().expect("the end of openssl");
    drop(stdin);
    let said = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&said).into_owned()
}

fn request() -> String {
    format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n")
}

#[test]
fn both_versions_are_spoken_and_older_ones_are_not() {
    let backend = Backend::always(canned::ok("hello"));
    let (proxy, _) = secure(&backend);
    for (version, name) in [("-tls1_3", "TLSv1.3"), ("-tls1_2", "TLSv1.2")] {
        let said = s_client(&proxy, &[version, "-alpn", "h2,http/1.1"], &request());
        assert!(said.contains("HTTP/1.1 200 OK") && said.contains("hello"), "{said}");
        assert!(said.contains(&format!("New, {name}")) && said.contains("ALPN protocol: http/1.1"), "{said}");
        assert!(said.contains("Compression: NONE"), "{said}");
        assert!(said.contains("Max Early Data: 0") || name == "TLSv1.2", "{said}");
    }
    for version in ["-tls1", "-tls1_1"] {
        let said = s_client(&proxy, &[version, "-cipher", "ALL:@SECLEVEL=0"], &request());
        assert!(said.contains("Cipher is (NONE)") && !said.contains("200 OK"), "{said}");
    }
}

#[test]
fn a_ticket_makes_the_next_handshake_a_short_one() {
    let backend = Backend::always(canned::ok("hello"));
    let (proxy, _) = secure(&backend);
    let file = proxy.path("session");
    let file = file.to_str().expect("a path of plain text");
    for version in ["-tls1_2", "-tls1_3"] {
        let said = s_client(&proxy, &[version, "-sess_out", file], &request());
        assert!(said.contains("New, TLSv1."), "{said}");
        let said = s_client(&proxy, &[version, "-sess_in", file], &request());
        assert!(said.contains("Reused, TLSv1.") && said.contains("hello"), "{said}");
    }
}

#[test]
fn nothing_is_negotiated_again() {
    let backend = Backend::always(canned::ok("hello"));
    let (proxy, _) = secure(&backend);
    // A line that begins with R asks s_client to renegotiate.
    let said = s_client(&proxy, &["-tls1_2"], "R\n");
    assert!(!said.contains("200 OK"), "{said}");
    assert!(said.contains("no renegotiation") || said.contains("unexpected message"), "{said}");
}
