//! Numbers with units: times, sizes, and plain ones (configuration.txt sections 2.5 and 2.6).

use std::time::Duration;

/// The longest time that HAProxy's timers hold: about 24.8 days.
const LONGEST_MILLIS: u64 = i32::MAX as u64;

/// The unit of a bare number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Millis,
    Seconds,
}

/// A time such as `5s`, `500`, `1m`. `None` if the text is not a time; a time beyond the limit becomes the limit.
///
/// Old versions accepted any text that began with the unit (`15min`); the flag reports text behind the unit.
pub(super) fn time(text: &str, default: Unit) -> Option<(Duration, bool)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let known =
        [("us", 1), ("ms", 1000), ("s", 1_000_000), ("m", 60_000_000), ("h", 3_600_000_000), ("d", 86_400_000_000)];
    let (micros, rest) = if unit.is_empty() {
        (if default == Unit::Millis { 1000 } else { 1_000_000 }, "")
    } else {
        known.iter().find_map(|(name, micros)| unit.strip_prefix(name).map(|rest| (*micros, rest)))?
    };
    // `mo` for months and similar texts would be another unit, not a long name of this one.
    let is_long_name = ["", "in", "ins", "inute", "inutes", "ec", "ecs", "econd", "econds", "our", "ours", "ay", "ays"];
    if !is_long_name.contains(&rest) {
        return None;
    }
    let longest = Duration::from_millis(LONGEST_MILLIS);
    let value = number.checked_mul(micros).map_or(longest, |micros| Duration::from_micros(micros).min(longest));
    Some((value, !rest.is_empty()))
}

/// A size such as `16k`, `1m`, `65536`, in bytes.
pub(super) fn size(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "" => 1,
        "k" | "K" => 1 << 10,
        "m" | "M" => 1 << 20,
        "g" | "G" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        let table = [
            ("0", Some((0, false))),
            ("500", Some((500_000, false))),
            ("5us", Some((5, false))),
            ("5ms", Some((5000, false))),
            ("5s", Some((5_000_000, false))),
            ("1m", Some((60_000_000, false))),
            ("15min", Some((900_000_000, true))),
            ("2h", Some((7_200_000_000, false))),
            ("1d", Some((86_400_000_000, false))),
            ("1000d", Some((2_147_483_647_000, false))),
            ("99999999999999999d", Some((2_147_483_647_000, false))),
            ("1mo", None),
            ("5 s", None),
            ("s", None),
            ("", None),
            ("1.5s", None),
            ("-1", None),
        ];
        for (text, expected) in table {
            let expected = expected.map(|(micros, odd)| (Duration::from_micros(micros), odd));
            assert_eq!(time(text, Unit::Millis), expected, "{text:?}");
        }
        assert_eq!(time("10", Unit::Seconds), Some((Duration::from_secs(10), false)));
        for (text, expected) in [("1", Some(1)), ("16k", Some(16384)), ("1M", Some(1 << 20)), ("k", None), ("1x", None)]
        {
            assert_eq!(size(text), expected, "{text:?}");
        }
    }
}
