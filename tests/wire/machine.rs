//! The table against the exchange, without a socket: each row whole, cut in two at every place, and byte by byte.

use crate::exchange_support::{self, peer, route};
use crate::requests::FORWARDED;
use crate::support::message::{Framing, Head, Inlet, Trailers};
use crate::table::{Fate, Given, REQUESTS, RESPONSES, Then, To, Used};
use crate::{crlf, text};
use sluice::base::clock::Moment;
use sluice::base::reason::FailureReason;
use sluice::exchange::drive::{self, Driver};
use sluice::exchange::{Disposition, Effect, Exchange, Flushed, Input, Output, Settings, Side, WorkerContext};
use sluice::page::{self, Pages};
use std::sync::Arc;

/// Two sockets that take everything, and an exchange between them; when one is over, the next begins.
pub(crate) struct Stage {
    core: WorkerContext,
    exchange: Exchange,
    /// What has come from the client and was not consumed, and what has come from the backend.
    unread: [Vec<u8>; 2],
    /// What each side was sent.
    pub(crate) to_client: Vec<u8>,
    to_backend: Vec<u8>,
    pub(crate) reasons: Vec<FailureReason>,
    /// The client's connection, and whether the backend's was of use after each answer.
    is_open: bool,
    reused: Vec<bool>,
    pub(crate) is_connected: bool,
    finished: usize,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let settings = settings();
        let pages = Arc::new(Pages::load(&page::Settings::default()));
        Self {
            exchange: Exchange::new(peer(), Moment::ZERO, &settings),
            core: WorkerContext::new(Moment::ZERO, settings, pages, fastrand::Rng::with_seed(1)),
            unread: Default::default(),
            to_client: Vec::new(),
            to_backend: Vec::new(),
            reasons: Vec::new(),
            is_open: true,
            reused: Vec::new(),
            is_connected: false,
            finished: 0,
        }
    }

    /// More bytes of a side: offered with what is unread for as long as some are consumed.
    pub(crate) fn receive(&mut self, side: Side, bytes: &[u8]) {
        self.unread[side as usize].extend_from_slice(bytes);
        while self.is_open && self.exchange.wants(side) && !self.unread[side as usize].is_empty() {
            let offered = std::mem::take(&mut self.unread[side as usize]);
            let finished = self.finished;
            let (used, _) = drive::offer(self, side, &offered);
            drive::flush(self, &offered);
            // What one backend has left over is nothing to the next exchange.
            if side == Side::Client || finished == self.finished {
                self.unread[side as usize] = offered[used..].to_vec();
            }
            if used == 0 {
                break;
            }
        }
    }

    pub(crate) fn tell(&mut self, input: Input<'_>) {
        drive::tell(self, input);
    }

    fn finish(&mut self, keep_alive: bool) {
        self.reasons.extend(self.exchange.stats().reason);
        self.finished += 1;
        self.is_open &= keep_alive;
        self.exchange = Exchange::new(peer(), Moment::ZERO, &self.core.settings);
    }

    /// Plays a backend that answers what has come whole, and a client that sends its next request then.
    fn response_while_asked(&mut self) {
        while self.is_connected && !self.exchange.wants(Side::Client) {
            self.receive(Side::Upstream, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            self.receive(Side::Client, b"");
        }
    }
}

impl Driver for Stage {
    fn exchange(&mut self) -> Option<(&mut Exchange, &mut WorkerContext)> {
        Some((&mut self.exchange, &mut self.core))
    }

    fn output(&mut self) -> &mut Output {
        &mut self.core.output
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Resolve => drop(self.take_step(Input::Route(Ok(route(1, 1))), 0)),
            Effect::Connect { .. } => {
                self.is_connected = true;
                self.take_step(Input::Connected { reused: false }, 0);
            }
            Effect::Release { reuse } => {
                // As the program does: bytes that stand behind the answer make the connection useless.
                self.reused.push(reuse);
                self.is_connected = false;
            }
            Effect::Finish(connection) => self.finish(connection == Disposition::KeepAlive),
            _ => {}
        }
    }

    fn send(&mut self, side: Side, input: &[u8]) -> Option<Flushed> {
        let sent = if side == Side::Client { &mut self.to_client } else { &mut self.to_backend };
        Some(self.exchange.flush(side, input, &mut self.core, |slices| {
            slices.iter().for_each(|slice| sent.extend_from_slice(slice));
            Ok(slices.iter().map(|slice| slice.len()).sum())
        }))
    }

    fn note_flushed(&mut self, _: Side, _: Flushed) {}
}

fn settings() -> Settings {
    Settings { max_head_bytes: 65_536, retry_limit: 0, ..exchange_support::settings() }
}

/// The messages in these bytes as a strict reader finds them, however their chunks are cut; and what is left.
pub(crate) fn messages(bytes: &[u8], framing: impl Fn(&Head) -> Framing) -> (Vec<(Head, Vec<u8>, Trailers)>, String) {
    let (mut rest, mut inlet, mut found) = (bytes, Inlet::default(), Vec::new());
    while let Ok(head) = inlet.head(&mut rest) {
        let mut body = Vec::new();
        match inlet.body(&mut rest, framing(&head), &mut |piece| body.extend_from_slice(piece)) {
            Ok(trailers) => found.push((head, body, trailers)),
            Err(how) => return (found, format!("{head}, {}, {how:?}", text(&body))),
        }
    }
    (found, String::new())
}

