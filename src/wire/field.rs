//! Names of header fields with a meaning to a proxy, and lists in their values.

use super::HeadFault;

/// Fields that this node acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Field {
    /// Any other field, forwarded unchanged.
    Other,
    Connection,
    ContentLength,
    Expect,
    Forwarded,
    Host,
    KeepAlive,
    MaxForwards,
    /// A field without a purpose, which CGI turns into the variable that programs read as their proxy ("httpoxy").
    Proxy,
    ProxyConnection,
    Referer,
    RetryAfter,
    Te,
    TransferEncoding,
    Upgrade,
    UserAgent,
    Via,
    XDebug,
    ClientSubject,
    XForwardedFor,
    XForwardedPort,
    XForwardedProto,
    XForwardedProtocol,
    XRealIp,
    XRequestId,
    XRequestStart,
    /// A name that equals a known one for a reader that treats other characters as a hyphen, as CGI does.
    HyphenVariant,
    /// A field named by `Connection`: it ends at this hop.
    ConnectionOption,
}

impl Field {
    /// The field with this name, which is a token.
    #[inline]
    pub(super) fn of(name: &str) -> Self {
        KnownField::candidate(name.as_bytes()).map_or(Self::Other, |known| known.compare(name.as_bytes()))
    }

    /// Whether `Connection` may remove this field. It may not remove framing, routing, `Via`, or what a proxy in front
    /// has said of the client (RFC 9110 section 7.6.1 forbids to name end-to-end fields).
    pub(super) fn may_be_named(self) -> bool {
        matches!(self, Self::Other | Self::Proxy | Self::Referer | Self::UserAgent | Self::RetryAfter)
    }
}

/// A known name.
struct KnownField {
    name: &'static str,
    field: Field,
    words: [u64; 3],
}

impl KnownField {
    const fn new(name: &'static str, field: Field) -> Self {
        Self { name, field, words: folded(name.as_bytes()) }
    }

    /// The only known name that this one can equal: length and last letter select one, and mostly none.
    #[inline]
    fn candidate(name: &[u8]) -> Option<&'static Self> {
        let place = SLOTS.get(name.len())?.get(usize::from(name.last()? & LETTER))?;
        KNOWN.get(usize::from(*place))
    }

    /// The field of a name that has the length of this one.
    fn compare(&self, name: &[u8]) -> Field {
        if are_equal(folded(name), self.words) {
            self.field
        } else if is_hyphen_variant(name, self.name.as_bytes()) {
            Field::HyphenVariant
        } else {
            Field::Other
        }
    }
}

/// The known names.
static KNOWN: [KnownField; 25] = [
    KnownField::new("Connection", Field::Connection),
    KnownField::new("Content-Length", Field::ContentLength),
    KnownField::new("Expect", Field::Expect),
    KnownField::new("Forwarded", Field::Forwarded),
    KnownField::new("Host", Field::Host),
    KnownField::new("Keep-Alive", Field::KeepAlive),
    KnownField::new("Max-Forwards", Field::MaxForwards),
    KnownField::new("Proxy", Field::Proxy),
    KnownField::new("Proxy-Connection", Field::ProxyConnection),
    KnownField::new("Referer", Field::Referer),
    KnownField::new("Retry-After", Field::RetryAfter),
    KnownField::new("TE", Field::Te),
    KnownField::new("Transfer-Encoding", Field::TransferEncoding),
    KnownField::new("Upgrade", Field::Upgrade),
    KnownField::new("User-Agent", Field::UserAgent),
    KnownField::new("Via", Field::Via),
    KnownField::new("X-Debug", Field::XDebug),
    KnownField::new(CLIENT_SUBJECT, Field::ClientSubject),
    KnownField::new("X-Forwarded-For", Field::XForwardedFor),
    KnownField::new("X-Forwarded-Port", Field::XForwardedPort),
    KnownField::new("X-Forwarded-Proto", Field::XForwardedProto),
    KnownField::new("X-Forwarded-Protocol", Field::XForwardedProtocol),
    KnownField::new("X-Real-IP", Field::XRealIp),
    KnownField::new("X-Request-Id", Field::XRequestId),
    KnownField::new("X-Request-Start", Field::XRequestStart),
];

/// The field that passes the subject of a client's certificate to backends.
pub const CLIENT_SUBJECT: &str = "X-SSL-Client-S-DN";

/// Length of the longest known name.
const LONGEST_KNOWN: usize = 20;

/// The bits that distinguish letters, regardless of case.
const LETTER: u8 = 0x1f;

/// Number of distinct values of [`LETTER`].
const LETTERS: usize = LETTER as usize + 1;

/// No index in [`KNOWN`].
const NOWHERE: u8 = u8::MAX;

/// The index in [`KNOWN`] of the one name with a given length and last letter.
static SLOTS: Slots = slots();

/// Indexed by length and by last letter.
type Slots = [[u8; LETTERS]; LONGEST_KNOWN + 1];

