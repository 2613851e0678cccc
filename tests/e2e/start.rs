//! What the process is once it runs.

use crate::support::backend::Backend;
use crate::support::proxy::Setup;
use crate::support::until;
use crate::support::{HOST, canned};
use nix::sys::signal::Signal;
use nix::unistd::getuid;
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

/// As a package does it: the folder of logs is root's alone, and the process becomes somebody else.
#[test]
fn an_access_log_in_a_folder_of_root_is_opened_before_the_change_of_user() {
    if !getuid().is_root() {
        return;
    }
    let backend = Backend::always(canned::ok("ok"));
    let setup = Setup::for_backends([backend.url()]).file("log/empty", "");
    let folder = setup.dir().join("log");
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).expect("root's own");
    std::fs::set_permissions(setup.dir(), std::fs::Permissions::from_mode(0o755)).expect("root's own");
    let log = folder.join("access.log");
    // A number without an account, as in a container.
    let proxy = setup.user(64_321).set("accessLog", log.to_str().expect("a plain path")).start();
    proxy.client().get(HOST, "/").expect_ok("ok");
    proxy.log_lines("log/access.log", 1);
    assert_eq!(std::fs::metadata(&log).expect("the log").uid(), 64_321);
    let warning = "server.accessLog: the user 64321 cannot make files in ";
    assert!(proxy.stderr().contains(warning) && proxy.stderr().matches("accessLog").count() == 1, "{}", proxy.stderr());
    proxy.signal(Signal::SIGUSR1);
    until("the log is opened again", || proxy.stderr().contains("so far;"));
    proxy.client().get(HOST, "/").expect_ok("ok");
    proxy.log_lines("log/access.log", 2);
    assert!(!proxy.stderr().contains("ermission denied"), "{}", proxy.stderr());
}

#[test]
fn a_reload_says_which_settings_need_a_restart() {
    let backend = Backend::always(canned::ok("ok"));
    let proxy = Setup::for_backends([backend.url()]).set("retryOnError", 1).start();
    proxy.signal(Signal::SIGHUP);
    let config = proxy.read("config.json");
    proxy.replace("config.json", &config.replace("\"retryOnError\": 1", "\"retryOnError\": 2, \"tcpTimeout\": 7"));
    proxy.signal(Signal::SIGHUP);
    let changed = "a restart or an upgrade (SIGUSR2): server.retryOnError, server.tcpTimeout\n";
    until("the changed settings are named", || proxy.stderr().contains(changed));
    proxy.replace("config.json", &config.replace("\"retryOnError\": 1", "\"retryOnError\": -1"));
    proxy.signal(Signal::SIGHUP);
    until("the fault is named", || proxy.stderr().contains("server.retryOnError: found -1"));
    until("what comes of it", || proxy.stderr().contains("with these faults a restart would fail"));
    proxy.client().get(HOST, "/").expect_ok("ok");
}

#[test]
fn every_worker_serves() {
    let backend = Backend::always(canned::ok("ok"));
    for workers in [1, 2, 5] {
        let proxy = Setup::for_backends([backend.url()]).workers(workers).start();
        let mut clients: Vec<_> = (0..40).map(|_| proxy.client()).collect();
        clients.iter_mut().for_each(|client| client.send(canned::get(HOST, "/")));
        clients.iter_mut().for_each(|client| client.response_to("GET").expect_ok("ok"));
    }
}

#[test]
fn a_client_that_is_silent_takes_nothing_from_others() {
    let backend = Backend::always(canned::ok("ok"));
    let proxy = Setup::for_backends([backend.url()]).start();
    let silent: Vec<TcpStream> =
        (0..200).map(|_| TcpStream::connect(proxy.address()).expect("a silent connection")).collect();
    let mut clients: Vec<_> = (0..10).map(|_| proxy.client()).collect();
    clients.iter_mut().for_each(|client| client.get(HOST, "/").expect_ok("ok"));
    drop(silent);
    clients.iter_mut().for_each(|client| client.get(HOST, "/").expect_ok("ok"));
}