/// Plays `check` for the ways in which `bytes` can come: the pieces, and whether that is all in one.
fn in_every_way(bytes: &[u8], mut check: impl FnMut(&[&[u8]], bool)) {
    check(&[bytes], true);
    for at in 1..bytes.len() {
        let (first, second) = bytes.split_at(at);
        check(&[first, second], false);
    }
    check(&bytes.chunks(1).collect::<Vec<_>>(), false);
}

fn shown(pieces: &[&[u8]]) -> Vec<String> {
    pieces.iter().map(|piece| text(piece)).collect()
}

#[test]
fn every_request_has_one_reading() {
    for class in REQUESTS.iter().flat_map(|classes| classes.iter()) {
        for (input, fate) in class.rows {
            let behind = [input.as_bytes(), b"GET /behind HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
            in_every_way(&behind, |pieces, is_whole| {
                let mut stage = Stage::new();
                for piece in pieces {
                    stage.receive(Side::Client, piece);
                    stage.response_while_asked();
                }
                check_request(
                    &mut stage,
                    *fate,
                    is_whole,
                    &format!("{}: {input:?} in {:?}", class.name, shown(pieces)),
                );
            });
        }
    }
}

fn check_request(stage: &mut Stage, fate: Fate, is_whole: bool, what: &str) {
    const BEHIND: &str = "GET /behind HTTP/1.1\r\nHost: a\r\n{f}\r\n";
    let framing = Head::request_framing;
    let (expected, reason) = match fate {
        Fate::Refused(reason) => (String::new(), Some(reason)),
        Fate::Cut(reason) => {
            let (whole, _) = messages(&stage.to_backend, framing);
            assert!(whole.is_empty(), "a backend has a whole request of {what}: {whole:?}");
            assert!(!is_whole || stage.to_backend.is_empty(), "a backend has heard of {what}");
            (text(&stage.to_backend), Some(reason))
        }
        Fate::Passed(bytes) => (format!("{bytes}{BEHIND}"), None),
        Fate::Last(bytes) => (bytes.to_owned(), None),
        Fate::Responded(_) => (BEHIND.to_owned(), None),
    };
    let expected = expected.replace("{f}", &crlf(FORWARDED));
    let sent = text(&stage.to_backend);
    let found = messages(sent.as_bytes(), framing);
    assert_eq!(found, messages(expected.as_bytes(), framing), "{what}");
    assert!(!is_whole || sent == expected, "{what}:\n{sent}\n{expected}");
    let ends = reason.is_some() || matches!(fate, Fate::Last(_));
    if reason.is_some() {
        assert_eq!(stage.reasons, Vec::from_iter(reason), "{what}");
    }
    assert_eq!(stage.is_open, !ends, "{what}");
    let (responses, rest) = messages(&stage.to_client, |head| head.response_framing(""));
    let count = found.0.len() + usize::from(reason.is_some() || matches!(fate, Fate::Responded(_)));
    assert_eq!((responses.len(), &*rest), (count, ""), "answers to {what}: {responses:?}");
}

#[test]
fn every_response_has_one_reading() {
    for class in RESPONSES {
        for row in class.rows {
            in_every_way(row.1.as_bytes(), |pieces, is_whole| {
                let mut stage = Stage::new();
                stage.receive(Side::Client, row.0.request("").as_bytes());
                for piece in pieces {
                    stage.receive(Side::Upstream, piece);
                }
                if row.2 == Then::Closes && stage.is_connected {
                    stage.tell(Input::End(Side::Upstream));
                }
                check_response(
                    &stage,
                    row.0,
                    row.3,
                    is_whole,
                    &format!("{}: {:?} in {:?}", class.name, row.1, shown(pieces)),
                );
            });
        }
    }
}

fn check_response(stage: &Stage, to: To, given: Given, is_whole: bool, what: &str) {
    let framing = |head: &Head| head.response_framing(to.method());
    let (found, _) = messages(&stage.to_client, framing);
    match given {
        Given::Refused(reason) => {
            let last = found.last().unwrap_or_else(|| panic!("no answer to {what}"));
            assert_eq!((last.0.status(), &*stage.reasons), (reason.status(), &[reason][..]), "{what}");
            assert!(!stage.reused.contains(&true), "{what}");
        }
        Given::Passed(expected, used) => {
            assert_eq!(found, messages(expected.as_bytes(), framing).0, "{what}");
            assert!(!is_whole || text(&stage.to_client) == expected, "{what}:\n{}", text(&stage.to_client));
            let may_be_used = !is_whole || stage.reused == [used == Used::Again];
            assert!(stage.reasons.is_empty() && may_be_used, "{what}: {:?} {:?}", stage.reasons, stage.reused);
        }
        Given::Cut(expected, reason) => {
            assert_eq!(messages(&stage.to_client, framing), messages(expected.as_bytes(), framing), "{what}");
            assert_eq!((&*stage.reasons, stage.is_open), (&[reason][..], false), "{what}");
            assert_eq!(stage.reused, [false], "{what}");
        }
    }
}
