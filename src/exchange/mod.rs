//! One request from head to last byte, as an enum of states. No I/O and no clock.
//!
//! The owner tells an [`Exchange`] what happened ([`Input`]) by [`Exchange::step`], does what it then finds in
//! [`Output`] (first the effects in their order, then the bytes, by [`Exchange::flush`], or by itself, which it tells by
//! [`Exchange::note_sent`]), and reads from a side only while [`Exchange::wants`] says so. Everything else, down to what a
//! reset in the middle of a retry means, is decided in here; so a test can play every order of events.
//!
//! ```text
//! Reading ─► Resolving ─► Connecting ─► Awaiting ─► Relaying ─► Finishing ─► Over
//!    │           │   ▲        │  ▲          │  └──► Tunnel ──────────▲
//!    │           │   └────────┘  └──────────┘ (tried again)          │
//!    └───────────┴── an answer of this node's own ───────────────────┘
//! ```

// What a stranger sends passes here: nothing of it may stop a core.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    clippy::todo,
    clippy::unimplemented
)]
#![deny(clippy::indexing_slicing, clippy::string_slice)]

mod answer;
mod awaiting;
mod connecting;
mod context;
mod events;
mod finishing;
mod journey;
mod ledger;
mod outlet;
mod pace;
mod reading;
mod relaying;
mod request;
mod resolving;
mod settings;
mod state;
mod transfer;
mod tunnel;

pub use events::{Core, Disposition, Effect, Effects, Flushed, Input, Output, Side};
pub use journey::Spares;
pub use ledger::Ledger;
pub use outlet::{Backlog, Outlet};
pub use request::Request;
pub use settings::{KeepAlive, Redirect, Settings};

use crate::base::buffer::{BufferPool, Lent};
use crate::base::clock::Moment;
use crate::cluster::{Frontend, Member};
use crate::wire::forwarded::Peer;
use context::{Cx, Own};
use finishing::AnswerEnd;
use journey::Target;
use outlet::write_all;
use state::State;
use std::io::{self, IoSlice};
use std::sync::Arc;

/// One request on its way.
#[derive(Debug)]
pub struct Exchange {
    state: State,
    own: Own,
}

impl Exchange {
    /// An exchange with a client that is about to send, or has sent, the first byte of a head.
    pub fn new(peer: Peer, now: Moment, settings: &Settings) -> Self {
        let own = Own {
            ledger: Ledger::new(now),
            target: None,
            deadline: now + settings.head_timeout,
            is_encrypted: peer.secure,
            is_last: false,
            holds_upstream: false,
            to_client: Backlog::default(),
            to_upstream: Backlog::default(),
        };
        Self { state: State::Reading(reading::Reading::new(peer)), own }
    }

    /// Says that it is the last that its client's connection may carry.
    pub fn make_last(&mut self) {
        self.own.is_last = true;
    }

    /// Tells the exchange what happened. Of an [`Input::Bytes`] it returns how many were consumed: the others are to be
    /// offered again, at once if some were consumed, otherwise when more have come. `offset` is where the bytes stand
    /// in the buffer that [`Exchange::flush`] or [`Exchange::note_sent`] will be given.
    pub fn step(&mut self, input: Input<'_>, offset: usize, core: &mut Core) -> usize {
        core.output.client.set_offset(offset);
        core.output.upstream.set_offset(offset);
        let mut cx = Cx { core, own: &mut self.own, consumed: 0 };
        let state = std::mem::replace(&mut self.state, State::Over(None)).step(input, &mut cx);
        // What stood there meanwhile has nothing to be dropped.
        std::mem::forget(std::mem::replace(&mut self.state, state));
        cx.consumed
    }

