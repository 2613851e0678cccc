//! Formats of a line.

use super::record::{LogRecord, TEXT_BYTES, TEXT_LIMIT_BYTES, append_ip, append_number, append_seconds, append_text};
use super::stamp::Stamps;
use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

/// The greatest number of fields of a template, so that no line exceeds a batch.
const MAX_FIELDS: usize = 32;

/// The greatest length of the texts between the fields, in bytes.
const MAX_LITERAL_BYTES: usize = 4096;

/// The format of a line (`server.accessLogFormat`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Hipache's: the combined format, the identifier of the frontend, and two times.
    #[default]
    Hipache,
    /// Apache's and nginx's combined format.
    Combined,
    /// A JSON object with all fields.
    Json,
    /// A template, with each `$field` replaced.
    Template(Template),
}

/// A text with fields in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Arc<[Piece]>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(Box<str>),
    Field(LogField),
}

/// Why a template is invalid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateError {
    /// No field has this name.
    UnknownField(String),
    /// A `${` has no `}`.
    Unclosed,
    /// It contains a line break or another control character.
    Control,
    /// It has more fields, or longer texts between them, than a line may have.
    TooLong,
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownField(name) => {
                let names: Vec<&str> = LogField::ALL.iter().map(|field| field.name()).collect();
                write!(f, "${name} is no field; the fields are ${}", names.join(", $"))
            }
            Self::Unclosed => f.write_str("a ${ has no }"),
            Self::Control => f.write_str("it has a line break or another control character"),
            Self::TooLong => {
                write!(f, "it has more than {MAX_FIELDS} fields, or {MAX_LITERAL_BYTES} bytes between them")
            }
        }
    }
}

macro_rules! fields {
    ($( $(#[$doc:meta])* $variant:ident = $name:literal; )*) => {
        /// A field of a line.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum LogField {
            $( $(#[$doc])* $variant, )*
        }

        impl LogField {
            const ALL: &'static [Self] = &[$( Self::$variant, )*];

            const fn name(self) -> &'static str {
                match self { $( Self::$variant => $name, )* }
            }
        }
    };
}

fields! {
    /// The end of the request, in UTC (RFC 3339).
    Time = "time";
    /// The same in Apache's format.
    TimeLocal = "time_local";
    /// The value of `X-Request-Id`, as the backend gets it.
    RequestId = "request_id";
    /// The client's address.
    Client = "client";
    /// The method.
    Method = "method";
    /// The requested host.
    Host = "host";
    /// The request target.
    Target = "target";
    /// `HTTP/1.0` or `HTTP/1.1`.
    Protocol = "protocol";
    /// Whether the client's connection is encrypted.
    Tls = "tls";
    /// The version of TLS of the client's connection.
    TlsVersion = "tls_version";
    /// Its cipher suite.
    TlsCipher = "tls_cipher";
    /// The chain of addresses in the `X-Forwarded-For` that the backend gets.
    ForwardedFor = "forwarded_for";
    /// The status.
    Status = "status";
    /// Bytes sent to the client.
    Bytes = "bytes";
    /// Bytes received from the client.
    Received = "received";
    /// Retries: attempts at backends after the first one.
    Retries = "retries";
    /// The value of `Referer`.
    Referer = "referer";
    /// The value of `User-Agent`.
    UserAgent = "user_agent";
    /// The identifier of the frontend.
    Frontend = "frontend";
    /// The pattern whose list serves the host.
    Pattern = "pattern";
    /// The backend chosen last.
    Backend = "backend";
    /// The shaper's bucket of the request.
    Bucket = "bucket";
    /// Why the request failed.
    Reason = "reason";
    /// The time of the request, in seconds.
    Total = "total";
    /// The part of it that the backend took.
    BackendTime = "backend_time";
    /// The wait for an upstream connection.
    Queue = "queue";
    /// The time to open the connection.
    Connect = "connect";
    /// From the connection to the head of the response.
    FirstByte = "first_byte";
}

impl Template {
    /// Parses a text with fields such as `$status` or `${status}`; `$$` is a dollar sign.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        if text.contains(char::is_control) {
            return Err(TemplateError::Control);
        }
        let (mut pieces, mut literal, mut rest) = (Vec::new(), String::new(), text);
        let (mut fields, mut literal_bytes) = (0, 0);
        while let Some(dollar) = rest.find('$') {
            literal.push_str(&rest[..dollar]);
            rest = &rest[dollar + 1..];
            let name = match rest.strip_prefix('{') {
                Some(inside) => {
                    let end = inside.find('}').ok_or(TemplateError::Unclosed)?;
                    rest = &inside[end + 1..];
                    &inside[..end]
                }
                None if rest.starts_with('$') => {
                    literal.push('$');
                    rest = &rest[1..];
                    continue;
                }
                None => {
                    let is_end = |letter: char| !(letter.is_ascii_lowercase() || letter == '_');
                    let end = rest.find(is_end).unwrap_or(rest.len());
                    let name = &rest[..end];
                    rest = &rest[end..];
                    name
                }
            };
            let field = LogField::ALL.iter().find(|field| field.name() == name);
            let field = field.ok_or_else(|| TemplateError::UnknownField(name.to_owned()))?;
            literal_bytes += literal.len();
            pieces.extend((!literal.is_empty()).then(|| Piece::Literal(std::mem::take(&mut literal).into())));
            pieces.push(Piece::Field(*field));
            fields += 1;
        }
        literal.push_str(rest);
        literal_bytes += literal.len();
        pieces.extend((!literal.is_empty()).then(|| Piece::Literal(literal.into())));
        if fields > MAX_FIELDS || literal_bytes > MAX_LITERAL_BYTES {
            return Err(TemplateError::TooLong);
        }
        Ok(Self(pieces.into()))
    }
}

