//! The time as it stands in a line.

use jiff::Timestamp;
use std::fmt::Write;
use std::time::SystemTime;

/// Apache's format, in UTC.
const FORMAT: &str = "%d/%b/%Y:%H:%M:%S +0000";

/// Writes the time once a second and hands out the same text until the next.
#[derive(Debug, Default)]
pub(super) struct Stamp {
    second: Option<i64>,
    text: String,
}

impl Stamp {
    pub(super) fn of(&mut self, time: SystemTime) -> &str {
        // Before year 1 or after 9999 nobody's clock is worth an error.
        let time = Timestamp::try_from(time).unwrap_or_default();
        if self.second != Some(time.as_second()) {
            self.second = Some(time.as_second());
            self.text.clear();
            write!(self.text, "{}", time.strftime(FORMAT)).unwrap_or_else(|_| unreachable!("a string takes all"));
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
        assert_eq!(stamp.of(nine), "20/Nov/2026:09:00:00 +0000");
        assert_eq!(stamp.of(nine + Duration::from_millis(999)), "20/Nov/2026:09:00:00 +0000");
        assert_eq!(stamp.of(nine + Duration::from_secs(1)), "20/Nov/2026:09:00:01 +0000");
        assert_eq!(stamp.of(nine), "20/Nov/2026:09:00:00 +0000", "a clock may step back");
        assert_eq!(stamp.of(UNIX_EPOCH), "01/Jan/1970:00:00:00 +0000");
    }
}
