//! Base64 of header fields (RFC 4648 section 4), and its form for URLs (section 5).

use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::general_purpose::{STANDARD as WITH_PADDING, URL_SAFE_NO_PAD};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Accepts input without padding, and with non-zero bits after the last byte: some senders write both.
const ENGINE: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Requires the padding of each form: that of section 4 has some, that for URLs has none.
const STRICT: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));
const STRICT_URL: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

/// Appends the Base64 of `bytes` to `out`: with padding, or in the form for URLs without it.
pub fn encode(bytes: &[u8], for_url: bool, out: &mut Vec<u8>) {
    let text = if for_url { URL_SAFE_NO_PAD.encode(bytes) } else { WITH_PADDING.encode(bytes) };
    out.extend_from_slice(text.as_bytes());
}

/// Appends the decoded bytes of `text` to `out`. `None` if the text is not Base64 with padding, or in the form for URLs
/// without it.
pub fn decode_strictly(text: &[u8], for_url: bool, out: &mut Vec<u8>) -> Option<()> {
    if for_url { STRICT_URL.decode_vec(text, out).ok() } else { STRICT.decode_vec(text, out).ok() }
}

/// Appends the decoded bytes of `text` to `out`. `None` if the text is not Base64.
pub fn decode(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    ENGINE.decode_vec(text, out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_decoded_with_padding_and_without() {
        let table = [
            ("dXNlcjpwYXNz", Some("user:pass")),
            ("dTo=", Some("u:")),
            ("dTo", Some("u:")),
            ("dQ==", Some("u")),
            ("dR==", Some("u")),
            ("", Some("")),
            ("d*==", None),
            ("dTo=dTo=", None),
            ("d", None),
            ("dTo -_", None),
        ];
        for (text, expected) in table {
            let mut out = Vec::new();
            let decoded = decode(text.as_bytes(), &mut out).map(|()| String::from_utf8_lossy(&out).into_owned());
            assert_eq!(decoded.as_deref(), expected, "{text}");
        }
    }
}