impl Format {
    /// The greatest length of a line in bytes: its values, and the texts between them.
    pub(super) fn line_limit(&self) -> usize {
        const TEXTS: usize = 15;
        match self {
            Self::Hipache | Self::Combined | Self::Json => TEXTS * TEXT_BYTES + 1024,
            Self::Template(Template(pieces)) => {
                let literal = |piece: &Piece| if let Piece::Literal(text) = piece { text.len() } else { TEXT_BYTES };
                pieces.iter().map(literal).sum::<usize>() + 1
            }
        }
    }

    /// Whether a line has more fields than Hipache's.
    pub(super) fn is_detailed(&self) -> bool {
        matches!(self, Self::Json | Self::Template(_))
    }

    /// Appends the line of a record to `out`.
    pub(super) fn append(&self, record: &LogRecord<'_>, out: &mut Vec<u8>, stamps: &mut Stamps) {
        match self {
            Self::Hipache => record.append_to(out, stamps.apache(record.ended), true),
            Self::Combined => record.append_to(out, stamps.apache(record.ended), false),
            Self::Json => append_json(record, out, stamps),
            Self::Template(Template(pieces)) => {
                for piece in &**pieces {
                    match piece {
                        Piece::Literal(text) => out.extend_from_slice(text.as_bytes()),
                        Piece::Field(field) => append_field(*field, record, out, stamps),
                    }
                }
            }
        }
        if !matches!(self, Self::Hipache | Self::Combined) {
            out.push(b'\n');
        }
    }
}

/// The value of a field.
enum Value<'a> {
    Text(Option<&'a [u8]>),
    Number(Option<u64>),
    Seconds(Option<Duration>),
    Flag(bool),
}

