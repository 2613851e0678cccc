//! Secret texts, and the parts of a text that may be shown in a log or on a terminal.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

/// Replaces the hidden part.
const MASK: &str = "***";

/// A text of at least this many letters, all of Base64's alphabet and without a dot or a slash, is treated as a key: 44
/// letters are 32 bytes.
const MIN_KEY_LETTERS: usize = 44;

/// The longest path that Linux accepts (PATH_MAX), in bytes.
const MAX_PATH_BYTES: usize = 4096;

/// A text that is never shown: neither `Debug` nor an error prints it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// The text.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// A URL, valid or malformed, without any part that may be a password. A URL with an `@` is cut to its scheme, since
/// the end of the password is uncertain. Otherwise an invalid port is cut, and so is a query.
pub fn redact_url(text: &str) -> Cow<'_, str> {
    let start = scheme_end(text);
    let rest = &text[start..];
    if rest.contains('@') || rest.contains("%40") {
        return format!("{}{MASK}", &text[..start]).into();
    }
    let host_end = if rest.starts_with('[') { rest.find(']').unwrap_or(0) } else { 0 };
    if let Some(colon) = rest[host_end..].find(':').map(|colon| host_end + colon + 1) {
        let port = &rest[colon..];
        let port = &port[..port.find(['/', '?', '#']).unwrap_or(port.len())];
        if !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return format!("{}{MASK}", &text[..start + colon]).into();
        }
    }
    match rest.find('?') {
        Some(query) => format!("{}{MASK}", &text[..=start + query]).into(),
        None => text.into(),
    }
}

/// The identifier of a list in its displayed form. A URL with a password, put there by mistake, is cut.
pub fn redact_identifier(text: &str) -> Cow<'_, str> {
    let is_url = text.contains("//") || (text.contains('@') && text.contains(':'));
    if is_url { redact_url(text) } else { text.into() }
}

/// Length of `scheme://` at the start; 0 if there is none.
fn scheme_end(text: &str) -> usize {
    let Some(end) = text.find("://") else { return 0 };
    let is_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    // The longest scheme is `redis+sentinel`.
    if end <= 16 && text[..end].bytes().all(is_scheme) { end + 3 } else { 0 }
}

/// Whether a text may be the path of a file, and so may be shown. A key or certificate pasted in its place may not,
/// even if its line breaks were lost.
pub fn is_path(text: &str) -> bool {
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/= ".contains(&byte);
    let is_key = !text.starts_with('/') && text.len() >= MIN_KEY_LETTERS && text.bytes().all(is_base64);
    let is_pem = text.contains("-----") || text.contains("BEGIN ") || text.contains("\\n");
    !(text.is_empty() || text.len() > MAX_PATH_BYTES || text.contains(char::is_control) || is_pem || is_key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_shown_without_what_may_be_a_password() {
        let table = [
            ("http://10.0.0.1:80/path", "http://10.0.0.1:80/path"),
            ("https://[::1]:8443", "https://[::1]:8443"),
            ("http://host", "http://host"),
            ("nonsense", "nonsense"),
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("http://user:secret@host:80", "http://***"),
            ("http://user:se@cret", "http://***"),
            ("http://user%40secret:x", "http://***"),
            ("http:/user:secret@host", "***"),
            ("user:secret@host", "***"),
            ("user:secret", "user:***"),
            ("http://user:secret/", "http://user:***"),
            ("http://host:80a", "http://host:***"),
            ("http://[::1]:secret", "http://[::1]:***"),
            ("http://host/?token=secret", "http://host/?***"),
            ("redis+sentinel://:secret@host", "redis+sentinel://***"),
        ];
        for (text, expected) in table {
            assert_eq!(redact_url(text), expected, "{text}");
        }
    }

    #[test]
    fn an_identifier_is_shown_unless_it_is_a_url_with_a_password() {
        let table = [
            ("my website", "my website"),
            ("team@example", "team@example"),
            ("http://10.0.0.1:80", "http://10.0.0.1:80"),
            ("http://user:secret@10.0.0.1", "http://***"),
            ("user:secret@10.0.0.1", "***"),
        ];
        for (text, expected) in table {
            assert_eq!(redact_identifier(text), expected, "{text}");
        }
    }

    #[test]
    fn a_pasted_key_is_no_path() {
        let line = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg";
        let good = ["a.key", "/etc/ssl/private/a.key", "../keys/my key.pem", "C:\\keys", "short"];
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{line}\n-----END PRIVATE KEY-----");
        let bad =
            [String::new(), pem.replace('\n', "\\n"), pem.replace('\n', " "), line.into(), format!("{line}\n"), pem];
        assert!(good.iter().all(|text| is_path(text)));
        for text in bad {
            assert!(!is_path(&text), "{text:?}");
        }
    }

    #[test]
    fn a_secret_is_not_printed() {
        assert_eq!(format!("{:?}", Some(Secret::from("hunter2"))), "Some(***)");
    }
}
