//! `Vary`: the fields of a request that a response was selected by (RFC 9111 section 4.1).

use super::fields::{Fields, list};

/// The most fields that a response may vary by. One that names more is not stored.
pub const MOST_FIELDS: usize = 16;

/// The most bytes of a request's selecting fields. A response to one that has more is not stored.
pub const MOST_BYTES: usize = 2048;

/// The selecting fields of a stored response, with the values that the request had.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variant {
    /// Names in small letters, sorted, each with the normalised value; `None` where the request lacked the field.
    fields: Box<[SelectingField]>,
}

type SelectingField = (Box<str>, Option<Box<[u8]>>);

/// The reason why a response has no variant that can be selected again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VaryFault {
    /// `Vary: *`: nothing that the cache knows selects the response.
    Any,
    /// More fields than [`MOST_FIELDS`], more bytes than [`MOST_BYTES`], or a name that is no text.
    TooMuch,
}

impl Variant {
    /// The variant that a request selected.
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
        let fields: Box<[_]> = names.into_iter().map(|name| (normalised(request, &name), name)).map(swap).collect();
        let bytes: usize = fields.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, |v| v.len())).sum();
        if bytes > MOST_BYTES { Err(VaryFault::TooMuch) } else { Ok(Self { fields }) }
    }

    /// Whether a request selects this variant.
    pub fn is_selected_by(&self, request: Fields<'_>) -> bool {
        self.fields.iter().all(|(name, value)| match value {
            None => !request.has(name),
            // Mostly the bytes are equal, and there is nothing to normalise.
            Some(value) => request.only(name) == Some(value) || normalised(request, name).as_deref() == Some(value),
        })
    }

    /// Writes the part of a key that tells requests of this kind of variant apart, for the collapse of fills.
    pub fn write_selection(&self, request: Fields<'_>, out: &mut Vec<u8>) {
        for (name, _) in &self.fields {
            out.extend_from_slice(name.as_bytes());
            match normalised(request, name) {
                Some(value) => {
                    out.push(b'=');
                    out.extend_from_slice(&value);
                }
                None => out.push(b'-'),
            }
            out.push(0);
        }
    }

    /// The memory that it takes, in bytes.
    pub fn size(&self) -> usize {
        self.fields.iter().map(|(name, value)| 64 + name.len() + value.as_ref().map_or(0, |v| v.len())).sum()
    }
}

fn swap<A, B>((a, b): (A, B)) -> (B, A) {
    (b, a)
}

/// The value of a field in one form: the lines joined, without white space around the members. In fields of content
/// negotiation case, order and repetition have no meaning, so they get one form too.
fn normalised(request: Fields<'_>, name: &str) -> Option<Box<[u8]>> {
    if !request.has(name) {
        return None;
    }
    let mut members: Vec<Vec<u8>> = request.values(name).flat_map(list).map(<[u8]>::to_vec).collect();
    if matches!(name, "accept" | "accept-charset" | "accept-encoding" | "accept-language") {
        for member in &mut members {
            member.make_ascii_lowercase();
            member.retain(|byte| !matches!(byte, b' ' | b'\t'));
        }
        members.sort_unstable();
        members.dedup();
    }
    Some(members.join(&b", "[..]).into())
}