fn value_of<'a>(field: LogField, record: &LogRecord<'a>) -> Value<'a> {
    let texts = |text: &'a [u8]| Value::Text(Some(text));
    match field {
        LogField::Method => texts(record.method),
        LogField::Host => Value::Text(record.host),
        LogField::RequestId => Value::Text(record.request_id),
        LogField::Target => texts(record.target),
        LogField::Protocol if record.method.is_empty() => Value::Text(None),
        LogField::Protocol => texts(if record.minor_version == 0 { b"HTTP/1.0" } else { b"HTTP/1.1" }),
        LogField::Tls => Value::Flag(record.is_secure),
        LogField::Status => Value::Number(Some(record.status.into())),
        LogField::Bytes => Value::Number(Some(record.sent_bytes)),
        LogField::TlsVersion => Value::Text(record.tls.map(|(version, _)| version.as_bytes())),
        LogField::TlsCipher => Value::Text(record.tls.map(|(_, cipher)| cipher.as_bytes())),
        LogField::ForwardedFor => Value::Text(record.forwarded_for),
        LogField::Received => Value::Number(record.received_bytes),
        LogField::Retries => Value::Number(record.retries.map(Into::into)),
        LogField::Referer => Value::Text(record.referer),
        LogField::UserAgent => Value::Text(record.user_agent),
        LogField::Frontend => Value::Text(record.frontend_id),
        LogField::Pattern => Value::Text(record.pattern),
        LogField::Backend => Value::Text(record.backend_url.map(str::as_bytes)),
        LogField::Bucket => Value::Text(record.bucket.map(str::as_bytes)),
        LogField::Reason => Value::Text(record.reason.map(str::as_bytes)),
        LogField::Total => Value::Seconds(Some(record.total)),
        LogField::BackendTime => Value::Seconds(record.backend),
        LogField::Queue => Value::Seconds(record.queue),
        LogField::Connect => Value::Seconds(record.connect),
        LogField::FirstByte => Value::Seconds(record.first_byte),
        LogField::Time | LogField::TimeLocal | LogField::Client => Value::Text(None),
    }
}

/// As in Hipache's format, an absent value is `-`.
fn append_field(field: LogField, record: &LogRecord<'_>, out: &mut Vec<u8>, stamps: &mut Stamps) {
    match field {
        LogField::Time => out.extend_from_slice(stamps.rfc3339(record.ended).as_bytes()),
        LogField::TimeLocal => out.extend_from_slice(stamps.apache(record.ended).as_bytes()),
        LogField::Client => append_ip(out, record.client),
        _ => match value_of(field, record) {
            Value::Text(text) => append_text(out, text),
            Value::Number(Some(number)) => append_number(out, number),
            Value::Number(None) => out.push(b'-'),
            Value::Seconds(Some(duration)) => append_seconds(out, duration),
            Value::Seconds(None) => out.push(b'-'),
            Value::Flag(is_set) => out.extend_from_slice(if is_set { b"1" } else { b"0" }),
        },
    }
}

/// Absent values are left out.
fn append_json(record: &LogRecord<'_>, out: &mut Vec<u8>, stamps: &mut Stamps) {
    out.extend_from_slice(b"{\"time\":\"");
    out.extend_from_slice(stamps.rfc3339(record.ended).as_bytes());
    out.extend_from_slice(b"\",\"client\":\"");
    append_ip(out, record.client);
    out.push(b'"');
    for field in LogField::ALL {
        match value_of(*field, record) {
            Value::Text(Some(text)) if !text.is_empty() => {
                append_key(*field, out);
                append_quoted(out, text);
            }
            Value::Number(Some(number)) => {
                append_key(*field, out);
                append_number(out, number);
            }
            Value::Seconds(Some(duration)) => {
                append_key(*field, out);
                append_micros(out, duration);
            }
            Value::Flag(is_set) => {
                append_key(*field, out);
                out.extend_from_slice(if is_set { b"true" } else { b"false" });
            }
            Value::Text(_) | Value::Number(None) | Value::Seconds(None) => {}
        }
    }
    out.push(b'}');
}

fn append_key(field: LogField, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(field.name().as_bytes());
    out.extend_from_slice(b"\":");
}

/// Seconds with six decimals.
fn append_micros(out: &mut Vec<u8>, duration: Duration) {
    append_number(out, duration.as_secs());
    // A digit before the decimals keeps their zeros; the point then replaces it.
    let point = out.len();
    append_number(out, 1_000_000 + duration.subsec_micros());
    out[point] = b'.';
}

