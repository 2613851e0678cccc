//! Clusters on demand: x0d's requests, listeners that come and go, files, and odd input.

mod api;
mod backends;
mod files;
mod listeners;
mod ports;

use crate::admin::Admin;
use crate::support::backend::Backend;
use crate::support::client::{Client, Response, connect};
use crate::support::proxy::Setup;
use crate::support::unused_address;
use serde_json::Value;
use std::net::SocketAddr;

/// The path of x0d's API.
const API: &str = "/x0/director";

impl Admin {
    /// Sends a request of the API; `path` is below its prefix.
    #[track_caller]
    fn call(&self, method: &str, path: &str, body: &str) -> Response {
        self.client().exchange(self.request(method, path, body))
    }

    fn request(&self, method: &str, path: &str, body: &str) -> String {
        let length = body.len();
        format!("{method} {API}{path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {length}\r\n\r\n{body}", self.host())
    }

    /// Sends a request that has to get this status.
    #[track_caller]
    fn expect(&self, method: &str, path: &str, body: &str, status: u16) -> Response {
        let response = self.call(method, path, body);
        assert_eq!(response.status(), status, "{method} {path} {body}: {}{}", response.text(), self.proxy.stderr());
        response
    }

    /// The JSON of a cluster or a backend.
    #[track_caller]
    fn show(&self, path: &str) -> Value {
        let response = self.expect("GET", path, "", 200);
        serde_json::from_slice(&response.body).unwrap_or_else(|error| panic!("{path}: {error}: {}", response.text()))
    }

    /// A connection to another port of the proxy.
    fn at(&self, port: u16) -> Client {
        Client::over(Box::new(connect(SocketAddr::new(self.proxy.address().ip(), port), None)))
    }
}

/// The arguments of a backend as x0d's clients send them.
fn arguments(backend: &Backend) -> String {
    let address = backend.address();
    format!(
        "role=active&enabled=true&capacity=4&protocol=http&health-check-mode=lazy&health-check-interval=10&hostname={}&port={}",
        address.ip(),
        address.port()
    )
}

/// A proxy without routes, with a folder for the files of clusters.
fn with_state() -> Setup {
    let setup = Setup::new();
    let folder = setup.dir().join("state");
    setup.set("stateDir", folder.to_str().expect("plain text"))
}

/// A port that nothing listens on.
fn free_port() -> u16 {
    unused_address().port()
}
