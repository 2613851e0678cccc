//! A client by script: one request, what comes behind it, and what goes wrong.

use super::dice::Dice;
use super::message::{Body, Fields, Flaw, Framing, Scale, case, fields, put, put_all};

#[derive(Clone, Debug)]
pub(crate) struct ClientPlan {
    pub(crate) method: &'static str,
    pub(crate) is_http11: bool,
    pub(crate) target: &'static str,
    /// The fields that a backend has to see, in order.
    pub(crate) fields: Fields,
    pub(crate) body: Body,
    /// The client has said that it keeps its connection for more.
    pub(crate) keeps_alive: bool,
    /// The client waits for a 100 before it sends the body.
    pub(crate) expects: bool,
    pub(crate) upgrade: Option<&'static str>,
    /// All of the request as it is sent.
    pub(crate) bytes: Vec<u8>,
    pub(crate) head_len: usize,
    /// What is sent behind it: the next request, or another protocol.
    pub(crate) behind: Vec<u8>,
    pub(crate) fault: ClientFault,
    /// The head is one that has to be refused.
    pub(crate) is_malformed: bool,
}

/// What a client does other than to send all and take all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientFault {
    None,
    /// Closes its side behind so many bytes.
    EndsAt(usize),
    /// Sends so many bytes and then no more.
    StallsAt(usize),
    /// Takes so many bytes and then no more.
    StopsTaking(usize),
    /// Is gone once it has sent so many bytes.
    BreaksAfterSending(usize),
    /// Is gone once it has taken so many bytes.
    BreaksAfterTaking(usize),
}

impl ClientPlan {
    pub(crate) fn random(scale: Scale, is_faultless: bool, rng: &mut Dice) -> Self {
        let is_large = scale.largest_body > 64 * 1024 && rng.bool();
        let method = ["GET", "GET", "HEAD", "POST", "POST", "PUT", "DELETE", "OPTIONS", "BREW"][rng.usize(..9)];
        // More than is kept to be sent again, of a request that may be.
        let method = if is_large { "PUT" } else { method };
        let is_http11 = rng.u8(..5) > 0;
        let upgrade = (is_http11 && method == "GET" && rng.bool()).then_some("websocket");
        let may_have_body = upgrade.is_none() && (matches!(method, "POST" | "PUT") || rng.u8(..10) == 0);
        let framing = match rng.u8(..2) {
            _ if !may_have_body => Framing::None,
            0 if is_http11 => Framing::Chunked,
            _ => Framing::Sized,
        };
        let mut body = Body::random(framing, scale, rng);
        if !is_faultless && framing == Framing::Chunked && rng.u8(..12) == 0 {
            body.flaw = Some(if rng.bool() { Flaw::Size } else { Flaw::Trailers });
        }
        // Where nothing follows there is nothing to wait for.
        let has_body = framing == Framing::Chunked || !body.data.is_empty();
        let mut plan = Self {
            method,
            is_http11,
            target: ["/", "/a/b?c=d&e", "/%20", "/?"][rng.usize(..4)],
            fields: fields("X-E2E", rng),
            keeps_alive: false,
            expects: has_body && is_http11 && rng.u8(..4) == 0,
            body,
            upgrade,
            bytes: Vec::new(),
            head_len: 0,
            behind: Vec::new(),
            fault: ClientFault::None,
            is_malformed: !is_faultless && rng.u8(..40) == 0,
        };
        plan.write(rng);
        if rng.bool() || upgrade.is_some() {
            plan.behind = {
                let len = rng.usize(1..scale.largest_body);
                rng.content(len)
            };
        }
        if !is_faultless && rng.u8(..3) == 0 {
            plan.fault = plan.random_fault(scale, rng);
        }
        plan
    }

    fn random_fault(&self, scale: Scale, rng: &mut Dice) -> ClientFault {
        let sent = rng.usize(..=self.bytes.len());
        let taken = rng.usize(..scale.largest_body + 400);
        match rng.u8(..5) {
            0 => ClientFault::EndsAt(sent),
            1 => ClientFault::StallsAt(sent),
            2 => ClientFault::StopsTaking(taken),
            3 => ClientFault::BreaksAfterSending(sent),
            _ => ClientFault::BreaksAfterTaking(taken),
        }
    }

    fn write(&mut self, rng: &mut Dice) {
        let mut out = Vec::new();
        let absolute = if rng.u8(..5) == 0 { "http://www.example.com" } else { "" };
        let version = if self.is_http11 { "1.1" } else { "1.0" };
        if rng.u8(..10) == 0 {
            put(&mut out, "\r\n");
        }
        put(&mut out, &format!("{} {absolute}{} HTTP/{version}\r\n", self.method, self.target));
        let host = if absolute.is_empty() { "www.example.com" } else { "other.example" };
        put(&mut out, &format!("{}: {host}\r\n", case("Host", rng)));
        let connection = ["", "close", "keep-alive", "X-Hop-1, x-hop-2", "Keep-Alive, X-Hop-1,,"][rng.usize(..5)];
        self.keeps_alive = match self.is_http11 {
            true => connection != "close",
            false => connection.to_ascii_lowercase().contains("keep-alive"),
        };
        let options = [if self.upgrade.is_some() { "Upgrade" } else { "" }, connection];
        let options: Vec<_> = options.into_iter().filter(|option| !option.is_empty()).collect();
        if !options.is_empty() {
            put(&mut out, &format!("{}: {}\r\n", case("Connection", rng), options.join(", ")));
        }
        if connection.contains("X-Hop-1") {
            put(&mut out, "X-Hop-1: secret\r\nKeep-Alive: timeout=5\r\n");
        }
        if let Some(upgrade) = self.upgrade {
            put(&mut out, &format!("Upgrade: {upgrade}\r\n"));
        }
        if self.expects {
            put(&mut out, &format!("Expect: {}\r\n", case("100-continue", rng)));
        }
        put_all(&mut out, &self.fields);
        self.body.put_fields(&mut out, rng);
        if self.is_malformed {
            put(&mut out, ["bad name: x\r\n", "Host: again\r\n", " folded\r\n", "X: \n\r\n"][rng.usize(..4)]);
        }
        put(&mut out, "\r\n");
        self.head_len = out.len();
        out.extend(self.body.encode(rng));
        self.bytes = out;
    }

    /// The methods that RFC 9110 section 9.2.2 lets a proxy send twice.
    pub(crate) fn is_idempotent(&self) -> bool {
        !matches!(self.method, "POST" | "BREW")
    }

    /// Everything the client would send.
    pub(crate) fn everything(&self) -> Vec<u8> {
        [self.bytes.as_slice(), self.behind.as_slice()].concat()
    }
}