#[expect(clippy::indexing_slicing, reason = "the compiler evaluates it, and would refuse")]
const fn slots() -> Slots {
    let mut slots: Slots = [[NOWHERE; LETTERS]; LONGEST_KNOWN + 1];
    let mut place = 0;
    while place < KNOWN.len() {
        let name = KNOWN[place].name.as_bytes();
        let slot = &mut slots[name.len()][(name[name.len() - 1] & LETTER) as usize];
        assert!(*slot == NOWHERE, "two names of one length that end alike");
        *slot = place.to_le_bytes()[0];
        place += 1;
    }
    slots
}

/// Whether two tokens are equal, regardless of case.
#[inline]
fn is_same(token: &[u8], known: &[u8]) -> bool {
    token.len() == known.len() && are_equal(folded(token), folded(known))
}

/// The comparison of arrays would wait for the words to be stored.
#[inline]
fn are_equal(some: [u64; 3], other: [u64; 3]) -> bool {
    let ([a, b, c], [x, y, z]) = (some, other);
    (a ^ x) | (b ^ y) | (c ^ z) == 0
}

/// The bytes of a token, 24 at the most, as overlapping words without the bit of the case. A token has no control
/// characters, so no other character folds to a letter or a hyphen: a token with the words of a name made of letters
/// and hyphens is that name.
#[inline]
const fn folded(token: &[u8]) -> [u64; 3] {
    const CASE: u64 = u64::from_le_bytes([0x20; 8]);
    let [first, middle, last] = if let (Some(first), Some(last)) = (token.first_chunk::<8>(), token.last_chunk::<8>()) {
        let middle = match token.split_at(8).1.first_chunk::<8>() {
            Some(middle) => middle,
            None => last,
        };
        [u64::from_le_bytes(*first), u64::from_le_bytes(*middle), u64::from_le_bytes(*last)]
    } else if let (Some(first), Some(last)) = (token.first_chunk::<4>(), token.last_chunk::<4>()) {
        [u32::from_le_bytes(*first) as u64, 0, u32::from_le_bytes(*last) as u64]
    } else if let (Some(first), Some(last)) = (token.first_chunk::<2>(), token.last_chunk::<2>()) {
        [u16::from_le_bytes(*first) as u64, 0, u16::from_le_bytes(*last) as u64]
    } else if let Some(byte) = token.first() {
        [*byte as u64, 0, 0]
    } else {
        [0; 3]
    };
    [first | CASE, middle | CASE, last | CASE]
}

/// Whether this name, which has the length of the known one, would equal it if its other characters were hyphens. Many
/// backends turn a name into a variable, with `_` for a hyphen, and some for any character that is neither a letter nor
/// a digit (RFC 3875 section 4.1.18). They would trust a forged field with another character there.
fn is_hyphen_variant(name: &[u8], known: &[u8]) -> bool {
    name.iter().zip(known).all(|(byte, known)| match known {
        b'-' => !byte.is_ascii_alphanumeric(),
        letter => byte.eq_ignore_ascii_case(letter),
    })
}

/// Whether some backend reads a name as this known one, which is in lower case: any character that is neither a letter
/// nor a digit counts as a hyphen.
pub fn is_read_as(name: &str, known: &str) -> bool {
    name.len() == known.len() && is_hyphen_variant(name.as_bytes(), known.as_bytes())
}

/// The greatest number of options in the `Connection` fields of one head. Each option is searched among all lines, and
/// no client needs more.
const MOST_OPTIONS: u8 = 32;

/// The options in the `Connection` fields of one head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Connection {
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
    /// Other fields are named: they end at this hop.
    pub(super) names_fields: bool,
    options: u8,
}

impl Connection {
    /// Adds the options of one more `Connection` field.
    pub(super) fn read(&mut self, value: &[u8]) -> Result<(), HeadFault> {
        // Most fields have a single option, so there is nothing to split.
        if self.take_option(value) {
            return self.count_option();
        }
        for option in list(value) {
            self.count_option()?;
            self.names_fields |= !self.take_option(option);
        }
        Ok(())
    }

    /// Takes an option that is not the name of a field; returns whether it is one.
    fn take_option(&mut self, option: &[u8]) -> bool {
        let flag = match option.len() {
            5 if is_same(option, b"close") => &mut self.close,
            10 if is_same(option, b"keep-alive") => &mut self.keep_alive,
            7 if is_same(option, b"upgrade") => &mut self.upgrade,
            _ => return false,
        };
        *flag = true;
        true
    }

    fn count_option(&mut self) -> Result<(), HeadFault> {
        self.options += 1;
        if self.options > MOST_OPTIONS { Err(HeadFault::Malformed) } else { Ok(()) }
    }
}

/// Whether a byte is allowed in a token (RFC 9110 section 5.6.2).
pub(super) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether this is a token, such as the name of a field, a method or a cookie.
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| is_token_byte(*byte))
}

/// The members of a comma-separated list (RFC 9110 section 5.6.1), without the empty ones.
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

/// The greatest number of digits: any such number fits into 63 bits, the range of recipients that count with signed
/// integers.
const MOST_DIGITS: usize = 18;

