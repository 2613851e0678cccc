//! A share of a parent's tokens, as in `5..20 %` or `1..10 t`, in whole numbers.

/// Units of a percentage: two decimals of a per cent.
const WHOLE: u32 = 10_000;

/// The greatest number of tokens in a share.
const MAX_TOKENS: u32 = 1_000_000;

/// A number of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Amount {
    /// Parts of the parent's tokens, in ten-thousandths.
    Parts(u32),
    /// A number of tokens, independent of the parent.
    Tokens(u32),
}

impl Amount {
    /// The tokens of this amount, given the parent's tokens: rounded down, and never more than the parent's.
    pub(super) fn of(self, parent: u32) -> u32 {
        match self {
            Self::Parts(parts) => scale(parent.into(), parts).try_into().unwrap_or(u32::MAX),
            Self::Tokens(tokens) => tokens.min(parent),
        }
    }

    /// The same in ten-thousandths of a token, for weights: they keep the fraction that rounding to whole tokens loses.
    pub(super) fn fine(self, parent: u64) -> u64 {
        match self {
            Self::Parts(parts) => scale(parent, parts),
            Self::Tokens(tokens) => (u64::from(tokens) * u64::from(WHOLE)).min(parent),
        }
    }

    fn is_nothing(self) -> bool {
        matches!(self, Self::Parts(0) | Self::Tokens(0))
    }
}

fn scale(parent: u64, parts: u32) -> u64 {
    parent * u64::from(parts) / u64::from(WHOLE)
}

/// A number of tokens in ten-thousandths of a token.
pub(super) fn fine(tokens: u32) -> u64 {
    u64::from(tokens) * u64::from(WHOLE)
}

/// The assured and the greatest number of tokens of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    /// Assured, as part of the parent's assured tokens.
    pub(super) rate: Amount,
    /// The limit, as part of the parent's limit.
    pub(super) ceil: Amount,
}

/// A fault in the text of a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ShareFault {
    /// The text does not have the form of a share.
    Form,
    /// The rate is over 100 %.
    Rate,
    /// The ceil is over 100 %, below the rate, or 0.
    Ceil,
}

impl ShareFault {
    /// A description for an error message.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Form => {
                "expected the assured and the greatest share, as in \"5..20 %\" of the parent's or \"1..10 t\" (tokens)"
            }
            Self::Rate => "the rate is over 100 %",
            Self::Ceil => "the ceil is over 100 %, below the rate, or nothing: write the smaller number first",
        }
    }
}

impl Share {
    /// Parses `RATE..CEIL UNIT`. A single number is both. The first number may have its own unit.
    pub(super) fn parse(text: &str) -> Result<Self, ShareFault> {
        let (low, high) = match text.split_once("..") {
            Some((low, high)) => (Some(low), high),
            None => (None, text),
        };
        let (digits, unit) = split_unit(high);
        let unit = unit.ok_or(ShareFault::Form)?;
        let ceil = amount(digits, unit).ok_or(ShareFault::Form)?;
        let rate = match low.map(split_unit) {
            Some((digits, own)) => amount(digits, own.unwrap_or(unit)).ok_or(ShareFault::Form)?,
            None => ceil,
        };
        if matches!(rate, Amount::Parts(parts) if parts > WHOLE) {
            return Err(ShareFault::Rate);
        }
        let is_below = match (rate, ceil) {
            (Amount::Parts(rate), Amount::Parts(ceil)) => ceil > WHOLE || rate > ceil,
            (Amount::Tokens(rate), Amount::Tokens(ceil)) => rate > ceil,
            (_, Amount::Parts(ceil)) => ceil > WHOLE,
            _ => false,
        };
        if is_below || ceil.is_nothing() { Err(ShareFault::Ceil) } else { Ok(Self { rate, ceil }) }
    }

    /// The rate in ten-thousandths of a token, for weights. A ceil in tokens is its limit.
    pub(super) fn fine_rate(self, parent: u64) -> u64 {
        let rate = self.rate.fine(parent);
        if let Amount::Tokens(ceil) = self.ceil { rate.min(fine(ceil)) } else { rate }
    }

