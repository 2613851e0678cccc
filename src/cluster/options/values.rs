//! The syntax of option values.

use super::OnClientAbort;
use crate::health::{HealthMode, ProbeMethod, StatusSet};
use crate::wire::is_token;
use std::num::NonZeroU32;
use std::time::Duration;

/// A kind of value: a description for messages, and its parser.
pub(in crate::cluster) struct Kind<T> {
    /// The values, for messages.
    pub(in crate::cluster) expected: &'static str,
    pub(in crate::cluster) read: fn(&str) -> Option<T>,
}

/// The longest time that can be written.
pub const MAX_TIME: Duration = Duration::from_secs(31_536_000);
/// The greatest count that can be written.
pub const MAX_COUNT: u32 = 1_000_000;

pub(in crate::cluster) const FLAG: Kind<bool> = Kind {
    expected: "true or false",
    read: |text| match text {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    },
};

pub(in crate::cluster) const TIME: Kind<Duration> = Kind {
    expected: "a time from 1ms to a year, such as 30 (seconds), 500ms, 30s, 5m or 1h",
    read: |text| read_time(text).filter(|time| !time.is_zero()),
};

pub(in crate::cluster) const TIME_OR_ZERO: Kind<Duration> =
    Kind { expected: "0, or a time up to a year, such as 30 (seconds), 500ms, 30s, 5m or 1h", read: read_time };

pub(in crate::cluster) const COUNT: Kind<u32> =
    Kind { expected: "a whole number from 0 to 1000000", read: |text| read_whole(text, MAX_COUNT) };

pub(in crate::cluster) const POSITIVE: Kind<u32> = Kind {
    expected: "a whole number from 1 to 1000000",
    read: |text| read_whole(text, 1_000_000).filter(|number| *number > 0),
};

/// Requests a second of one client. More is no limit, and could not be kept as exactly.
pub(in crate::cluster) const CLIENT_RATE: Kind<u32> =
    Kind { expected: "a whole number from 0 to 10000", read: |text| read_whole(text, 10_000) };

pub(in crate::cluster) const ON_CLIENT_ABORT: Kind<OnClientAbort> = Kind {
    expected: "close, ignore or notify",
    read: |text| match text {
        // There is no record of HTTP that could tell a backend, so x0d closes too.
        "close" | "notify" => Some(OnClientAbort::Close),
        "ignore" => Some(OnClientAbort::Ignore),
        _ => None,
    },
};

/// 0 means no limit.
pub(in crate::cluster) const LIMIT: Kind<Option<NonZeroU32>> = Kind {
    expected: "a whole number from 0 (no limit) to 1000000",
    read: |text| read_whole(text, MAX_COUNT).map(NonZeroU32::new),
};

pub(in crate::cluster) const PERCENT: Kind<u8> = Kind {
    expected: "a whole number of per cent from 0 to 100",
    read: |text| read_whole(text.strip_suffix('%').map_or(text, str::trim_end), 100)?.try_into().ok(),
};

pub(in crate::cluster) const BYTES: Kind<u64> = Kind {
    expected: "a whole number of bytes, 0 for any",
    read: |text| text.parse().ok().filter(|bytes| *bytes <= 1 << 53),
};

pub(in crate::cluster) const BYTE_RATE: Kind<u64> = Kind {
    expected: "a whole number of bytes a second from 1024, 0 for any",
    read: |text| (BYTES.read)(text).filter(|rate| *rate == 0 || *rate >= 1024),
};

/// The name of a header or a cookie: a token (RFC 9110 section 5.6.2).
pub(in crate::cluster) const TOKEN: Kind<Box<str>> = Kind {
    expected: "a name of letters, digits and !#$%&'*+-.^_`|~",
    read: |text| is_token(text.as_bytes()).then(|| text.into()),
};

pub(super) const HEALTH_MODE: Kind<HealthMode> = Kind {
    expected: "off, lazy, opportunistic or paranoid",
    read: |text| HealthMode::ALL.into_iter().find(|mode| mode.name() == text),
};

pub(super) const PROBE_METHOD: Kind<ProbeMethod> = Kind {
    expected: "OPTIONS, HEAD or GET",
    read: |text| ProbeMethod::ALL.into_iter().find(|method| method.name() == text),
};

pub(super) const STATUS_SET: Kind<StatusSet> =
    Kind { expected: "status codes such as 200, 200-299 or 200,204,301-308", read: StatusSet::parse };

pub(super) const PATH: Kind<Box<str>> = Kind {
    expected: "a path that begins with /, without blanks",
    read: |text| {
        let is_plain = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic());
        is_plain.then(|| text.into())
    },
};

pub(in crate::cluster) const HOST: Kind<Box<str>> = Kind {
    expected: "a host name",
    read: |text| (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())).then(|| text.into()),
};

/// The name of a bucket.
pub(super) const TENANT: Kind<Box<str>> = Kind {
    expected: "the name of a tenant: 1 to 64 visible ASCII characters",
    read: |text| {
        let is_name = (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        is_name.then(|| text.into())
    },
};

pub(super) const TEXT: Kind<Box<str>> = Kind { expected: "a text", read: |text| Some(text.into()) };

/// A whole number of at most `most`, in digits alone.
pub fn read_whole(text: &str, most: u32) -> Option<u32> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| is_plain && *number <= most)
}

/// A number of seconds, fractions allowed, or a number with a unit.
pub(in crate::cluster) fn read_time(text: &str) -> Option<Duration> {
    let unit_at = text.find(|char: char| !(char.is_ascii_digit() || char == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let unit_ms = match unit {
        "ms" => 1.0,
        "" | "s" => 1_000.0,
        "m" => 60_000.0,
        "h" => 3_600_000.0,
        "d" => 86_400_000.0,
        _ => return None,
    };
    let ms = number.parse::<f64>().ok()? * unit_ms;
    let time = Duration::try_from_secs_f64(ms / 1_000.0).ok()?;
    (time <= MAX_TIME && (time.is_zero() || ms >= 1.0)).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let table = [
            ("30", Some(30_000)),
            ("0.5", Some(500)),
            ("500ms", Some(500)),
            ("30s", Some(30_000)),
            ("1.5m", Some(90_000)),
            ("2h", Some(7_200_000)),
            ("365d", Some(31_536_000_000)),
            ("0", Some(0)),
            ("366d", None),
            ("0.1ms", None),
            ("-1", None),
            ("1 s", None),
            ("1e3", None),
            ("s", None),
            ("", None),
            ("1.2.3", None),
        ];
        for (text, expected) in table {
            assert_eq!(read_time(text).map(|time| time.as_millis()), expected, "{text:?}");
        }
    }

    #[test]
    fn whole_numbers_have_no_sign_and_no_fraction() {
        for (text, expected) in [("0", Some(0)), ("12", Some(12)), ("+1", None), ("1.0", None), ("", None)] {
            assert_eq!((COUNT.read)(text), expected, "{text:?}");
        }
        assert_eq!(["0", "1", "1000001"].map(POSITIVE.read), [None, Some(1), None]);
        assert_eq!(["0", "1023", "1024"].map(BYTE_RATE.read), [Some(0), None, Some(1024)]);
        assert_eq!((PERCENT.read)("5 %"), Some(5));
        assert_eq!((PERCENT.read)("101"), None);
    }
}
