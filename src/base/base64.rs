//! Base64 of header fields (RFC 4648 section 4).

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Accepts input without padding, and with non-zero bits after the last byte: some senders write both.
const ENGINE: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

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
