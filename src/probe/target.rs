//! A watched member.

use crate::base::clock::Moment;
use crate::base::wheel::Timer;
use crate::cluster::{Cluster, MemberState, Permit};
use crate::health::{HealthMode, Monitor, MonitorSettings, Verdict};
use std::sync::Arc;

/// A watched member.
#[derive(Debug)]
pub(super) struct Target {
    /// The number of its cluster.
    pub(super) cluster: usize,
    pub(super) state: Arc<MemberState>,
    /// The time of the next probe, or the time limit of a running one.
    pub(super) timer: Timer,
    monitor: Monitor,
    probe: Option<Probe>,
    /// The number of its ended requests, and the last time at which that number was seen to change.
    requests: u64,
    last_request: Moment,
}

/// A running probe.
#[derive(Debug)]
struct Probe {
    /// Its slot, if the probe counts as load.
    permit: Option<Permit>,
}

/// The decision about a member whose probe is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Probe,
    /// Another node may probe it. It is checked again at this moment.
    Another(Moment),
    /// Not now, but at this moment.
    At(Moment),
}

impl Target {
    pub(super) fn new(
        cluster: usize,
        state: Arc<MemberState>,
        timer: Timer,
        options: &MonitorSettings,
        now: Moment,
        jitter: f64,
    ) -> Self {
        let monitor = Monitor::new(state.is_down(), options, now, jitter);
        let (requests, _) = state.history().totals();
        Self { cluster, state, timer, monitor, probe: None, requests, last_request: now }
    }

    /// Whether this is the watched member.
    pub(super) fn watches(&self, state: &Arc<MemberState>) -> bool {
        Arc::ptr_eq(&self.state, state)
    }

    pub(super) fn is_running(&self) -> bool {
        self.probe.is_some()
    }

    pub(super) fn holds_slot(&self) -> bool {
        self.probe.as_ref().is_some_and(|probe| probe.permit.is_some())
    }

    /// Applies new options and the results of requests.
    pub(super) fn update(&mut self, options: &MonitorSettings, now: Moment) {
        self.monitor.set_options(options, now);
        if self.state.known_health().is_some_and(|health| health.is_suspect()) {
            self.monitor.suspect(options, now);
        }
    }

    /// The next time of the timer: the next probe, or the end of the running one.
    pub(super) fn next_turn(&self, options: &MonitorSettings, now: Moment) -> Moment {
        match self.probe {
            Some(_) => self.timer.deadline(),
            None => match self.monitor.probe_at(options, self.last_request) {
                Moment::NEVER => Moment::NEVER,
                moment => moment.max(now),
            },
        }
    }

    /// Handles a due probe: starts it, or returns when it is due again. `is_turn` says whether it is this node's turn to probe.
    pub(super) fn turn(
        &mut self,
        (cluster, place): (&Arc<Cluster>, usize),
        is_turn: impl FnOnce() -> bool,
        now: Moment,
        jitter: f64,
    ) -> Turn {
        let options = &cluster.options.health;
        if self.monitor.probe_at(options, self.last_request) > now {
            return Turn::At(self.next_turn(options, now));
        }
        let is_disabled = cluster.members.get(place).is_none_or(|member| member.attributes.is_disabled);
        if is_disabled || self.state.is_disabled() {
            return self.skip(options, now, jitter);
        }
        let is_idle_probe = options.mode == HealthMode::Opportunistic && !self.monitor.is_in_trouble();
        if is_idle_probe && self.is_busy() {
            self.last_request = now;
            return Turn::At(self.next_turn(options, now));
        }
        if !is_turn() {
            self.monitor.probe_skipped(options, now, jitter);
            return Turn::Another(self.next_turn(options, now));
        }
        let mut permit = None;
        if is_idle_probe {
            // A probe must not delay a request.
            permit = if cluster.is_queueing() { None } else { cluster.try_take(place, now) };
            if permit.is_none() {
                return self.skip(options, now, jitter);
            }
        }
        self.monitor.probe_started(now);
        self.probe = Some(Probe { permit });
        Turn::Probe
    }

    /// Skips a probe.
    pub(super) fn skip(&mut self, options: &MonitorSettings, now: Moment, jitter: f64) -> Turn {
        self.monitor.probe_skipped(options, now, jitter);
        Turn::At(self.next_turn(options, now))
    }

    /// It is this node's turn to probe it.
    pub(super) fn probe_now(&mut self, now: Moment) {
        self.monitor.probe_now(now);
    }

    /// Another node has probed it: see [`Monitor::observed`].
    pub(super) fn observed(
        &mut self,
        seen: (bool, u32, bool),
        options: &MonitorSettings,
        now: Moment,
        jitter: f64,
    ) -> Option<Verdict> {
        self.monitor.observed(seen, options, now, jitter)
    }

    /// All its outcomes are forgotten.
    pub(super) fn restart(&mut self, options: &MonitorSettings, now: Moment, jitter: f64) {
        self.monitor = Monitor::new(false, options, now, jitter);
    }

    /// Whether the member has had a request since the last check.
    fn is_busy(&mut self) -> bool {
        let (requests, _) = self.state.history().totals();
        std::mem::replace(&mut self.requests, requests) != requests || self.state.in_flight() > 0
    }

    /// Handles the outcome of a probe; `None` if it could not be made.
    pub(super) fn ended(
        &mut self,
        is_good: Option<bool>,
        options: &MonitorSettings,
        now: Moment,
        jitter: f64,
    ) -> Option<Verdict> {
        self.probe = None;
        match is_good {
            Some(is_good) => self.monitor.probe_ended(is_good, options, now, jitter),
            None => {
                self.monitor.probe_skipped(options, now, jitter);
                None
            }
        }
    }
}
