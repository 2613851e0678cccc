//! Header fields in the form that the cache reads.

use crate::base::slice_ext::SliceExt;
use httparse::Header;
use jiff::civil::Date;
use std::time::{Duration, SystemTime};

/// The fields of one head, in order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fields<'a>(pub &'a [Header<'a>]);

impl<'a> Fields<'a> {
    /// The values of all lines with this name.
    pub fn values(self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.0.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
    }

    /// The value of the first line with this name.
    pub fn first(self, name: &str) -> Option<&'a [u8]> {
        self.values(name).next()
    }

    /// The value of the only line with this name; `None` if there are none or several.
    pub fn only(self, name: &str) -> Option<&'a [u8]> {
        let mut values = self.values(name);
        values.next().filter(|_| values.next().is_none())
    }

    /// Whether there is a line with this name.
    pub fn has(self, name: &str) -> bool {
        self.first(name).is_some()
    }

    /// The members of the lists in all lines with this name, without the empty ones.
    pub fn members(self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.values(name).flat_map(list)
    }

    /// The date in the first line with this name, if it is valid.
    pub fn date(self, name: &str) -> Option<SystemTime> {
        self.first(name).and_then(date)
    }
}

/// The members of a comma-separated list (RFC 9110 section 5.6.1), without the empty ones. A comma in a quoted string
/// does not separate.
pub fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut is_quoted = false;
    let mut is_escaped = false;
    let members = value.split(move |byte| {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            b',' => return !is_quoted,
            _ => {}
        }
        false
    });
    members.map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

/// The content of a quoted string without escapes; other values are returned unchanged.
pub fn unquote(value: &[u8]) -> &[u8] {
    match value {
        [b'"', inside @ .., b'"'] => inside,
        _ => value,
    }
}

/// Parses a date in one of the three forms of RFC 9110 section 5.6.7. The case of letters is ignored, and so is a wrong
/// weekday: the section asks for robust parsing, and the date is unambiguous without it.
pub fn date(value: &[u8]) -> Option<SystemTime> {
    let text = std::str::from_utf8(value).ok()?;
    httpdate::parse_http_date(text).ok().or_else(|| lenient_date(value))
}

/// A date in the forms `Sun, 06 Nov 1994 08:49:37 GMT` and `Sun Nov  6 08:49:37 1994`, in any case and with any
/// weekday.
#[cold]
fn lenient_date(value: &[u8]) -> Option<SystemTime> {
    const WEEKDAYS: [&[u8]; 7] = [b"mon", b"tue", b"wed", b"thu", b"fri", b"sat", b"sun"];
    let value = value.to_ascii_lowercase();
    let (weekday, rest) = value.split_at_checked(3)?;
    if !WEEKDAYS.contains(&weekday) {
        return None;
    }
    let (day, month, year, time) = match rest {
        [b',', b' ', day @ ..] if day.len() == 24 && day.ends_with(b" gmt") => {
            (day.get(..2)?, day.get(2..7)?, day.get(7..11)?, day.get(11..20)?)
        }
        [b' ', month @ ..] if month.len() == 20 && month.get(3) == Some(&b' ') && month.get(15) == Some(&b' ') => {
            let day = month.get(4..6)?;
            let day = if day.starts_with(b" ") { day.suffix(1) } else { day };
            (day, month.get(..3)?, month.get(16..20)?, month.get(6..15)?)
        }
        _ => return None,
    };
    let [b' ', hour @ .., b':', m1, m2, b':', s1, s2] = time else { return None };
    let clock = [(hour.len() == 2).then_some(hour)?, &[*m1, *m2], &[*s1, *s2]].map(number);
    let [Some(hour @ 0..24), Some(minute @ 0..60), Some(second @ 0..=60)] = clock else { return None };
    let month = match month {
        [b' ', month @ .., b' '] => month,
        month => month,
    };
    let days = days_since_epoch(number(year)?, month, number(day)?)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(days * 86_400 + hour * 3600 + minute * 60 + second))
}

/// The days from 1 January 1970 to a date. `None` if the date is invalid or earlier.
fn days_since_epoch(year: u64, month: &[u8], day: u64) -> Option<u64> {
    const MONTHS: [&[u8]; 12] =
        [b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"];
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    let date = Date::new(year.try_into().ok()?, month.try_into().ok()?, day.try_into().ok()?).ok()?;
    u64::try_from(date.duration_since(Date::constant(1970, 1, 1)).as_hours() / 24).ok()
}

fn number(digits: &[u8]) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

/// The greatest number of seconds that is distinguished (RFC 9111 section 1.2.2).
const MOST_SECONDS: u64 = 1 << 31;

/// A number of seconds: digits alone. A number above 2^31 is read as 2^31.
pub fn seconds(digits: &[u8]) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let add = |sum: u64, digit: &u8| (sum * 10 + u64::from(digit - b'0')).min(MOST_SECONDS);
    is_number.then(|| digits.iter().fold(0, add))
}

/// The part of `value` before the first `byte`, and the part after it.
pub(super) fn split_at_byte(value: &[u8], byte: u8) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(byte, value) {
        Some(at) => (value.prefix(at), Some(value.suffix(at + 1))),
        None => (value, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The result equals the strict parser's if that succeeds; further accepted dates are listed.
    #[test]
    fn dates_are_read_with_any_letters_and_any_weekday() {
        let strict = |text: &str| httpdate::parse_http_date(text).ok();
        for day in (0..40_000).step_by(7) {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(day * 86_400 + 8 * 3600 + day % 3600);
            let text = httpdate::fmt_http_date(time);
            assert_eq!(lenient_date(text.to_uppercase().as_bytes()), Some(time), "{text}");
            let (_, rest) = text.split_at(3);
            assert_eq!(lenient_date(format!("sAt{rest}").as_bytes()), Some(time), "{text}");
        }
        let asctime = strict("Sun Nov  6 08:49:37 1994").expect("a date");
        for text in ["sun nov  6 08:49:37 1994", "Mon Nov  6 08:49:37 1994", "TUE NOV 06 08:49:37 1994"] {
            assert_eq!(date(text.as_bytes()), Some(asctime), "{text}");
        }
        let table = [
            "",
            "0",
            "Thu, 18 Aug 2050 02:01:18 UTC",
            "Thu, 18 Aug 2050 02:01:18",
            "Thu, 18 Aug 50 02:01:18 GMT",
            "Thu, 18 Aug 2050 2:01:18 GMT",
            "Thu, 18-Aug-2050 02:01:18 GMT",
            "Thu,18 Aug 2050 02:01:18  GMT",
            "18 Aug 2050 02:01:18 GMT",
            "Xyz, 18 Aug 2050 02:01:18 GMT",
            "Thu, 18 Axg 2050 02:01:18 GMT",
            "Thu, 31 Feb 2050 02:01:18 GMT",
            "Thu, 00 Aug 2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 24:01:18 GMT",
            "Thu, 18 Aug 2050 02.01.18 GMT",
            "Thu, 18 Aug 1950 02:01:18 GMT",
            "Thu Aug 18 02:01:18 2050 GMT",
            "Thu Aug x8 02:01:18 2050",
            "Thu, 18 Aug 2050 02:01:18 GMT, x",
        ];
        for text in table {
            assert_eq!(date(text.as_bytes()), None, "{text}");
        }
    }
}