/// A JSON string. Invalid UTF-8 is replaced, and a long text is cut.
fn append_quoted(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    let end = out.len() + TEXT_LIMIT_BYTES;
    let mut escaped = String::new();
    for character in String::from_utf8_lossy(text).chars() {
        escaped.clear();
        match character {
            '"' | '\\' => escaped.extend(['\\', character]),
            // Writing to a string cannot fail.
            control if control.is_control() => _ = write!(escaped, "\\u{:04x}", u32::from(control)),
            other => escaped.push(other),
        }
        if out.len() + escaped.len() > end {
            out.extend_from_slice(b"...");
            break;
        }
        out.extend_from_slice(escaped.as_bytes());
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::record;
    use super::*;
    use crate::base::clock::Clock;
    use serde_json::{Value, json};

    fn line(format: &Format, record: &LogRecord<'_>) -> String {
        let mut out = Vec::new();
        format.append(record, &mut out, &mut Stamps::new(Clock::new()));
        String::from_utf8(out).expect("a line is UTF-8")
    }

    #[test]
    fn the_combined_format_ends_behind_the_agent() {
        let line = line(&Format::Combined, &record());
        assert!(
            line.ends_with("] \"GET /x HTTP/1.1\" 200 512 \"http://example.com/\" \"Mozilla/5.0 (X11)\"\n"),
            "{line}"
        );
    }

    #[test]
    fn a_line_of_json_has_what_there_is_and_can_be_read_whatever_came() {
        let bad = LogRecord {
            target: b"/\"\\\n\x01\xff\xc3\xa4",
            referer: None,
            user_agent: Some(b""),
            reason: Some("connect_failed"),
            backend_url: Some("http://10.0.0.1:80"),
            connect: Some(Duration::from_micros(1_000_002)),
            ..record()
        };
        let line = line(&Format::Json, &bad);
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        let mut value: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let time = value["time"].take();
        assert!(time.as_str().is_some_and(|time| time.len() == 20 && time.ends_with('Z')), "{time}");
        let expected = json!({
            "time": null,
            "client": "192.0.2.10",
            "method": "GET",
            "host": "www.example.com",
            "target": "/\"\\\n\u{1}\u{fffd}ä",
            "protocol": "HTTP/1.1",
            "tls": false,
            "status": 200,
            "bytes": 512,
            "frontend": "mywebsite",
            "pattern": "*.example.com",
            "backend": "http://10.0.0.1:80",
            "reason": "connect_failed",
            "total": 1.234_999,
            "backend_time": 0.007,
            "connect": 1.000_002,
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn a_template_is_what_was_written_with_its_fields_replaced() {
        let table = [
            ("$status $bytes", "200 512\n"),
            ("${status}ms$$ $client-x", "200ms$ 192.0.2.10-x\n"),
            ("[$method|$host|$target|$protocol|$tls]", "[GET|www.example.com|/x|HTTP/1.1|0]\n"),
            ("$reason $queue $total $backend_time $backend", "- - 1.234 0.007 -\n"),
            ("constant", "constant\n"),
        ];
        for (text, expected) in table {
            let template = Template::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(line(&Format::Template(template), &record()), expected, "{text}");
        }
    }

    #[test]
    fn invalid_templates_are_reported() {
        let table = [
            ("$stauts", TemplateError::UnknownField("stauts".to_owned())),
            ("$", TemplateError::UnknownField(String::new())),
            ("${status", TemplateError::Unclosed),
            ("a\nb", TemplateError::Control),
        ];
        for (text, expected) in table {
            assert_eq!(Template::parse(text), Err(expected), "{text}");
        }
        assert_eq!(Template::parse(&"$status".repeat(33)), Err(TemplateError::TooLong));
        assert_eq!(Template::parse(&"x".repeat(4097)), Err(TemplateError::TooLong));
        assert!(Template::parse(&"$status".repeat(32)).is_ok());
    }

    #[test]
    fn no_line_is_longer_than_a_batch_has_room_for() {
        let long = [b'"'; 100_000];
        let record = LogRecord {
            method: &long,
            target: &long,
            host: Some(&long),
            referer: Some(&long),
            user_agent: Some(&long),
            frontend_id: Some(&long),
            pattern: Some(&long),
            ..record()
        };
        let longest = "x".repeat(4096) + &"$target".repeat(32);
        let template = Format::Template(Template::parse(&longest).expect("a template"));
        for format in [Format::Json, template] {
            assert!(line(&format, &record).len() <= format.line_limit());
        }
    }
}
