//! Foreign text on one line of a log or a terminal.

use std::borrow::Cow;

/// The text with its control characters and Unicode's line separators escaped, so no input ends a line or moves a
/// cursor.
pub fn printable(text: &str) -> Cow<'_, str> {
    let is_escaped = |char: char| char.is_control() || matches!(char, '\u{2028}' | '\u{2029}');
    if !text.contains(is_escaped) {
        return text.into();
    }
    text.chars()
        .fold(String::with_capacity(text.len() + 8), |mut out, char| {
            if is_escaped(char) {
                out.extend(char.escape_default())
            } else {
                out.push(char)
            }
            out
        })
        .into()
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn control_characters_become_visible() {
        for (text, expected) in
            [("a \\ \"é\"", "a \\ \"é\""), ("a\r\nb\0", "a\\r\\nb\\u{0}"), ("\u{9b}31m\u{2028}", "\\u{9b}31m\\u{2028}")]
        {
            assert_eq!(printable(text), expected);
        }
    }
}
