//! Health: probes, and ejection by responses.

mod monitor;
mod outlier;
mod transport;

use crate::support::backend::{Backend, Request};
use crate::support::proxy::{Proxy, Setup, frontend};
use crate::support::{HOST, canned, until};
use serde_json::{Map, Value, json};
use std::sync::{Arc, Mutex, PoisonError};

/// A host whose backend is always probed: others are measured by the number of its probes.
const CLOCK: &str = "clock.example.com";

/// A backend that says who it is, and gives probes another response.
pub(crate) struct Site {
    pub(crate) backend: Backend,
    health: Arc<Mutex<Vec<u8>>>,
}

fn is_probe(request: &Request) -> bool {
    request.head.get("User-Agent").is_some_and(|agent| agent.starts_with("sluice-health/"))
}

impl Site {
    pub(crate) fn new(name: &'static str) -> Self {
        Self::with(canned::ok(name))
    }

    /// A backend that gives requests this response.
    fn with(response: Vec<u8>) -> Self {
        let health = Arc::new(Mutex::new(canned::ok("all is well")));
        let probed = Arc::clone(&health);
        let backend = Backend::serve(move |request, conn| {
            if is_probe(request) {
                conn.send(&*probed.lock().unwrap_or_else(PoisonError::into_inner));
                conn.finish();
            } else {
                conn.send(&response);
            }
        });
        Self { backend, health }
    }

    fn url(&self) -> String {
        self.backend.url()
    }

    /// Gives probes this response from now on.
    fn respond(&self, response: Vec<u8>) {
        *self.health.lock().unwrap_or_else(PoisonError::into_inner) = response;
    }

    pub(crate) fn fail(&self) {
        self.respond(canned::sized("503 Service Unavailable", "ill"));
    }

    pub(crate) fn recover(&self) {
        self.respond(canned::ok("all is well"));
    }

    pub(crate) fn probes(&self) -> Vec<Request> {
        self.backend.requests().into_iter().filter(is_probe).collect()
    }

    #[track_caller]
    pub(crate) fn until_probes(&self, count: usize) {
        until(&format!("{count} probes"), || self.probes().len() >= count);
    }

    /// Waits until it was probed this many times more.
    #[track_caller]
    fn tick(&self, count: usize) {
        self.until_probes(self.probes().len() + count);
    }
}

/// Options of a monitor that probes often.
fn monitor(mode: &str, more: Value) -> Value {
    let mut health = json!({"mode": mode, "interval": "20ms", "timeout": "5s"});
    merge(&mut health, more);
    json!({ "health": health })
}

fn merge(into: &mut Value, more: Value) {
    let more: Map<String, Value> = serde_json::from_value(more).expect("an object");
    more.into_iter().for_each(|(key, value)| into[&key] = value);
}

/// A setup of [`HOST`] with these backends and options.
fn setup(urls: impl IntoIterator<Item = String>, options: &Value) -> Setup {
    let setup = Setup::for_backends(urls);
    let options = options.as_object().expect("options");
    options.iter().fold(setup, |setup, (key, value)| setup.option(HOST, key, value.clone()))
}

/// Replaces the lists and options of [`HOST`] and [`CLOCK`].
fn write(proxy: &Proxy, urls: impl IntoIterator<Item = String>, options: &Value, clock: &Site) {
    let frontends = json!({ HOST: frontend(HOST, urls), CLOCK: frontend(CLOCK, [clock.url()]) });
    let options = json!({ HOST: options, CLOCK: monitor("paranoid", json!({})) });
    proxy.write_routes_text(&json!({"frontends": frontends, "options": options}).to_string());
}

/// Who serves a request.
#[track_caller]
fn served_by(proxy: &Proxy) -> String {
    let response = proxy.client().get(HOST, "/");
    assert_eq!(response.status(), 200, "{}", response.text());
    response.text()
}

/// Waits until the proxy has said this so many times.
#[track_caller]
fn until_said(proxy: &Proxy, text: &str, count: usize) {
    until(&format!("{count} times {text:?}"), || proxy.stderr().matches(text).count() >= count);
}
