//! The monitor of one member: when it is probed next, and what its probes say. Pure: it is told of the time and of the
//! outcome of each probe. Source: x0d's health monitor, its defects mended; rise and fall as in HAProxy.

use super::monitor_settings::{HealthMode, MonitorSettings};
use crate::base::clock::Moment;
use std::time::Duration;

/// The state of a member's monitor.
#[derive(Clone, Debug)]
pub struct Monitor {
    state: State,
    /// Probes of the other outcome in a row.
    streak: u32,
    next_probe: Moment,
    is_probing: bool,
    has_been_up: bool,
}

/// What a monitor knows of its member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has not been probed often enough. A member that is not probed always stays so and serves.
    Undefined,
    /// It is up.
    Up,
    /// It is down.
    Down,
}

/// What is to be done with the member because its state has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may serve.
    Up,
    /// It comes back, but stays out of service until an operator enables it (`health.stickyOffline`).
    UpDisabled,
    /// It gets no new requests.
    Down,
}

impl Monitor {
    /// A monitor that starts at `now`. `jitter` is a random number below 1: it spreads the first probes of many members
    /// over one interval.
    pub fn new(options: &MonitorSettings, now: Moment, jitter: f64) -> Self {
        Self {
            state: State::Undefined,
            streak: 0,
            next_probe: now + options.interval.mul_f64(jitter),
            is_probing: false,
            has_been_up: false,
        }
    }

    /// The state.
    pub fn state(&self) -> State {
        self.state
    }

    /// When the next probe is due; [`Moment::NEVER`] while there is none. `last_request` is the moment of the member's
    /// last request.
    pub fn probe_at(&self, options: &MonitorSettings, last_request: Moment) -> Moment {
        if self.is_probing {
            return Moment::NEVER;
        }
        let is_down = self.state == State::Down;
        match options.mode {
            HealthMode::Off => Moment::NEVER,
            HealthMode::Lazy if !is_down => Moment::NEVER,
            HealthMode::Opportunistic if !is_down => self.next_probe.max(last_request + options.interval),
            _ => self.next_probe,
        }
    }

    /// A probe has begun.
    pub fn probe_started(&mut self) {
        self.is_probing = true;
    }

    /// A probe has ended. `jitter` is a random number below 1.
    pub fn probe_ended(
        &mut self,
        is_good: bool,
        options: &MonitorSettings,
        now: Moment,
        jitter: f64,
    ) -> Option<Verdict> {
        self.is_probing = false;
        self.next_probe = now + spread(options.interval, jitter);
        let (agrees, needed) = match (self.state, is_good) {
            (State::Up, true) | (State::Down, false) => (true, 0),
            (_, true) => (false, options.rise),
            (_, false) => (false, options.fall),
        };
        if agrees {
            self.streak = 0;
            return None;
        }
        // Before the first verdict, good and bad probes both count, and each ends the other's streak.
        self.streak = if self.state == State::Undefined && self.has_been_up != is_good { 1 } else { self.streak + 1 };
        if self.state == State::Undefined {
            self.has_been_up = is_good;
        }
        (self.streak >= needed.max(1)).then(|| self.turn(is_good, options))
    }

    /// A request has failed at the member. Returns whether it goes down: that takes as many failures in a row, of probes
    /// and requests together, as `health.fall` says.
    pub fn request_failed(&mut self, options: &MonitorSettings, now: Moment) -> Option<Verdict> {
        if options.mode == HealthMode::Off || self.state == State::Down {
            return None;
        }
        self.streak = if self.state == State::Undefined && self.has_been_up { 1 } else { self.streak + 1 };
        self.has_been_up &= self.state != State::Undefined;
        self.next_probe = now + options.interval;
        (self.streak >= options.fall.max(1)).then(|| self.turn(false, options))
    }

    /// A request has been served by the member.
    pub fn request_served(&mut self) {
        if self.state == State::Up {
            self.streak = 0;
        }
    }

    fn turn(&mut self, is_up: bool, options: &MonitorSettings) -> Verdict {
        let was_down = self.state == State::Down;
        self.streak = 0;
        self.state = if is_up { State::Up } else { State::Down };
        match (is_up, was_down && options.sticky_offline) {
            (false, _) => Verdict::Down,
            (true, false) => Verdict::Up,
            // Only a member that was down and comes back: never one at the start.
            (true, true) => Verdict::UpDisabled,
        }
    }
}

/// An interval, a tenth longer or shorter: monitors of many nodes do not probe in step.
fn spread(interval: Duration, jitter: f64) -> Duration {
    interval.mul_f64(0.9 + 0.2 * jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(mode: HealthMode) -> MonitorSettings {
        MonitorSettings { mode, rise: 2, fall: 3, interval: Duration::from_secs(10), ..MonitorSettings::default() }
    }

    fn play(options: &MonitorSettings, probes: &str) -> Vec<Option<Verdict>> {
        let mut monitor = Monitor::new(options, Moment::ZERO, 0.0);
        let mut probe = |outcome: char| {
            monitor.probe_started();
            monitor.probe_ended(outcome == '+', options, Moment::ZERO, 0.5)
        };
        probes.chars().map(&mut probe).collect()
    }

    #[test]
    fn rise_and_fall_count_probes_in_a_row() {
        use Verdict::{Down, Up, UpDisabled};
        let plain = options(HealthMode::Paranoid);
        let sticky = MonitorSettings { sticky_offline: true, ..plain.clone() };
        type Row = (&'static str, &'static [(usize, Verdict)]);
        let table: [Row; 5] = [
            ("++", &[(1, Up)]),
            ("+-+-++", &[(5, Up)]),
            ("---", &[(2, Down)]),
            ("++--+---", &[(1, Up), (7, Down)]),
            ("++---+-++", &[(1, Up), (4, Down), (8, Up)]),
        ];
        for (probes, expected) in table {
            for options in [&plain, &sticky] {
                let verdicts = play(options, probes);
                let verdicts: Vec<_> =
                    verdicts.iter().enumerate().filter_map(|(at, verdict)| Some((at, (*verdict)?))).collect();
                let is_after_down = |at: usize| expected.iter().any(|(down, verdict)| *down < at && *verdict == Down);
                let as_option = |&(at, verdict): &(usize, Verdict)| match verdict {
                    Up if options.sticky_offline && is_after_down(at) => (at, UpDisabled),
                    verdict => (at, verdict),
                };
                let expected: Vec<_> = expected.iter().map(as_option).collect();
                assert_eq!(verdicts, expected, "{probes} sticky {}", options.sticky_offline);
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
            (HealthMode::Lazy, true, second(10)),
            (HealthMode::Opportunistic, false, second(17)),
            (HealthMode::Opportunistic, true, second(10)),
            (HealthMode::Paranoid, false, second(5)),
            (HealthMode::Paranoid, true, second(10)),
        ];
        for (mode, is_down, expected) in table {
            let options = options(mode);
            let mut monitor = Monitor::new(&options, Moment::ZERO, 0.5);
            if is_down {
                let verdicts = [(); 3].map(|()| monitor.request_failed(&options, Moment::ZERO));
                assert_eq!(verdicts, [None, None, Some(Verdict::Down)], "{mode:?}");
            }
            assert_eq!(monitor.probe_at(&options, later), expected, "{mode:?} {is_down}");
            monitor.probe_started();
            assert_eq!(monitor.probe_at(&options, later), Moment::NEVER, "one probe at a time");
        }
    }
}
