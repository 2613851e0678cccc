//! Backends by script: what becomes of each attempt to get an answer.

use super::client::ClientPlan;
use super::dice::Dice;
use super::message::{Body, Fields, Flaw, Framing, Scale, case, fields, put, put_all};
use sluice::base::reason::FailureReason;

/// Bytes that belong to no answer.
pub(crate) const EXTRA: &str = "HTTP/1.1 200 Fine\r\nContent-Length: 0\r\n\r\n";

/// One attempt: the connection, the answer, and what goes wrong.
#[derive(Clone, Debug)]
pub(crate) struct AttemptPlan {
    pub(crate) connect: ConnectPlan,
    pub(crate) response: ResponsePlan,
    pub(crate) start: Start,
    pub(crate) fault: BackendFault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectPlan {
    Comes { reused: bool, queued: bool },
    Fails(FailureReason),
    NeverComes { queued: bool },
}

/// Behind what of the request the answer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    Bytes(usize),
    Head,
    All,
}

/// What a backend does other than to take all and answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BackendFault {
    None,
    /// The connection of the pool was closed long ago.
    Stale {
        reset: bool,
    },
    /// Closes behind so many bytes of its answer.
    ClosesAt(usize),
    BreaksAt(usize),
    StallsAt(usize),
    /// Takes so many bytes of the request and then no more.
    StopsTaking(usize),
    /// Refuses to take more than so many bytes, but answers.
    IsDeafAt(usize),
}

#[derive(Clone, Debug)]
pub(crate) struct ResponsePlan {
    pub(crate) informational: Vec<(u16, String)>,
    pub(crate) informational_len: usize,
    pub(crate) status: u16,
    /// The value of `X-Answer`.
    pub(crate) id: String,
    pub(crate) fields: Fields,
    pub(crate) body: Body,
    pub(crate) is_http11: bool,
    pub(crate) keeps_open: bool,
    pub(crate) to_head: bool,
    /// What follows a 101.
    pub(crate) tunnel: Vec<u8>,
    /// All of it as it is sent.
    pub(crate) bytes: Vec<u8>,
    /// Bytes that belong to no answer follow.
    pub(crate) has_extra: bool,
    /// It does not follow the grammar, or is a 101 that nobody asked for.
    pub(crate) is_malformed: bool,
}

impl AttemptPlan {
    /// The attempt number `place`, that may go wrong.
    pub(crate) fn random(place: usize, client: &ClientPlan, scale: Scale, rng: &mut Dice) -> Self {
        let mut plan = Self::good(place, client, scale, rng);
        plan.connect = match rng.u8(..12) {
            0 => ConnectPlan::Fails(FailureReason::ConnectFailed),
            1 => {
                let lacks = [FailureReason::QueueFull, FailureReason::SocketsExhausted, FailureReason::PortsExhausted];
                ConnectPlan::Fails(lacks[rng.usize(..lacks.len())])
            }
            2 => ConnectPlan::NeverComes { queued: rng.bool() },
            _ => plan.connect,
        };
        if rng.u8(..3) == 0 {
            plan.fault = plan.random_fault(client, rng);
        }
        if rng.u8(..12) == 0 {
            plan.response.spoil(rng);
        }
        plan
    }

    /// One in which nothing goes wrong.
    pub(crate) fn good(place: usize, client: &ClientPlan, scale: Scale, rng: &mut Dice) -> Self {
        let reused = rng.bool();
        let start = match rng.u8(..8) {
            0 if !reused => Start::Bytes(rng.usize(..=client.bytes.len())),
            1 => Start::Head,
            _ => Start::All,
        };
        Self {
            connect: ConnectPlan::Comes { reused, queued: rng.u8(..5) == 0 },
            response: ResponsePlan::random(place, client, scale, rng),
            start,
            fault: BackendFault::None,
        }
    }

    fn random_fault(&mut self, client: &ClientPlan, rng: &mut Dice) -> BackendFault {
        let served = rng.usize(..=self.response.bytes.len());
        let taken = rng.usize(..=client.bytes.len());
        match rng.u8(..7) {
            0 | 1 => {
                self.connect = ConnectPlan::Comes { reused: true, queued: false };
                BackendFault::Stale { reset: rng.bool() }
            }
            // An early close is no fault where the close is the end.
            2 if self.response.body.framing == Framing::UntilClose => BackendFault::BreaksAt(served),
            2 => BackendFault::ClosesAt(served),
            3 => BackendFault::BreaksAt(served),
            4 => BackendFault::StallsAt(served),
            5 => BackendFault::StopsTaking(taken),
            _ => BackendFault::IsDeafAt(taken),
        }
    }
}

