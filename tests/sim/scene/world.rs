//! The world of one exchange: virtual time, two peers, and an owner that does what a worker does.

use super::backend::{BackendFault, ConnectPlan, Start};
use super::client::ClientFault;
use super::decoder::{Decoder, Kind};
use super::dice::Dice;
use super::peer::Peer;
use super::plan::Plan;
use sluice::base::clock::Moment;
use sluice::base::reason::FailureReason;
use sluice::cluster::BackendId;
use sluice::exchange::{Disposition, Exchange, Side, WorkerContext};
use sluice::page::{self, Pages};
use sluice::wire::forwarded;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, OnceLock};

pub(crate) const CLIENT_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

/// The pages are the same for all seeds, and take time to make.
pub(crate) fn pages() -> &'static Arc<Pages> {
    static PAGES: OnceLock<Arc<Pages>> = OnceLock::new();
    PAGES.get_or_init(|| Arc::new(Pages::load(&page::Settings::default())))
}

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) rng: Dice,
    pub(crate) now: Moment,
    pub(crate) exchange: Exchange,
    pub(crate) core: WorkerContext,
    pub(crate) client: Peer,
    /// The connection to a backend, while there is one.
    pub(crate) upstream: Option<Peer>,
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) holding: Holding,
    /// The owner was asked for a route, so many times by now.
    pub(crate) resolving: bool,
    pub(crate) resolves: usize,
    /// The next connection is a try again, and whether only of a stale one.
    pub(crate) retry: Option<bool>,
    pub(crate) retries: u32,
    pub(crate) is_tunnel: bool,
    /// The client is gone.
    pub(crate) client_broken: bool,
    /// The client has ended its side, or the connection, while a backend was waited for.
    pub(crate) client_left: bool,
    pub(crate) aborted: bool,
    /// What the client sent that was consumed.
    pub(crate) consumed: usize,
    /// What the backend sent that was offered in this turn and not consumed.
    pub(crate) left_over: usize,
    /// The client's connection is to be reset.
    pub(crate) reset: bool,
    pub(crate) end: Option<End>,
    pub(crate) trace: bool,
}

/// What the exchange has of its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holding {
    Nothing,
    /// A connection was asked for; whether its queue was entered.
    Promise {
        queued: bool,
    },
    Connection,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) connection: Disposition,
    /// The client's connection is reset, not closed in good order.
    pub(crate) reset: bool,
}

/// What became of one attempt.
pub(crate) struct Attempt {
    pub(crate) backend: BackendId,
    /// A connection of the pool would not do.
    pub(crate) fresh: bool,
    /// A connection was there.
    pub(crate) connected: bool,
    pub(crate) reused: bool,
    /// Whether the connection was given back for the next; `None` while it was not given back.
    pub(crate) released: Option<bool>,
    /// What the backend saw of the request, once the connection is given back.
    pub(crate) seen: Option<Decoder>,
    /// How much of the answer was read.
    pub(crate) served: usize,
}

impl World {
    pub(crate) fn new(mut rng: Dice, trace: bool) -> Self {
        let plan = Plan::random(&mut rng);
        let mut client = Peer::new(plan.client.everything(), Kind::Response { to_head: false });
        if plan.client.expects {
            client.gate = plan.client.head_len;
        } else if plan.client.upgrade.is_some() && rng.bool() {
            client.gate = plan.client.bytes.len();
        }
        set_client_fault(&mut client, &plan, &mut rng);
        let peer = forwarded::Peer { address: CLIENT_ADDRESS, local_port: 80, secure: false, tls: None };
        let now = Moment::from_micros(rng.u64(1..1 << 40));
        let core_rng = fastrand::Rng::with_seed(rng.u64(..));
        let core = WorkerContext::new(now, plan.settings.clone(), Arc::clone(pages()), core_rng);
        Self {
            exchange: Exchange::new(peer, now, &plan.settings),
            plan,
            rng,
            now,
            core,
            client,
            upstream: None,
            attempts: Vec::new(),
            holding: Holding::Nothing,
            resolving: false,
            resolves: 0,
            retry: None,
            retries: 0,
            is_tunnel: false,
            client_broken: false,
            client_left: false,
            aborted: false,
            consumed: 0,
            left_over: 0,
            reset: false,
            end: None,
            trace,
        }
    }

