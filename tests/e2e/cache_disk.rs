//! The disk tier of the object cache: what is stored outlives the process, what is purged does not.

use crate::succession::{replaceable, upgrade};
use crate::support::backend::Backend;
use crate::support::client::Response;
use crate::support::proxy::{Proxy, Setup};
use crate::support::{HOST, until};
use nix::sys::signal::Signal;
use serde_json::json;
use std::fs;
use std::path::PathBuf;

fn ask(proxy: &Proxy, method: &str, path: &str, fields: &str) -> Response {
    let mut client = proxy.client();
    client.send(format!("{method} {path} HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n"));
    client.response_to(method)
}

fn backend() -> Backend {
    Backend::serve(|request, conn| {
        let body = request.head.target().repeat(20_000);
        let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nETag: \"a\"\r\nContent-Length:";
        conn.send(format!("{head} {}\r\n\r\n{body}", body.len()));
    })
}

fn with_disk(backend: &Backend) -> Setup {
    let setup = Setup::for_backends([backend.url()]).option(HOST, "cache", json!({"enabled": true}));
    let folder = setup.dir().join("objects");
    setup
        .set("cacheDisk", json!({"path": folder.to_str(), "bytes": "64MB"}))
        .set("trustedNetworks", json!(["127.0.0.0/8"]))
}

fn files(proxy: &Proxy) -> Vec<PathBuf> {
    let folders = fs::read_dir(proxy.path("objects")).into_iter().flatten().flatten().map(|entry| entry.path());
    let files = folders.flat_map(|path| fs::read_dir(path).into_iter().flatten().flatten());
    files.map(|entry| entry.path()).filter(|path| path.extension().is_none()).collect()
}

fn end_and_restart(proxy: &mut Proxy, signal: Signal) {
    proxy.signal(signal);
    proxy.until_exit();
    proxy.restart();
}

#[track_caller]
fn expect(proxy: &Proxy, path: &str, lookup: &str) {
    let response = ask(proxy, "GET", path, "");
    let found = (response.status(), response.head.get("X-Cache-Lookup"), response.text() == path.repeat(20_000));
    assert_eq!(found, (200, Some(lookup), true), "{path}: {}", response.head);
}

#[test]
fn objects_outlive_the_process_and_purged_ones_do_not() {
    let mut backend = backend();
    let mut proxy = with_disk(&backend).start();
    let paths: Vec<String> = (0..20).map(|number| format!("/{number}")).collect();
    paths.iter().for_each(|path| expect(&proxy, path, "miss"));
    until("all are on the disk", || files(&proxy).len() == 20);
    // What is purged is gone from the disk when the client is told so.
    assert_eq!(ask(&proxy, "PURGE", "/7", "").status(), 200);
    assert_eq!(files(&proxy).len(), 19);
    assert_eq!(ask(&proxy, "PURGE", "/never", "").status(), 404);
    end_and_restart(&mut proxy, Signal::SIGKILL);
    until("the folder is read", || proxy.stderr().contains("server.cacheDisk: 19 files"));
    backend.kill();
    for path in paths.iter().filter(|path| *path != "/7") {
        expect(&proxy, path, "hit");
    }
    assert!(ask(&proxy, "GET", "/7", "").status() >= 500, "it does not come back");
    // A part of an object on the disk, a condition on it, and one that only the disk has.
    end_and_restart(&mut proxy, Signal::SIGTERM);
    until("the folder is read again", || proxy.stderr().contains("server.cacheDisk: 19 files"));
    assert_eq!(ask(&proxy, "GET", "/1", "Range: bytes=0-3\r\n").text(), "/1/1");
    assert_eq!(ask(&proxy, "GET", "/2", "If-None-Match: \"a\"\r\n").status(), 304);
    assert_eq!(ask(&proxy, "PURGE", "/3", "").status(), 200, "it was on the disk alone");
    assert!(ask(&proxy, "GET", "/3", "").status() >= 500);
}

#[test]
fn a_changed_file_is_dropped_and_asked_for_again() {
    let backend = backend();
    let mut proxy = with_disk(&backend).start();
    expect(&proxy, "/a", "miss");
    until("it is on the disk", || files(&proxy).len() == 1);
    let path = files(&proxy).pop().expect("a file");
    let mut bytes = fs::read(&path).expect("a file");
    *bytes.last_mut().expect("bytes") ^= 1;
    fs::write(&path, bytes).expect("a file");
    end_and_restart(&mut proxy, Signal::SIGKILL);
    until("the folder is read", || proxy.stderr().contains("server.cacheDisk: 1 files"));
    expect(&proxy, "/a", "miss");
    until("it is told", || proxy.stderr().contains("it is not what was written; removed"));
    assert_eq!(backend.heads(), 2);
}

/// The new process has the folder once the old one is through with it, and what was purged meanwhile is not in it.
#[test]
fn the_folder_passes_to_the_next_process() {
    let mut backend = backend();
    let mut proxy = replaceable(with_disk(&backend).set("cacheBytes", "1MB")).start();
    let paths: Vec<String> = (0..30).map(|number| format!("/{number}")).collect();
    for (number, path) in paths.iter().enumerate() {
        expect(&proxy, path, "miss");
        // Memory has room for a part of them, and those that wait for the disk take of it.
        until("it is on the disk", || files(&proxy).len() == number + 1);
    }
    upgrade(&mut proxy);
    assert_eq!(ask(&proxy, "PURGE", "/7", "").status(), 200);
    // It may have met the old process, which tells the new one.
    until("it is gone from the disk", || files(&proxy).len() == 29);
    backend.kill();
    for path in paths.iter().filter(|path| *path != "/7") {
        expect(&proxy, path, "hit");
    }
    assert_eq!(backend.heads(), 30);
}
