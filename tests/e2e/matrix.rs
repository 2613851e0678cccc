//! One table of what becomes of messages on their way, played over every transport, whole and byte by byte.
//!
//! A row states the bytes the client sends, what the backend must see, the bytes the backend sends, and what the
//! client must see. The two expectations are messages too and are compared by their meaning: first line, fields with
//! the case and order of their names, content and trailers. Fields that the proxy adds are left out of the comparison
//! unless the expectation has them, so the rows speak of what passes; what is added has tests of its own. `HOST` stands
//! for the frontend's name.

mod rows;

use crate::support::HOST;
use crate::support::backend::{Backend, Request};
use crate::support::client::{Client, Transport, connect};
use crate::support::message::{Framing, Head, Inlet, Trailers};
use crate::support::proxy::{Proxy, Setup};
use crate::support::tls::Authority;
use rows::{ROWS, Row};
use std::fmt;
use std::sync::{Arc, Mutex};

/// The fields a proxy may add to either message.
const ADDED: [&str; 10] = [
    "via",
    "connection",
    "date",
    "x-forwarded-for",
    "x-real-ip",
    "x-forwarded-proto",
    "x-forwarded-protocol",
    "x-forwarded-port",
    "content-length",
    "transfer-encoding",
];

/// How the bytes of a row are cut into segments.
#[derive(Clone, Copy, Debug)]
enum Delivery {
    Whole,
    Bytewise,
}

#[test]
fn over_plain_tcp() {
    play_all(&|proxy| Box::new(connect(proxy.address(), None)));
}

#[test]
fn over_tls() {
    let authority = Authority::new();
    let pair = authority.issue(&[HOST]);
    let trust = authority.trust();
    play_over(|setup| setup.with_https().default_certificate(&pair), &|proxy| {
        Box::new(trust.connect(proxy.secure_address(), HOST))
    });
}

#[test]
fn over_tls_1_2() {
    let authority = Authority::new();
    let pair = authority.issue(&[HOST]);
    let trust = authority.trust().of_version(&rustls::version::TLS12);
    play_over(|setup| setup.with_https().default_certificate(&pair), &|proxy| {
        Box::new(trust.connect(proxy.secure_address(), HOST))
    });
}

/// Plays every row over connections made by `dial`, and fails with all that differed.
fn play_all(dial: &dyn Fn(&Proxy) -> Box<dyn Transport>) {
    play_over(|setup| setup, dial);
}

/// The same of a proxy that `prepare` has set up.
fn play_over(prepare: impl FnOnce(Setup) -> Setup, dial: &dyn Fn(&Proxy) -> Box<dyn Transport>) {
    let script: Arc<Mutex<(Row, Delivery)>> = Arc::new(Mutex::new((ROWS[0], Delivery::Whole)));
    let inner = Arc::clone(&script);
    let backend = Backend::serve(move |_, conn| {
        let (row, delivery) = *inner.lock().expect("no panic");
        match delivery {
            Delivery::Whole => conn.send(row.response),
            Delivery::Bytewise => conn.send_bytewise(row.response.as_bytes()),
        }
        if row.closes {
            conn.finish();
        }
    });
    let proxy = prepare(Setup::for_backends([backend.url()])).start();
    let mut faults = Vec::new();
    for row in ROWS {
        for delivery in [Delivery::Whole, Delivery::Bytewise] {
            *script.lock().expect("no panic") = (*row, delivery);
            let before = backend.requests().len();
            let mut client = Client::over(dial(&proxy));
            let at_client = play(&mut client, row, delivery);
            let at_backend = backend.requests().split_off(before);
            let compared = [
                (format!("{} ({delivery:?}), at the client", row.name), at_client, expected_response(row)),
                (
                    format!("{} ({delivery:?}), at the backend", row.name),
                    show_requests(&at_backend, row),
                    expected(row),
                ),
            ];
            let differing = compared.into_iter().filter(|(_, found, expected)| found != expected);
            faults.extend(
                differing.map(|(name, found, expected)| format!("{name}:\n--- expected\n{expected}--- found\n{found}")),
            );
        }
    }
    assert!(faults.is_empty(), "{} differences:\n\n{}", faults.len(), faults.join("\n"));
}

/// Plays a row; returns what the client saw.
fn play(client: &mut Client, row: &Row, delivery: Delivery) -> String {
    let request = row.request.replace("HOST", HOST);
    match delivery {
        Delivery::Whole => client.send(&request),
        Delivery::Bytewise => client.send_bytewise(&request),
    }
    match client.try_response_to(row.method()) {
        Ok(response) => {
            let expected = head_of(row.client_sees);
            let parts = Parts { head: &response.head, body: &response.body, trailers: &response.trailers };
            parts.without_additions_beyond(&expected)
        }
        Err(ended) => format!("no complete answer: {ended}\n"),
    }
}

/// The requests the backend has seen, one below the other.
fn show_requests(requests: &[Request], row: &Row) -> String {
    let expected = head_of(&row.backend_sees.replace("HOST", HOST));
    let shown = requests.iter().map(|request| {
        let parts = Parts { head: &request.head, body: &request.body, trailers: &request.trailers };
        parts.without_additions_beyond(&expected)
    });
    shown.collect()
}

fn expected(row: &Row) -> String {
    let wire = row.backend_sees.replace("HOST", HOST);
    meaning(&wire, Head::request_framing)
}

fn expected_response(row: &Row) -> String {
    meaning(row.client_sees, |head| head.response_framing(row.method()))
}

fn meaning(wire: &str, framing: impl Fn(&Head) -> Framing) -> String {
    let mut from = wire.as_bytes();
    let mut inlet = Inlet::default();
    let head = inlet.head(&mut from).unwrap_or_else(|ended| panic!("the table's {wire:?}: {ended}"));
    let mut body = Vec::new();
    let trailers = inlet
        .body(&mut from, framing(&head), &mut |piece| body.extend_from_slice(piece))
        .unwrap_or_else(|how| panic!("the table's {wire:?}: {how:?}"));
    Parts { head: &head, body: &body, trailers: &trailers }.to_string()
}

fn head_of(wire: &str) -> Head {
    Inlet::default().head(&mut wire.as_bytes()).unwrap_or_else(|ended| panic!("the table's {wire:?}: {ended}"))
}

/// A message, to be shown.
struct Parts<'a> {
    head: &'a Head,
    body: &'a [u8],
    trailers: &'a Trailers,
}

impl Parts<'_> {
    fn without_additions_beyond(&self, expected: &Head) -> String {
        let mut head = self.head.clone();
        head.fields.retain(|(name, _)| {
            let added = ADDED.iter().any(|added| name.eq_ignore_ascii_case(added));
            !added || expected.get(name).is_some()
        });
        Parts { head: &head, ..*self }.to_string()
    }
}

impl fmt::Display for Parts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.head)?;
        writeln!(f, "\n{}", self.body.escape_ascii())?;
        self.trailers.iter().try_for_each(|(name, value)| writeln!(f, "{name}: {value}"))
    }
}