    /// The ten-thousandths of the parent's rate that this rate takes; 0 if it is in tokens.
    pub(super) fn rate_parts(self) -> u32 {
        match self.rate {
            Amount::Parts(parts) => parts,
            Amount::Tokens(_) => 0,
        }
    }
}

/// Whether the sum of rates exceeds the parent's.
pub(super) fn is_over_whole(parts: u32) -> bool {
    parts > WHOLE
}

/// Ten-thousandths as per cent, for an error message.
pub(super) fn percent(parts: u32) -> String {
    let (whole, rest) = (parts / 100, parts % 100);
    if rest == 0 { format!("{whole} %") } else { format!("{whole}.{rest:02} %") }
}

fn split_unit(text: &str) -> (&str, Option<char>) {
    let text = text.trim();
    match text.strip_suffix(['%', 't']) {
        Some(digits) => (digits.trim_end(), text.chars().next_back()),
        None => (text, None),
    }
}

fn amount(digits: &str, unit: char) -> Option<Amount> {
    let (whole, decimals) = digits.split_once('.').unwrap_or((digits, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || whole.len() > 9 || decimals.len() > 2 || !is_number(whole) || !is_number(decimals) {
        return None;
    }
    if digits.contains('.') && decimals.is_empty() {
        return None;
    }
    let whole: u32 = whole.parse().ok()?;
    if unit == 't' {
        return (decimals.is_empty() && whole <= MAX_TOKENS).then_some(Amount::Tokens(whole));
    }
    let hundredths: u32 = format!("{decimals:0<2}").parse().ok()?;
    // A number far over 100 % is cut to one that still exceeds it.
    Some(Amount::Parts(whole.min(1_000) * 100 + hundredths))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read() {
        let parts = |rate, ceil| Ok(Share { rate: Amount::Parts(rate), ceil: Amount::Parts(ceil) });
        let table = [
            ("5..20 %", parts(500, 2000)),
            ("5..20%", parts(500, 2000)),
            (" 5 .. 20 % ", parts(500, 2000)),
            ("2.5..10 %", parts(250, 1000)),
            ("0.05..100 %", parts(5, 10_000)),
            ("0..100 %", parts(0, 10_000)),
            ("30 %", parts(3000, 3000)),
            ("1..10 t", Ok(Share { rate: Amount::Tokens(1), ceil: Amount::Tokens(10) })),
            ("5 %..10 t", Ok(Share { rate: Amount::Parts(500), ceil: Amount::Tokens(10) })),
            ("1 t..50 %", Ok(Share { rate: Amount::Tokens(1), ceil: Amount::Parts(5000) })),
            ("110..120 %", Err(ShareFault::Rate)),
            ("100..101 %", Err(ShareFault::Ceil)),
            ("20..5 %", Err(ShareFault::Ceil)),
            ("5..100.01 %", Err(ShareFault::Ceil)),
            ("0..0 %", Err(ShareFault::Ceil)),
            ("10..1 t", Err(ShareFault::Ceil)),
            ("1 t..101 %", Err(ShareFault::Ceil)),
            ("-10..20 %", Err(ShareFault::Form)),
            ("5..20", Err(ShareFault::Form)),
            ("5...20 %", Err(ShareFault::Form)),
            ("5.125..20 %", Err(ShareFault::Form)),
            ("5...20 t", Err(ShareFault::Form)),
            ("1.5..2 t", Err(ShareFault::Form)),
            ("1e3..2 t", Err(ShareFault::Form)),
            ("1..2000000 t", Err(ShareFault::Form)),
            ("..5 %", Err(ShareFault::Form)),
            ("%", Err(ShareFault::Form)),
            ("", Err(ShareFault::Form)),
        ];
        for (text, expected) in table {
            assert_eq!(Share::parse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn whole_numbers_never_fall_short_of_the_exact_floor() {
        for percent in 1..=100_u32 {
            for parent in 0..=1_000_u32 {
                assert_eq!(Amount::Parts(percent * 100).of(parent), percent * parent / 100, "{percent} % of {parent}");
            }
        }
        assert_eq!(Amount::Parts(10_000).of(u32::MAX), u32::MAX);
        assert_eq!(Amount::Tokens(10).of(3), 3);
    }
}