    /// Sends what the turn has for `side`, and keeps what `write` does not take. A write that takes less than it is
    /// given means that the socket is full.
    pub fn flush(
        &mut self,
        side: Side,
        input: &[u8],
        core: &mut Core,
        mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> Flushed {
        let outlet = core.output.outlet(side);
        if outlet.is_empty() {
            return Flushed::Nothing;
        }
        let is_free = self.own.backlog(side).is_empty();
        let (sent, flushed) = if is_free { outlet.write(input, &mut write) } else { (0, Flushed::Blocked) };
        self.note_sent(side, sent, flushed, input, core);
        flushed
    }

    /// Learns what has become of what the turn has for `side`: `sent` bytes of it have left, none where something was kept
    /// before. The others are kept. `core` has them as the steps have made them, and `input` is the buffer of those.
    pub fn note_sent(&mut self, side: Side, sent: usize, flushed: Flushed, input: &[u8], core: &mut Core) {
        debug_assert!(sent == 0 || self.own.backlog(side).is_empty(), "the bytes have overtaken others");
        match flushed {
            Flushed::Blocked => {
                let outlet = core.output.outlet(side);
                self.own.backlog_mut(side).keep(outlet, input, sent, core.now, &mut core.buffers);
                match (side, self.state.journey_mut()) {
                    // Now the client is waited for to take what it was sent, or the backend, and not the client.
                    (Side::Client, Some(journey)) => journey.download_pace.start(core.now),
                    (Side::Upstream, Some(journey)) => journey.upload_pace.pause(core.now),
                    (_, None) => {}
                }
            }
            // What stays would never leave, and so keep the other side from being read.
            Flushed::Broken => self.own.backlog_mut(side).discard(&mut core.buffers),
            Flushed::All | Flushed::Nothing => {}
        }
        core.output.outlet(side).clear();
        // How long is waited for what comes next, the step that made the bytes has just said.
        self.count_sent(side, sent);
    }

    /// Sends what earlier turns kept for `side`, now that its socket takes bytes again.
    pub fn flush_backlog(
        &mut self,
        side: Side,
        core: &mut Core,
        mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> Flushed {
        let backlog = self.own.backlog_mut(side);
        if backlog.is_empty() {
            return Flushed::Nothing;
        }
        let (sent, result) = write_all(&mut std::iter::once(backlog.pending()), &mut write);
        match result {
            Flushed::Broken => backlog.discard(&mut core.buffers),
            _ => backlog.advance(sent, &mut core.buffers),
        }
        self.count_sent(side, sent);
        if sent > 0 {
            self.extend_patience(side, core);
        }
        let is_answer = matches!(self.state, State::Relaying(_) | State::Finishing(_));
        let Some(journey) = self.state.journey_mut() else { return result };
        match (side, result) {
            (Side::Client, Flushed::Blocked) if is_answer && !journey.download_keeps_up(core) => {
                self.own.deadline = core.now;
            }
            // Whether that was fast enough is asked when the state is told.
            (Side::Client, Flushed::All) => journey.download_pace.pause(core.now),
            (Side::Upstream, Flushed::All) => journey.upload_pace.start(core.now),
            _ => {}
        }
        result
    }

    fn count_sent(&mut self, side: Side, sent: usize) {
        if side == Side::Client {
            self.own.ledger.bytes_to_client += sent as u64;
            if let Some(journey) = self.state.journey_mut() {
                journey.download_pace.count(sent);
            }
        }
    }

    /// Whoever takes bytes, however slowly, has not stalled.
    #[cold]
    fn extend_patience(&mut self, side: Side, core: &Core) {
        let patience = match &self.state {
            State::Awaiting(state) if side == Side::Upstream => Some(state.patience(&core.settings)),
            State::Relaying(_) => Some(core.settings.body_timeout),
            // Where no head could be read there is no pace either: the page leaves within one patience.
            State::Finishing(state) if state.journey.is_some() => Some(core.settings.body_timeout),
            State::Tunnel(state) => state.patience(&core.settings),
            _ => None,
        };
        if let Some(patience) = patience {
            self.own.deadline = core.now + patience;
        }
    }

    /// Whether bytes from `side` are wanted: the state has a use for them, and the other side has taken what it was
    /// sent. So the memory of an exchange is what one read can hold, a side.
    pub fn wants(&self, side: Side) -> bool {
        self.own.backlog(side.other()).is_empty()
            && match &self.state {
                State::Reading(_) => side == Side::Client,
                State::Awaiting(state) => state.wants(side),
                State::Relaying(state) => state.wants(side),
                State::Tunnel(state) => state.wants(side),
                State::Resolving(_) | State::Connecting(_) | State::Finishing(_) | State::Over(_) => false,
            }
    }

    /// Whether the client's stream is ended as soon as what is there for it has left.
    pub fn ends_behind_answer(&self) -> bool {
        matches!(&self.state, State::Finishing(state) if !state.is_kept() && state.end != AnswerEnd::Missing)
    }

    /// Whether [`Input::Drained`] of this side would change anything.
    pub fn waits_for_drain(&self, side: Side) -> bool {
        match &self.state {
            State::Relaying(_) => true,
            State::Tunnel(state) => state.is_ending(),
            State::Finishing(_) => side == Side::Client,
            _ => false,
        }
    }

    /// Whether the end of the connection to the backend is to be told by [`Input::Unheard`], if that is what it is.
    pub fn asks_if_heard(&self) -> bool {
        matches!(&self.state, State::Awaiting(state) if state.asks_if_heard())
    }

    /// Whether a part of the request has yet to come from the client when a connection to its backend is asked for. The end
    /// of that is told by [`Effect::Uploaded`].
    pub fn is_uploading(&self) -> bool {
        matches!(&self.state, State::Connecting(state) if state.journey.is_uploading())
    }

    /// What a side's socket has not taken yet.
    pub fn backlog(&self, side: Side) -> &Backlog {
        self.own.backlog(side)
    }

    /// When [`Input::Deadline`] is due.
    pub fn deadline(&self) -> Moment {
        self.own.deadline
    }

    /// The facts so far.
    pub fn ledger(&self) -> &Ledger {
        &self.own.ledger
    }

    /// The request, once its head is complete; not while it is a tunnel, which keeps no more than the log will want.
    pub fn request(&self) -> Option<&Request> {
        self.state.journey().map(|journey| &journey.request)
    }

    /// The frontend that serves the request and the place of the member that was chosen last.
    pub fn target(&self) -> Option<(&Arc<Frontend>, usize)> {
        self.own.target.as_ref().map(|target| (&target.frontend, target.place))
    }

    /// That member, while there is one.
    pub fn target_member(&self) -> Option<&Member> {
        self.own.target.as_ref().map(Target::member)
    }

    /// Which of its core's buffers it holds, where it is a tunnel: of the request none is left then.
    pub fn lent_buffers(&self) -> Lent {
        self.own.to_client.lent().and(self.own.to_upstream.lent())
    }

    /// How many bytes it keeps because somebody is slow, or sends much at once.
    pub fn burden(&self) -> usize {
        self.own.to_client.len() + self.own.to_upstream.len() + self.request().map_or(0, Request::burden)
    }

    /// Since when a socket has not taken all that it was given; [`Moment::NEVER`] while both have.
    pub fn blocked_since(&self) -> Moment {
        self.own.to_client.since().min(self.own.to_upstream.since())
    }

    /// How many bytes from `side` may belong to what it is about to read; what is read beyond them waits.
    pub fn expects(&self, side: Side) -> usize {
        match &self.state {
            State::Reading(_) => 0,
            State::Awaiting(state) if side == Side::Client => state.journey.upload.share_of(usize::MAX),
            State::Relaying(state) if side == Side::Client => state.upload_left(),
            _ => usize::MAX,
        }
    }

    /// By how much `size` bytes of a body from `side` grow on their way: by what makes one chunk of them, where they become
    /// that.
    pub fn framing(&self, side: Side, size: usize) -> usize {
        self.state.journey().map_or(0, |journey| journey.body_from(side).framing(size))
    }

    /// Gives buffers and box back. The exchange is over, or nobody is left to tell it anything.
    pub fn recycle(&mut self, buffers: &mut BufferPool, spares: &mut Spares) {
        for backlog in [&mut self.own.to_client, &mut self.own.to_upstream] {
            backlog.discard(buffers);
        }
        if let Some(journey) = std::mem::replace(&mut self.state, State::Over(None)).into_journey(buffers) {
            spares.take_back(journey, buffers);
        }
    }
}
