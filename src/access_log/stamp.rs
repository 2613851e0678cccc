//! The time of a line.

use crate::base::clock::{Clock, Moment};
use jiff::Timestamp;
use std::fmt::Write;
use std::time::SystemTime;

/// Apache's format, in UTC.
const APACHE: &str = "%d/%b/%Y:%H:%M:%S +0000";

/// The format of RFC 3339.
const RFC3339: &str = "%Y-%m-%dT%H:%M:%SZ";

/// Formats the time once a second in each requested format, and returns the same text until the next second.
#[derive(Debug)]
pub(super) struct Stamps {
    clock: Clock,
    apache: Stamp,
    rfc3339: Stamp,
}

impl Stamps {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, apache: Stamp::default(), rfc3339: Stamp::default() }
    }

    /// The moment in Apache's format.
    pub(super) fn apache(&mut self, moment: Moment) -> &str {
        self.apache.of(self.clock.wall(moment), APACHE)
    }

    /// The moment in the format of RFC 3339.
    pub(super) fn rfc3339(&mut self, moment: Moment) -> &str {
        self.rfc3339.of(self.clock.wall(moment), RFC3339)
    }
}

#[derive(Debug, Default)]
struct Stamp {
    second: Option<i64>,
    text: String,
}

impl Stamp {
    fn of(&mut self, time: SystemTime, format: &str) -> &str {
        // A year before 1 or after 9999 is not worth an error.
        let time = Timestamp::try_from(time).unwrap_or_default();
        if self.second != Some(time.as_second()) {
            self.second = Some(time.as_second());
            self.text.clear();
            write!(self.text, "{}", time.strftime(format)).unwrap_or_else(|_| unreachable!("a string takes all"));
        }
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn the_text_follows_the_second() {
        let mut stamp = Stamp::default();
        let nine = UNIX_EPOCH + Duration::from_secs(1_795_165_200);
        assert_eq!(stamp.of(nine, APACHE), "20/Nov/2026:09:00:00 +0000");
        assert_eq!(stamp.of(nine + Duration::from_millis(999), APACHE), "20/Nov/2026:09:00:00 +0000");
        assert_eq!(stamp.of(nine + Duration::from_secs(1), APACHE), "20/Nov/2026:09:00:01 +0000");
        assert_eq!(stamp.of(nine, APACHE), "20/Nov/2026:09:00:00 +0000", "a clock may step back");
        assert_eq!(stamp.of(UNIX_EPOCH, APACHE), "01/Jan/1970:00:00:00 +0000");
        assert_eq!(Stamp::default().of(nine, RFC3339), "2026-11-20T09:00:00Z");
    }
}
