//! The health monitor of one member: the time of its next probe, and the verdict of its probes. Pure: time and outcomes
//! are passed in. Source: x0d's health monitor without its defects; rise and fall as in HAProxy.
//!
//! Only probes lead to a verdict. A failed request makes the member *suspect*: it is probed at once, in every mode,
//! until probes have judged it.

use super::monitor_settings::{HealthMode, MonitorSettings};
use crate::base::clock::Moment;
use std::time::Duration;

/// The least time between the last probe and the first probe of a suspect member is the interval divided by this.
const SUSPECT_GAP: u32 = 10;

/// The state of a member's monitor.
#[derive(Clone, Debug)]
pub struct Monitor {
    state: State,
    /// Number of successive probes with the same outcome, and that outcome.
    streak: u32,
    is_streak_good: bool,
    next_probe: Moment,
    last_probe: Moment,
    is_probing: bool,
    is_suspect: bool,
}

/// The state of the member as far as probes have shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Too few probes so far. A member that is not probed stays in this state and serves.
    Undefined,
    Up,
    Down,
}

/// A new verdict of the probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may serve.
    Up,
    /// It is up again, but stays out of service until an operator enables it (`health.stickyOffline`).
    UpDisabled,
    /// It gets no new requests.
    Down,
}

impl Monitor {
    /// A monitor that starts at `now`; `is_down` is the initial state of its member. `jitter` is a random number below
    /// 1: it spreads the first probes of many members over one interval.
    pub fn new(is_down: bool, options: &MonitorSettings, now: Moment, jitter: f64) -> Self {
        Self {
            state: if is_down { State::Down } else { State::Undefined },
            streak: 0,
            is_streak_good: false,
            next_probe: now + options.interval.mul_f64(jitter),
            last_probe: Moment::ZERO,
            is_probing: false,
            is_suspect: false,
        }
    }

    /// Whether its member is down, or suspect after a failed request.
    pub fn is_in_trouble(&self) -> bool {
        self.is_suspect || self.state == State::Down
    }

    /// When the next probe is due; [`Moment::NEVER`] while there is none. `last_request` is the moment of the member's
    /// last request.
    pub fn probe_at(&self, options: &MonitorSettings, last_request: Moment) -> Moment {
        if self.is_probing {
            return Moment::NEVER;
        }
        match options.mode {
            HealthMode::Off => Moment::NEVER,
            HealthMode::Lazy if !self.is_in_trouble() => Moment::NEVER,
            HealthMode::Opportunistic if !self.is_in_trouble() => self.next_probe.max(last_request + options.interval),
            _ => self.next_probe,
        }
    }

    /// Reports a failed request at the member: it is probed now, unless a probe has just been made.
    pub fn suspect(&mut self, options: &MonitorSettings, now: Moment) {
        if self.is_in_trouble() {
            return;
        }
        (self.is_suspect, self.streak) = (true, 0);
        self.next_probe = now.max(self.last_probe + options.interval / SUSPECT_GAP);
    }

    /// Applies changed options: a shorter interval takes effect at once.
    pub fn set_options(&mut self, options: &MonitorSettings, now: Moment) {
        self.next_probe = self.next_probe.min(now + options.interval);
    }

    /// Reports that a probe has begun.
    pub fn probe_started(&mut self, now: Moment) {
        (self.is_probing, self.last_probe) = (true, now);
    }

    /// Reports that a probe has ended without an outcome, or could not be made. `jitter` is a random number below 1.
    pub fn probe_skipped(&mut self, options: &MonitorSettings, now: Moment, jitter: f64) {
        self.is_probing = false;
        self.next_probe = now + spread(options.interval, jitter);
    }

    /// Reports the outcome of a probe. `jitter` is a random number below 1.
    pub fn probe_ended(
        &mut self,
        is_good: bool,
        options: &MonitorSettings,
        now: Moment,
        jitter: f64,
    ) -> Option<Verdict> {
        self.probe_skipped(options, now, jitter);
        self.streak = if self.is_streak_good == is_good { self.streak.saturating_add(1) } else { 1 };
        self.is_streak_good = is_good;
        let needed = if is_good { options.rise } else { options.fall };
        let is_news = match self.state {
            State::Undefined => true,
            State::Up => !is_good || self.is_suspect,
            State::Down => is_good,
        };
        (is_news && self.streak >= needed.max(1)).then(|| self.turn(is_good, options))
    }

    /// It is this node's turn to probe the member: it does so now.
    pub fn probe_now(&mut self, now: Moment) {
        self.next_probe = now;
    }

    /// Another node has probed the member: so many times with the same outcome, before them perhaps once with the other.
    /// `jitter` is a random number below 1.
    pub fn observed(
        &mut self,
        (is_good, count, has_turned): (bool, u32, bool),
        options: &MonitorSettings,
        now: Moment,
        jitter: f64,
    ) -> Option<Verdict> {
        if has_turned {
            self.streak = 0;
        }
        let most = options.rise.max(options.fall).max(1);
        let verdicts = (0..count.min(most)).filter_map(|_| self.probe_ended(is_good, options, now, jitter));
        verdicts.last()
    }