/// A number of digits alone, in the range that all recipients support. Leading zeros have no meaning (RFC 9110 section
/// 8.6 is `1*DIGIT`).
pub(super) fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    let digits = if digits.len() > MOST_DIGITS { without_zeros(digits) } else { digits };
    if digits.len() > MOST_DIGITS {
        return None;
    }
    digits.iter().try_fold(0, |number, digit| {
        let digit = digit.wrapping_sub(b'0');
        (digit < 10).then(|| number * 10 + u64::from(digit))
    })
}

/// The digits of a number without leading zeros.
#[cold]
pub(super) fn without_zeros(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    digits.get(zeros..).unwrap_or_default()
}

/// The values of the cookies with this name in one `Cookie` field.
pub fn cookies<'a>(value: &'a [u8], name: &str) -> impl Iterator<Item = &'a [u8]> {
    let pairs = value.split(|byte| *byte == b';');
    pairs.filter_map(move |pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

/// Writes a number.
pub fn put_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Writes `name: value` and CRLF.
pub fn put(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::super::field_lines::{self, FieldLines};
    use super::*;
    use httparse::Header;

    /// The kinds of the lines of a head.
    fn kinds(fields: &[Header<'_>]) -> Result<(Connection, Vec<Field>), HeadFault> {
        let mut head = b"GET / HTTP/1.1\r\n".to_vec();
        fields.iter().for_each(|field| put(&mut head, field.name, field.value));
        head.extend_from_slice(b"\r\n");
        let mut room = field_lines::fields();
        let mut request = httparse::Request::new(&mut []);
        request.parse_with_uninit_headers(&head, &mut room.headers).expect("a good head");
        let mut lines = FieldLines::new(&head, request.headers, &mut room.marks);
        assert!(lines.read(0), "good lines");
        let mut connection = Connection::default();
        lines.of(Field::Connection).try_for_each(|header| connection.read(header.value))?;
        lines.mark_named();
        let kind = |header| lines.known().find(|(_, known)| std::ptr::eq(*known, header));
        let kinds = request.headers.iter().map(|header| kind(header).map_or(Field::Other, |(kind, _)| kind));
        Ok((connection, kinds.collect()))
    }

    #[test]
    fn connection_options() {
        let fields = [
            Header { name: "x-secret", value: b"1" },
            Header { name: "Connection", value: b" X-Secret , close,, Content-Length" },
            Header { name: "X-Other", value: b"1" },
            Header { name: "Content-Length", value: b"1" },
        ];
        let (connection, kinds) = kinds(&fields).expect("a good head");
        assert!(connection.close && !connection.keep_alive && connection.names_fields);
        assert_eq!(
            kinds,
            [Field::ConnectionOption, Field::Connection, Field::Other, Field::ContentLength],
            "framing stays"
        );
    }

    #[test]
    fn options_have_an_end() {
        let options = |count: usize| vec!["x"; count].join(",");
        for (first, second, is_good) in [(32, 0, true), (33, 0, false), (16, 16, true), (16, 17, false)] {
            let values = [options(first), options(second)];
            let fields = values.each_ref().map(|value| Header { name: "Connection", value: value.as_bytes() });
            assert_eq!(kinds(&fields).is_ok(), is_good, "{first} and {second}");
        }
        let empty = ",".repeat(60_000);
        assert!(kinds(&[Header { name: "Connection", value: empty.as_bytes() }]).is_ok(), "none at all");
    }

    #[test]
    fn numbers_fit_in_everywhere() {
        assert_eq!(number(b"999999999999999999"), Some(999_999_999_999_999_999));
        assert_eq!(number(b"00000000000000000000000000000000000005"), Some(5));
        assert_eq!(number("0".repeat(60).as_bytes()), Some(0));
        for text in [
            "1000000000000000000",
            "01000000000000000000",
            "0000000000000000000x",
            "9223372036854775807",
            "9223372036854775808",
            "",
            "+1",
        ] {
            assert_eq!(number(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn names_are_recognised_in_any_case_and_hyphen_variants_are_detected() {
        for KnownField { name, field, .. } in &KNOWN {
            for same in [(*name).to_owned(), name.to_ascii_lowercase(), name.to_ascii_uppercase()] {
                assert_eq!(Field::of(&same), *field, "{same}");
            }
            for (place, own) in name.bytes().enumerate() {
                for byte in (b'!'..=b'~').filter(|byte| is_token_byte(*byte)) {
                    let mut other = name.as_bytes().to_vec();
                    other[place] = byte;
                    let expected = match own {
                        _ if own.eq_ignore_ascii_case(&byte) => *field,
                        b'-' if !byte.is_ascii_alphanumeric() => Field::HyphenVariant,
                        _ => Field::Other,
                    };
                    let other = String::from_utf8(other).expect("ASCII");
                    assert_eq!(Field::of(&other), expected, "{other}");
                }
            }
        }
        for name in ["X_Forwarded_For", "x-forwarded.for", "USER~AGENT", "X_SSL_Client-S.DN"] {
            assert_eq!(Field::of(name), Field::HyphenVariant, "{name}");
        }
        for name in ["A", "Accept", "Set-Cookie", "X-Forwarded-Host", "x--debug", "-e", "t-", "X-Forwarded-Protocols"] {
            assert_eq!(Field::of(name), Field::Other, "{name}");
        }
    }
}
