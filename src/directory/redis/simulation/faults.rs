//! Faults: of connections, servers, their data, and the process itself.

use super::super::route_state::ChangedKey;
use super::server::{Data, HOSTS, Reach};
use super::{Happening, World};
use std::time::Duration;

/// A fault that lasts for a while.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// The network fails, or the server is stopped.
    Outage,
    /// The server is away and comes back as another process.
    Restart(Kept),
    /// The replica falls behind; then the server is lost.
    Lag,
    /// The replica replaces the server.
    Promote,
    /// The server responds slowly; then, as a replica, it loads the data of a master with other or no data.
    Resync,
    Drip,
}

/// The data of a server after its restart.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kept {
    All,
    /// The last save, with a known position.
    Saved,
    /// The last save, without a known history.
    SavedBlindly,
    Nothing,
}

/// How a process ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Orderly,
    Killed,
    Upgraded,
}

impl World {
    pub(super) fn begin_fault(&mut self) {
        let delay = self.about(self.plan.fault_every);
        self.after(delay, Happening::Fault);
        let dice = self.rng.u32(..100);
        let is_quiet = self.redis.reach == Reach::Open && !self.redis.is_lagging;
        match dice {
            0..20 => self.cut(),
            20..28 => self.drip(),
            28..42 => {
                let end = [End::Orderly, End::Orderly, End::Killed, End::Upgraded][self.rng.usize(..4)];
                self.end_process(end);
            }
            42..47 => self.freeze(),
            47..58 if is_quiet => self.begin_outage(),
            58..76 if is_quiet => self.begin_restart(),
            76..90 if is_quiet => self.begin_lag(),
            90.. if is_quiet => self.begin_resync(),
            _ => {}
        }
    }

    /// One of the connections is lost, or both.
    pub(super) fn cut(&mut self) {
        let (watching, reading) =
            [(true, false), (true, false), (false, true), (false, true), (true, true)][self.rng.usize(..5)];
        self.note(|_| format!("cut the watching connection: {watching}, the reading one: {reading}"));
        self.disturb(self.now);
        let delay = self.between(0, 50_000);
        if watching {
            self.cut_watching(delay);
        }
        if reading {
            self.cut_reading();
        }
    }

    fn trouble(&mut self, fault: Fault, delay: Duration) {
        self.note(|_| format!("{fault:?} for {delay:?}"));
        self.troubles += 1;
        self.after(delay, Happening::Next(fault));
    }

    fn begin_outage(&mut self) {
        let delay = self.between(50_000, 60_000_000);
        self.redis.reach = if self.rng.bool() { Reach::Silent } else { Reach::Refused };
        self.trouble(Fault::Outage, delay);
        match self.redis.reach {
            Reach::Silent => self.silence_watching(),
            _ => self.cut_all(),
        }
    }

    fn begin_restart(&mut self) {
        let kept = [Kept::All, Kept::Saved, Kept::SavedBlindly, Kept::Nothing, Kept::Nothing][self.rng.usize(..5)];
        let delay = self.between(50_000, 20_000_000);
        self.redis.reach = Reach::Refused;
        self.trouble(Fault::Restart(kept), delay);
        self.cut_all();
    }

    fn begin_lag(&mut self) {
        self.redis.is_lagging = true;
        let delay = self.between(1_000, 20_000_000);
        self.trouble(Fault::Lag, delay);
    }

    fn begin_resync(&mut self) {
        let delay = self.between(1_000, 1_500_000);
        self.redis.is_slow = true;
        self.trouble(Fault::Resync, delay);
        if self.rng.bool() {
            self.cut();
        }
    }

    fn resync(&mut self) {
        if self.redis.reach != Reach::Open || self.redis.is_lagging {
            return;
        }
        let number = self.redis.number();
        let data = if self.rng.bool() { self.redis.saved.data.clone() } else { Data::default() };
        self.redis.at = self.redis.at.resynced(number, data);
        self.redis.forget_earlier();
        self.redis.replica = self.redis.at.clone();
        self.note(|_| "resync".to_owned());
        self.disturb(self.now);
        self.observe(false);
        self.notify(ChangedKey::All, Duration::ZERO);
        // A replica that loads the data beside the earlier data replies at each moment.
        if self.rng.bool() {
            self.redis.loads_until = self.now + self.between(0, 200_000);
        }
        self.refill();
    }

    fn drip(&mut self) {
        let delay = self.between(100_000, 15_000_000);
        for _ in 0..self.rng.usize(1..3) {
            let host = HOSTS[self.rng.usize(..HOSTS.len())];
            self.redis.drips.insert(host, self.now + delay);
        }
        self.trouble(Fault::Drip, delay);
    }

    pub(super) fn go_on(&mut self, fault: Fault) {
        if self.is_resting {
            return;
        }
        self.troubles -= 1;
        self.disturb(self.now);
        let number = self.redis.number();
        match fault {
            Fault::Outage => self.open(),
            Fault::Resync => {
                self.resync();
                self.redis.is_slow = false;
            }
            Fault::Restart(kept) => {
                let (at, saved) = (&self.redis.at, &self.redis.saved);
                self.redis.at = match kept {
                    Kept::All => at.successor(number, true),
                    Kept::Saved => saved.successor(number, true),
                    Kept::SavedBlindly => saved.successor(number, false),
                    Kept::Nothing => {
                        let mut server = at.successor(number, false);
                        server.data = Data::default();
                        server
                    }
                };
                self.come_back();
            }
            Fault::Lag => {
                self.redis.reach = Reach::Refused;
                self.cut_all();
                let delay = self.between(10_000, 8_000_000);
                self.trouble(Fault::Promote, delay);
            }
            Fault::Promote => {
                self.redis.at = self.redis.replica.successor(number, true);
                self.come_back();
            }
            Fault::Drip => {
                let now = self.now;
                self.redis.drips.retain(|_, until| *until > now);
            }
        }
    }

    /// Another server is at the address.
    fn come_back(&mut self) {
        self.note(|world| {
            format!("{} is there, with {} lists", world.redis.at.run_id(), world.redis.at.data.lists.len())
        });
        self.redis.replica = self.redis.at.clone();
        self.redis.is_lagging = false;
        self.observe(false);
        self.open();
        self.refill();
    }

    fn open(&mut self) {
        self.redis.reach = Reach::Open;
        self.end_silence();
    }

    pub(super) fn heal_all(&mut self) {
        self.troubles = 0;
        self.disturb(self.now);
        self.redis.drips.clear();
        (self.redis.is_lagging, self.redis.is_slow) = (false, false);
        self.open();
    }
}
