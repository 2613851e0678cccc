//! `Vary`: the request fields by which a response was selected (RFC 9111 section 4.1).

use super::fields::{Fields, list};
use serde::{Deserialize, Serialize};

/// The greatest number of fields of a `Vary`. A response that names more is not stored.
pub const MOST_FIELDS: usize = 16;

/// The greatest total length of a request's selecting fields in bytes. A request with more selects no variant, and its
/// response is not stored.
pub const MOST_BYTES: usize = 2048;

/// The selecting fields of a stored response, with the values of its request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variant {
    /// Names in lower case, sorted, each with the normalised value; `None` if the request lacked the field.
    fields: Box<[SelectingField]>,
}

type SelectingField = (Box<str>, Option<Box<[u8]>>);

/// Why a response has no variant that can be selected again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VaryFault {
    /// `Vary: *`: the selection is unknown.
    Any,
    /// There are more fields than [`MOST_FIELDS`], or an invalid name.
    TooMuch,
    /// The request has more than [`MOST_BYTES`] in these fields.
    LongRequest,
}

impl Variant {
    /// The variant for a request.
    pub fn of(response: Fields<'_>, request: Fields<'_>) -> Result<Self, VaryFault> {
        let mut names: Vec<Box<str>> = Vec::new();
        for member in response.members("vary") {
            if member == b"*" {
                return Err(VaryFault::Any);
            }
            let name = std::str::from_utf8(member).map_err(|_| VaryFault::TooMuch)?.to_ascii_lowercase().into();
            if !names.contains(&name) {
                names.push(name);
            }
            if names.len() > MOST_FIELDS {
                return Err(VaryFault::TooMuch);
            }
        }
        names.sort_unstable();
        let mut fields = Vec::with_capacity(names.len());
        let mut bytes = 0;
        for name in names {
            let value = match Value::of(request, &name) {
                Value::Absent => None,
                Value::TooLong => return Err(VaryFault::LongRequest),
                Value::Is(value) => Some(value),
            };
            bytes += name.len() + value.as_ref().map_or(0, |value| value.len());
            fields.push((name, value));
        }
        if bytes > MOST_BYTES { Err(VaryFault::LongRequest) } else { Ok(Self { fields: fields.into() }) }
    }

    /// Whether a request selects this variant.
    pub fn is_selected_by(&self, request: &mut RequestValues<'_>) -> bool {
        self.fields.iter().all(|(name, value)| request.has(name, value.as_deref()))
    }

    /// Writes the part of a key that distinguishes requests for variants of this kind, for collapsed forwarding.
    /// Returns whether the request can select one at all.
    pub fn write_selection(&self, request: &mut RequestValues<'_>, out: &mut Vec<u8>) -> bool {
        for (name, _) in &self.fields {
            out.extend_from_slice(name.as_bytes());
            match request.value(name) {
                Value::Is(value) => {
                    out.push(b'=');
                    out.extend_from_slice(value);
                }
                Value::Absent => out.push(b'-'),
                Value::TooLong => return false,
            }
            out.push(0);
        }
        true
    }

    /// The fields as bytes: those of two variants are equal where the variants are.
    pub fn to_bytes(&self) -> Vec<u8> {
        postcard::to_allocvec(self).unwrap_or_default()
    }

    /// Memory in bytes.
    pub fn size(&self) -> usize {
        self.fields.iter().map(|(name, value)| 64 + name.len() + value.as_ref().map_or(0, |v| v.len())).sum()
    }
}

/// The values by which one request selects variants. Each value is normalised once, however many variants are compared.
#[derive(Debug)]
pub struct RequestValues<'a> {
    fields: Fields<'a>,
    known: Vec<(Box<str>, Value)>,
}

/// The normalised value of a request field.
#[derive(Debug)]
enum Value {
    Absent,
    /// Longer than [`MOST_BYTES`]: it is not examined.
    TooLong,
    Is(Box<[u8]>),
}

impl<'a> RequestValues<'a> {
    /// The values of a request with these fields. Normalisation happens on demand.
    pub fn of(fields: Fields<'a>) -> Self {
        Self { fields, known: Vec::new() }
    }