impl ResponsePlan {
    fn random(place: usize, client: &ClientPlan, scale: Scale, rng: &mut Dice) -> Self {
        let status = match client.upgrade {
            Some(_) if rng.u8(..4) > 0 => 101,
            _ => [200, 200, 200, 204, 301, 304, 404, 413, 500, 503][rng.usize(..10)],
        };
        let is_http11 = status == 101 || rng.u8(..6) > 0;
        let framing = match rng.u8(..4) {
            _ if status == 101 => Framing::None,
            0 if !matches!(status, 204 | 304) => Framing::UntilClose,
            1 if is_http11 => Framing::Chunked,
            _ if status == 204 => Framing::None,
            _ => Framing::Sized,
        };
        let mut plan = Self {
            informational: Vec::new(),
            informational_len: 0,
            status,
            id: format!("attempt-{place}"),
            fields: fields("X-E2E", rng),
            body: Body::random(framing, scale, rng),
            is_http11,
            keeps_open: framing != Framing::UntilClose && is_http11 && rng.u8(..5) > 0,
            to_head: client.method == "HEAD",
            tunnel: Vec::new(),
            bytes: Vec::new(),
            has_extra: false,
            is_malformed: false,
        };
        if client.expects && rng.u8(..4) > 0 {
            plan.informational.push((100, format!("interim-{place}")));
        }
        for _ in 0..rng.usize(..8).saturating_sub(5) {
            plan.informational.push(([102, 103][rng.usize(..2)], format!("interim-{place}")));
        }
        if status == 101 {
            plan.tunnel = {
                let len = rng.usize(..scale.largest_body);
                rng.content(len)
            };
        }
        plan.write(client.upgrade.unwrap_or("websocket"), rng);
        plan
    }

    /// Whether the bytes of the body are sent at all.
    pub(crate) fn has_body(&self) -> bool {
        !(self.to_head || matches!(self.status, 101 | 204 | 304))
    }

    /// The data that a client is to see.
    pub(crate) fn data(&self) -> &[u8] {
        if self.has_body() { &self.body.data } else { &[] }
    }

    fn write(&mut self, upgrade: &str, rng: &mut Dice) {
        let mut out = Vec::new();
        for (status, id) in &self.informational {
            put(&mut out, &format!("HTTP/1.1 {status} Interim\r\nX-Answer: {id}\r\n\r\n"));
        }
        self.informational_len = out.len();
        let version = if self.is_http11 { "1.1" } else { "1.0" };
        let phrase = ["Fine", "", "Not so fine"][rng.usize(..3)];
        put(&mut out, &format!("HTTP/{version} {} {phrase}\r\nX-Answer: {}\r\n", self.status, self.id));
        put_all(&mut out, &self.fields);
        self.body.put_fields(&mut out, rng);
        if self.status == 101 {
            let name = case(upgrade, rng);
            put(&mut out, &format!("{}: Upgrade\r\nUpgrade: {name}\r\n", case("Connection", rng)));
        } else if !self.keeps_open && self.is_http11 {
            put(&mut out, "Connection: close, X-Hop-1\r\nX-Hop-1: secret\r\n");
        }
        put(&mut out, "\r\n");
        if self.has_body() {
            out.extend(self.body.encode(rng));
        }
        out.extend_from_slice(&self.tunnel);
        self.bytes = out;
    }

    fn spoil(&mut self, rng: &mut Dice) {
        let has_end = self.status != 101 && (self.body.framing != Framing::UntilClose || !self.has_body());
        match rng.u8(..4) {
            0 if has_end => {
                self.has_extra = true;
                put(&mut self.bytes, EXTRA);
            }
            1 if self.has_body() && self.body.framing == Framing::Chunked => {
                self.body.flaw = Some(if rng.bool() { Flaw::Size } else { Flaw::Trailers });
                self.write("websocket", rng);
            }
            2 => {
                self.is_malformed = true;
                self.status = 101;
                self.write("other", rng);
            }
            _ => {
                self.is_malformed = true;
                let garbage: &[u8] = [&b"nonsense\r\n\r\n"[..], b"HTTP/1.1 200 Fine\n\n", b"\r\n"][rng.usize(..3)];
                self.bytes.splice(self.informational_len..self.informational_len, garbage.iter().copied());
            }
        }
    }
}
