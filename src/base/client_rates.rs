//! Requests a second of each client: the generic cell rate algorithm (GCRA, ITU-T I.371), in a table of fixed size without a
//! lock.
//!
//! A cell has the moment at which all that its client has taken is paid for, and a tag that tells clients apart. A client has
//! one of the eight cells of its row, which are one cache line. Where all are taken, the client that is paid for first loses
//! its cell, and begins anew with its next request: so a flood of addresses can only make the limit milder.

use super::client_network::network_of;
use super::clock::Moment;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Cells of a row, and rows: 2 MiB for all frontends of the process, which are taken with the first request that counts.
const CELLS: usize = 8;
const ROWS: usize = 1 << 15;

/// The lower bits of a cell are its moment, in ticks of 10 microseconds: enough for five years.
const TIME_BITS: u32 = 44;
const TIME: u64 = (1 << TIME_BITS) - 1;
const TICK_MICROS: u64 = 10;
const TICKS_PER_SECOND: u64 = 100_000;

/// How often a cell is lost to another core before the request is let through.
const MAX_RACES: usize = 16;

#[repr(align(64))]
struct Row([AtomicU64; CELLS]);

/// The table.
pub struct ClientRates {
    rows: Box<[Row]>,
    hasher: RandomState,
}

impl ClientRates {
    /// The table of the process.
    pub fn of_process() -> &'static Self {
        static TABLE: LazyLock<ClientRates> = LazyLock::new(|| ClientRates::with_rows(ROWS));
        &TABLE
    }

    fn with_rows(rows: usize) -> Self {
        let row = |_| Row([const { AtomicU64::new(0) }; CELLS]);
        Self { rows: (0..rows).map(row).collect(), hasher: RandomState::new() }
    }

    /// Whether this client of this frontend may have a request at `now`: there are `rate` a second, and as many may come at
    /// once. An IPv6 network of 64 bits counts as one client.
    pub fn take(&self, frontend: usize, client: IpAddr, rate: u32, now: Moment) -> bool {
        let hash = self.hasher.hash_one((frontend, network_of(client)));
        #[expect(clippy::cast_possible_truncation, reason = "any part of the hash will do")]
        let Some(Row(cells)) = self.rows.get(hash as usize % self.rows.len()) else { return true };
        // Never 0, which is an empty cell.
        let tag = (hash >> TIME_BITS).max(1) << TIME_BITS;
        let rate = u64::from(rate.max(1));
        let now = (now.as_micros() / TICK_MICROS) & TIME;
        for _ in 0..MAX_RACES {
            let (cell, before) = cell_of(cells, tag, now);
            let paid_at = if before & !TIME == tag { before & TIME } else { 0 };
            let after = next_unit(paid_at.max(now), rate);
            if after > now + TICKS_PER_SECOND {
                return false;
            }
            if cell.compare_exchange(before, tag | after, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                return true;
            }
        }
        true
    }
}

/// The tick at which one more unit is paid for. Units lie on a grid, so that the ticks of `rate` units are a second, though
/// those of one unit may be no whole number. At more than one unit a tick, it is one a tick.
fn next_unit(paid_at: u64, rate: u64) -> u64 {
    let ticks = u128::from(TICKS_PER_SECOND);
    let unit = u128::from(paid_at) * u128::from(rate) / ticks + 1;
    u64::try_from((unit * ticks).div_ceil(rate.into())).unwrap_or(u64::MAX)
}

/// The cell of this client, or the one that it takes: an empty one, or the one whose client is paid for first.
fn cell_of(cells: &[AtomicU64; CELLS], tag: u64, now: u64) -> (&AtomicU64, u64) {
    let time = |value: u64| value & TIME;
    let (mut chosen, mut value) = (&cells[0], cells[0].load(Ordering::Relaxed));
    for cell in cells {
        let found = cell.load(Ordering::Relaxed);
        if found & !TIME == tag {
            return (cell, found);
        }
        if time(found).max(now) < time(value).max(now) || found == 0 {
            (chosen, value) = (cell, found);
        }
    }
    (chosen, value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(millis: u64) -> Moment {
        Moment::from_micros(millis * 1000)
    }

    fn client(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(number).into()
    }

    #[test]
    fn a_client_has_its_rate_and_a_second_of_it_at_once() {
        let table = ClientRates::with_rows(8);
        let taken = |number, now, tries| (0..tries).filter(|_| table.take(1, client(number), 10, now)).count();
        assert_eq!(taken(7, at(1000), 30), 10);
        assert_eq!(taken(8, at(1000), 30), 10, "another client has its own");
        assert_eq!(taken(7, at(1099), 5), 0);
        assert_eq!(taken(7, at(1100), 5), 1);
        assert_eq!(taken(7, at(1500), 30), 4);
        assert_eq!(taken(7, at(60_000), 30), 10);
        assert_eq!((0..30).filter(|_| table.take(2, client(7), 10, at(60_000))).count(), 10, "another frontend");
        let v6 = |text: &str| text.parse().expect("an address");
        assert!(table.take(1, v6("2001:db8::1"), 1, at(1)) && !table.take(1, v6("2001:db8::2"), 1, at(1)));
        assert!(table.take(1, v6("2001:db8:0:1::1"), 1, at(1)));
    }

    #[test]
    fn the_rate_is_exact_where_a_second_is_no_multiple_of_a_step() {
        for rate in [3, 7_000, 9_999, 10_000, 30_000, 70_000] {
            let table = ClientRates::with_rows(1);
            let taken = |now: Moment| (0..).take_while(|_| table.take(1, client(1), rate, now)).count() as u64;
            let start = Moment::from_micros(1_000_000_013);
            assert_eq!(taken(start), u64::from(rate), "the burst");
            let passed: u64 = (1..=1000).map(|step| taken(start + Duration::from_millis(10 * step))).sum();
            assert!(passed.abs_diff(10 * u64::from(rate)) <= 1, "{rate}: {passed} in 10 s");
        }
    }

    #[test]
    fn over_any_time_no_more_pass_than_the_rate_and_a_burst() {
        let mut rng = fastrand::Rng::with_seed(3);
        for rate in [1, 3, 100, 9_999] {
            let table = ClientRates::with_rows(1);
            let (mut now, mut passed) = (Moment::ZERO + Duration::from_secs(5), 0u64);
            let start = now;
            for _ in 0..20_000 {
                now = now + Duration::from_micros(rng.u64(0..2_000_000 / u64::from(rate)));
                passed += u64::from(table.take(1, client(1), rate, now));
            }
            let most = now.since(start).as_secs_f64() * f64::from(rate) + f64::from(rate) + 1.0;
            assert!(passed as f64 <= most && passed as f64 > 0.5 * most.min(20_000.0), "{rate}: {passed} of {most}");
        }
    }

    #[test]
    fn a_flood_of_clients_takes_no_more_room_and_who_is_over_the_limit_is_the_last_to_be_forgotten() {
        let table = ClientRates::with_rows(1);
        let is_over = |now| !table.take(1, client(0), 2, now);
        assert!((0..5).filter(|_| table.take(1, client(0), 2, at(1000))).count() == 2);
        for number in 1..1000 {
            table.take(1, client(number), 2, at(1000));
        }
        assert!(is_over(at(1000)));
    }

    #[test]
    fn threads_get_no_more_than_there_is() {
        let table = ClientRates::with_rows(4);
        let count = || (0..5_000).filter(|_| table.take(1, client(1), 1000, at(7))).count();
        let all: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        // A cell that was lost too often lets its request through.
        assert!((1000..1100).contains(&all), "{all}");
    }
}