    pub(crate) fn note(&self, text: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>14} {}", self.now.as_micros(), text());
        }
    }

    /// Nothing went wrong, as far as the exchange says.
    pub(crate) fn has_no_reason(&self) -> bool {
        self.exchange.stats().reason.is_none()
    }

    /// The exchange, and its core at the present moment.
    pub(crate) fn turn(&mut self) -> (&mut Exchange, &mut WorkerContext) {
        self.core.now = self.now;
        (&mut self.exchange, &mut self.core)
    }

    pub(crate) fn peer(&mut self, side: Side) -> Option<&mut Peer> {
        match side {
            Side::Client => Some(&mut self.client),
            Side::Upstream => self.upstream.as_mut(),
        }
    }

    /// The plan of the attempt under way.
    pub(crate) fn connect_plan(&self) -> ConnectPlan {
        let place = self.attempts.len() - 1;
        self.plan
            .attempts
            .get(place)
            .map_or(ConnectPlan::Fails(FailureReason::ConnectFailed), |attempt| attempt.connect)
    }

    /// The connection of the attempt under way.
    pub(crate) fn open(&mut self) {
        let plan = &self.plan.attempts[self.attempts.len() - 1];
        let mut peer = Peer::new(plan.response.bytes.clone(), Kind::Request);
        peer.gate = 0;
        peer.has_started = false;
        peer.room = if self.rng.bool() { usize::MAX } else { 0 };
        peer.ends = !plan.response.keeps_open;
        match plan.fault {
            BackendFault::None => {}
            BackendFault::Stale { reset } => {
                peer.source.clear();
                (peer.ends, peer.resets) = (!reset, reset);
                peer.dies_at = if self.rng.bool() { 0 } else { usize::MAX };
            }
            BackendFault::ClosesAt(len) => {
                peer.source.truncate(len);
                peer.ends = true;
            }
            BackendFault::BreaksAt(len) => {
                peer.source.truncate(len);
                (peer.ends, peer.resets) = (false, true);
            }
            BackendFault::StallsAt(len) => {
                peer.source.truncate(len);
                peer.ends = false;
            }
            BackendFault::StopsTaking(len) => peer.takes = len,
            BackendFault::IsDeafAt(len) => {
                peer.dies_at = len;
                peer.ends = true;
            }
        }
        self.upstream = Some(peer);
    }

    /// Lets the peers send what the bytes that they have seen allow.
    pub(crate) fn open_gates(&mut self) {
        let client = &mut self.client;
        let (status, is_told) = (client.seen.last.status(), client.seen.has_head);
        let continued = client.seen.informational.iter().any(|informational| informational.status() == 100);
        if continued || (is_told && status < 300) {
            client.gate = client.source.len();
        }
        // A client that sees the end of its answer closes too, if it does anything.
        if client.closed && self.plan.client.fault == ClientFault::None {
            client.ends = true;
        }
        let Some(upstream) = &mut self.upstream else { return };
        let plan = &self.plan.attempts[self.attempts.len() - 1];
        let may_start = match (plan.start, plan.fault) {
            (Start::Bytes(len), _) => upstream.seen.total >= len || upstream.seen.last.is_complete,
            (Start::Head, _) => upstream.seen.has_head,
            // Who does not take all of a request answers all the same.
            (Start::All, BackendFault::IsDeafAt(len) | BackendFault::StopsTaking(len)) => {
                upstream.seen.last.is_complete || upstream.seen.total >= len
            }
            (Start::All, _) => upstream.seen.last.is_complete,
        };
        if may_start || matches!(plan.fault, BackendFault::Stale { .. }) {
            upstream.gate = upstream.source.len();
            upstream.has_started = true;
        } else if upstream.seen.has_head {
            upstream.gate = upstream.gate.max(plan.response.informational_len);
        }
        if plan.response.status == 101 && upstream.closed {
            upstream.ends = true;
        }
    }
}

fn set_client_fault(client: &mut Peer, plan: &Plan, rng: &mut Dice) {
    // To close one's side behind a whole request is nobody's fault; in a tunnel somebody has to.
    client.ends = plan.client.upgrade.is_some() || rng.bool();
    match plan.client.fault {
        ClientFault::None => {}
        ClientFault::EndsAt(len) => {
            client.source.truncate(len);
            client.ends = true;
        }
        ClientFault::StallsAt(len) => {
            client.source.truncate(len);
            client.ends = false;
        }
        ClientFault::StopsTaking(len) => client.takes = len,
        ClientFault::BreaksAfterSending(len) => {
            client.source.truncate(len);
            (client.ends, client.resets) = (false, true);
        }
        ClientFault::BreaksAfterTaking(len) => client.dies_at = len,
    }
}
