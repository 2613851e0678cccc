//! What the process is once it runs.

use crate::support::backend::Backend;
use crate::support::proxy::Setup;
use crate::support::{HOST, canned};
use std::net::TcpStream;

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
