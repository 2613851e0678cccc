//! What the process is once it runs.

use crate::support::backend::Backend;
use crate::support::proxy::Setup;
use crate::support::{HOST, canned, until};
use nix::unistd::{User, getuid};
use std::fs;
use std::net::TcpStream;

#[test]
fn every_worker_serves() {
    let backend = Backend::always(canned::ok("ok"));
    for workers in [1, 2, 5] {
        let proxy = Setup::for_backends([backend.url()]).workers(workers).start();
        let mut clients: Vec<_> = (0..40).map(|_| proxy.client()).collect();
        clients.iter_mut().for_each(|client| client.send(canned::get(HOST, "/")));
        clients.iter_mut().for_each(|client| client.answer_to("GET").expect_ok("ok"));
    }
}

#[test]
fn root_becomes_www_data_after_binding() {
    if !getuid().is_root() {
        return;
    }
    let Ok(Some(account)) = User::from_name("www-data") else { return };
    let backend = Backend::always(canned::ok("ok"));
    let proxy = Setup::for_backends([backend.url()]).with_default_user().start();
    let (uid, gid) = (account.uid.to_string(), account.gid.to_string());
    until("every thread of the proxy has the other user", || {
        let tasks = fs::read_dir(format!("/proc/{}/task", proxy.pid())).expect("the proxy's threads");
        let mut states = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok());
        states.all(|state| {
            let ids = |name| state.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            [("Uid:", &uid), ("Gid:", &gid)].iter().all(|(name, id)| ids(name).split_whitespace().all(|it| it == *id))
        })
    });
    proxy.client().get(HOST, "/").expect_ok("ok");
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
