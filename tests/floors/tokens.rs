//! Rust as tokens.

/// A name, `::`, or one other character.
pub(crate) struct Token<'t> {
    pub(crate) text: &'t str,
    pub(crate) line: usize,
}

/// The tokens of a file without its comments, strings and characters.
pub(crate) fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let blank_len = blank_len(rest);
        let len = match first {
            _ if blank_len > 0 => blank_len,
            _ if is_name(first) => rest.find(|char| !is_name(char)).unwrap_or(rest.len()),
            ':' if rest.starts_with("::") => 2,
            _ => first.len_utf8(),
        };
        if blank_len == 0 {
            tokens.push(Token { text: &rest[..len], line });
        }
        line += rest[..len].matches('\n').count();
        rest = &rest[len..];
    }
    tokens
}

pub(crate) fn is_name(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

/// The length of the space, comment, string, character or lifetime's mark at the start; 0 where there is none.
fn blank_len(text: &str) -> usize {
    let until = |end: &str, from: usize| text[from..].find(end).map_or(text.len(), |at| from + at + end.len());
    let raw = text.strip_prefix(['b', 'c']).unwrap_or(text).strip_prefix('r').unwrap_or_default();
    let inside_raw = raw.trim_start_matches('#').strip_prefix('"');
    if text.starts_with(char::is_whitespace) {
        text.len() - text.trim_start().len()
    } else if text.starts_with("//") {
        until("\n", 0)
    } else if text.starts_with("/*") {
        block_comment_len(text)
    } else if let Some(inside) = inside_raw {
        let hashes = raw.len() - inside.len() - 1;
        until(&format!("\"{}", "#".repeat(hashes)), text.len() - inside.len())
    } else if text.starts_with('"') {
        quoted_len(text, b'"')
    } else if text.starts_with('\'') {
        let mut chars = text.chars().skip(1);
        let is_char = chars.next() == Some('\\') || chars.next() == Some('\'');
        if is_char { quoted_len(text, b'\'') } else { 1 }
    } else {
        0
    }
}

fn block_comment_len(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        match &text.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn quoted_len(text: &str, quote: u8) -> usize {
    let mut is_escaped = false;
    let inside_len = text.bytes().skip(1).position(|byte| {
        let is_end = byte == quote && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_end
    });
    inside_len.map_or(text.len(), |len| len + 2)
}