    /// Whether the field has this normalised value, or is absent.
    fn has(&mut self, name: &str, wanted: Option<&[u8]>) -> bool {
        match wanted {
            None => !self.fields.has(name),
            // Mostly the bytes are equal, and need no normalisation.
            Some(wanted) if self.fields.only(name) == Some(wanted) => true,
            Some(wanted) => matches!(self.value(name), Value::Is(value) if **value == *wanted),
        }
    }

    fn value(&mut self, name: &str) -> &Value {
        let known = self.known.iter().position(|(known, _)| **known == *name);
        let place = known.unwrap_or_else(|| {
            self.known.push((name.into(), Value::of(self.fields, name)));
            self.known.len() - 1
        });
        self.known.get(place).map_or(&Value::Absent, |(_, value)| value)
    }
}

impl Value {
    /// The normalised value of a field. Only in fields of content negotiation it is known which differences have no
    /// meaning: case, white space, repetition and order. But if two languages have equal quality, many servers prefer
    /// the first. The value of any other field is unchanged, several lines joined as one list (RFC 9110 section 5.3): a
    /// backend may distinguish lists that are equal.
    fn of(request: Fields<'_>, name: &str) -> Self {
        if !request.has(name) {
            return Self::Absent;
        }
        let bytes: usize = request.values(name).map(<[u8]>::len).sum();
        if bytes > MOST_BYTES {
            return Self::TooLong;
        }
        let members = || request.values(name).flat_map(list).map(negotiated);
        let value = match name {
            "accept" | "accept-charset" | "accept-encoding" => {
                let mut members: Vec<_> = members().collect();
                members.sort_unstable();
                members.dedup();
                members.join(&b", "[..])
            }
            "accept-language" => {
                let mut members: Vec<_> = members().collect();
                members.sort_by_key(|member| std::cmp::Reverse(quality(member)));
                members.join(&b", "[..])
            }
            _ => request.values(name).map(<[u8]>::trim_ascii).collect::<Vec<_>>().join(&b", "[..]),
        };
        Self::Is(value.into())
    }
}

/// A member of a content negotiation field in lower case, without white space; unchanged if it has a quoted string.
fn negotiated(member: &[u8]) -> Vec<u8> {
    let mut member = member.to_vec();
    if !member.contains(&b'"') {
        member.make_ascii_lowercase();
        member.retain(|byte| !matches!(byte, b' ' | b'\t'));
    }
    member
}

/// The quality of a normalised member in thousandths (RFC 9110 section 12.4.2); the greatest if none is stated.
fn quality(member: &[u8]) -> u16 {
    let stated = member.split(|byte| *byte == b';').skip(1).find_map(|parameter| parameter.strip_prefix(b"q="));
    match stated {
        Some([b'0']) => 0,
        Some([b'0', b'.', digits @ ..]) if digits.len() <= 3 && digits.iter().all(u8::is_ascii_digit) => {
            let value = digits.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
            match digits.len() {
                0 => 0,
                1 => value * 100,
                2 => value * 10,
                _ => value,
            }
        }
        _ => 1000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use httparse::Header;

    /// A request costs little, however many variants are compared and however long its values are.
    #[test]
    fn values_are_normalised_once_and_long_ones_never() {
        let vary = [Header { name: "Vary", value: b"Accept-Encoding" }];
        let variant = |number: usize| {
            let value = format!("a{number}");
            let request = [Header { name: "Accept-Encoding", value: value.as_bytes() }];
            Variant::of(Fields(&vary), Fields(&request)).expect("a variant")
        };
        let variants: Vec<Variant> = (0..32).map(variant).collect();
        for (count, is_long) in [(1000, false), (1025, true), (30_000, true)] {
            let value = "a,".repeat(count);
            let request = [Header { name: "Accept-Encoding", value: value.as_bytes() }];
            let mut values = RequestValues::of(Fields(&request));
            assert!(!variants.iter().any(|variant| variant.is_selected_by(&mut values)), "{count}");
            assert_eq!(values.known.len(), 1, "{count}");
            assert_eq!(matches!(values.value("accept-encoding"), Value::TooLong), is_long, "{count}");
        }
    }
}