    fn turn(&mut self, is_up: bool, options: &MonitorSettings) -> Verdict {
        let was_down = self.state == State::Down;
        self.is_suspect = false;
        self.state = if is_up { State::Up } else { State::Down };
        match (is_up, was_down && options.sticky_offline) {
            (false, _) => Verdict::Down,
            (true, false) => Verdict::Up,
            // This holds only for a member that was down before, never at the start.
            (true, true) => Verdict::UpDisabled,
        }
    }
}

/// An interval, up to a tenth longer or shorter, so monitors of many nodes do not probe in step.
fn spread(interval: Duration, jitter: f64) -> Duration {
    interval.mul_f64(0.9 + 0.2 * jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(mode: HealthMode) -> MonitorSettings {
        MonitorSettings { mode, rise: 2, fall: 3, interval: Duration::from_secs(10), ..MonitorSettings::default() }
    }

    /// `+` and `-` are probes, `!` is a failed request.
    fn play(options: &MonitorSettings, events: &str) -> Vec<(usize, Verdict)> {
        let mut monitor = Monitor::new(false, options, Moment::ZERO, 0.0);
        let mut play = |event: char| {
            if event == '!' {
                monitor.suspect(options, Moment::ZERO);
                return None;
            }
            monitor.probe_started(Moment::ZERO);
            monitor.probe_ended(event == '+', options, Moment::ZERO, 0.5)
        };
        events.chars().enumerate().filter_map(|(at, event)| Some((at, play(event)?))).collect()
    }

    #[test]
    fn rise_and_fall_count_probes_in_a_row() {
        use Verdict::{Down, Up, UpDisabled};
        let plain = options(HealthMode::Paranoid);
        let sticky = MonitorSettings { sticky_offline: true, ..plain.clone() };
        type Row = (&'static str, &'static [(usize, Verdict)]);
        let table: [Row; 9] = [
            ("++", &[(1, Up)]),
            ("+-+-++", &[(5, Up)]),
            ("---", &[(2, Down)]),
            ("++--+---", &[(1, Up), (7, Down)]),
            ("++---+-++", &[(1, Up), (4, Down), (8, Up)]),
            ("++!++", &[(1, Up), (4, Up)]),
            ("++!+-++", &[(1, Up), (6, Up)]),
            ("++!---!++", &[(1, Up), (5, Down), (8, Up)]),
            ("++++++", &[(1, Up)]),
        ];
        for (events, expected) in table {
            for options in [&plain, &sticky] {
                let mut is_down = false;
                let mut as_option = |&(at, verdict): &(usize, Verdict)| {
                    let was_down = std::mem::replace(&mut is_down, verdict == Down);
                    (at, if was_down && verdict == Up && options.sticky_offline { UpDisabled } else { verdict })
                };
                let expected: Vec<_> = expected.iter().map(&mut as_option).collect();
                assert_eq!(play(options, events), expected, "{events} sticky {}", options.sticky_offline);
            }
        }
    }

    #[test]
    fn modes_say_when_to_probe() {
        let later = Moment::ZERO + Duration::from_secs(7);
        let second = |seconds| Moment::ZERO + Duration::from_secs(seconds);
        let table = [
            (HealthMode::Off, false, Moment::NEVER),
            (HealthMode::Lazy, false, Moment::NEVER),
            (HealthMode::Lazy, true, second(5)),
            (HealthMode::Opportunistic, false, second(17)),
            (HealthMode::Opportunistic, true, second(5)),
            (HealthMode::Paranoid, false, second(5)),
            (HealthMode::Paranoid, true, second(5)),
        ];
        for (mode, is_down, expected) in table {
            let options = options(mode);
            let mut monitor = Monitor::new(is_down, &options, Moment::ZERO, 0.5);
            assert_eq!(monitor.probe_at(&options, later), expected, "{mode:?} {is_down}");
            monitor.probe_started(later);
            assert_eq!(monitor.probe_at(&options, later), Moment::NEVER, "one probe at a time");
        }
    }

    #[test]
    fn a_failed_request_brings_a_probe_forward_and_a_stream_of_them_no_more() {
        let options = options(HealthMode::Lazy);
        let at = |millis| Moment::ZERO + Duration::from_millis(millis);
        let mut monitor = Monitor::new(false, &options, at(0), 0.5);
        monitor.suspect(&options, at(60_000));
        assert_eq!(monitor.probe_at(&options, at(60_000)), at(60_000));
        for good in [60_000, 70_000] {
            monitor.suspect(&options, at(good));
            monitor.probe_started(at(good));
            monitor.probe_ended(true, &options, at(good), 0.5);
        }
        assert_eq!(monitor.probe_at(&options, at(0)), Moment::NEVER, "it is judged");
        monitor.suspect(&options, at(70_001));
        assert_eq!(monitor.probe_at(&options, at(0)), at(71_000), "not at once again");
    }
}
