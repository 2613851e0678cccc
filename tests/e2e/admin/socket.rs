//! The admin service at a socket of the file system.

use crate::succession::{replaceable, upgrade};
use crate::support::backend::Backend;
use crate::support::client::Client;
use crate::support::proxy::{Proxy, Setup};
use crate::support::{HOST, canned, until};
use nix::sys::signal::Signal;
use nix::unistd::Uid;
use serde_json::{Value, json};
use std::fs;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A proxy whose admin service is at this path.
fn start(mut setup: Setup) -> (Proxy, PathBuf) {
    let path = setup.dir().join("admin.sock");
    setup.launch.admin = json!({"bind": format!("unix:{}", path.display()), "socketMode": "0600"});
    let proxy = setup.start();
    until("the proxy is ready", || client(&path).get("localhost", "/readyz").status() == 200);
    (proxy, path)
}

/// Reading and writing are the same calls for every kind of connection.
fn client(path: &Path) -> Client {
    let stream = UnixStream::connect(path).unwrap_or_else(|error| panic!("connecting to {}: {error}", path.display()));
    Client::over(Box::new(TcpStream::from(OwnedFd::from(stream))))
}

fn pid_of(path: &Path) -> u64 {
    let status: Value = serde_json::from_slice(&client(path).get("localhost", "/v1/status").body).expect("JSON");
    status["pid"].as_u64().expect("a number")
}

#[test]
fn who_may_write_to_the_socket_may_ask() {
    let backend = Backend::always(canned::ok("ok"));
    let (proxy, path) = start(Setup::for_backends([backend.url()]));
    assert_eq!(fs::metadata(&path).expect("the socket").permissions().mode() & 0o777, 0o600);
    proxy.client().get(HOST, "/").expect_ok("ok");
    let mut admin = client(&path);
    admin.get("localhost", "/healthz").expect_ok("ok\n");
    // A page of another site may come here by a tunnel.
    assert_eq!(admin.get("evil.test", "/v1/status").status(), 403);
    assert!(admin.get("localhost", "/metrics").text().contains("\nsluice_ready 1\n"));
    assert_eq!(admin.exchange(canned::post("localhost", "/v1/actions/reload", "")).status(), 202);
    let line = format!("admin: POST /v1/actions/reload: 202 for user {} of this machine", Uid::effective());
    until(&line, || proxy.stderr().contains(&line));
    for arguments in [&["status"][..], &["why", HOST], &["status", "--admin", &format!("unix:{}", path.display())]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
        let output = command.args(arguments).arg("--config").arg(proxy.path("config.json")).output();
        let output = output.expect("the program runs");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{arguments:?}: {said}");
    }
}

#[test]
fn the_socket_outlives_upgrades_and_is_made_anew_after_a_crash() {
    let (mut proxy, path) = start(replaceable(Setup::new()));
    let successor = upgrade(&mut proxy);
    until("the service is the successor's", || pid_of(&path) == u64::from(successor));
    proxy.signal(Signal::SIGKILL);
    until("nobody listens any more", || {
        UnixStream::connect(&path).is_err() && TcpStream::connect(proxy.address()).is_err()
    });
    assert!(path.exists());
    proxy.restart();
    until("the service is back", || UnixStream::connect(&path).is_ok() && pid_of(&path) != u64::from(successor));
}
