//! The query of a target.

use super::Response;
use percent_encoding::percent_decode_str;

/// Names and values, decoded.
pub(super) struct Query {
    pairs: Vec<(String, String)>,
    text: String,
}

impl Query {
    /// Parses `name=value&…`; a plus is a space.
    pub(super) fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        let read = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(&name.replace('+', " ")), decoded(&value.replace('+', " ")))
        };
        Self { pairs: pairs.map(read).collect(), text: text.to_owned() }
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// All values of a name that may occur several times.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The query as received.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// A whole number; anything else is refused. A number that is too great is `usize::MAX`.
    pub(super) fn number(&self, name: &str) -> Result<Option<usize>, Response> {
        let Some(text) = self.get(name) else { return Ok(None) };
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            let detail = format!("{name}={} has to be a whole number", text.escape_debug());
            return Err(Response::problem(400, &detail));
        }
        Ok(Some(text.parse().unwrap_or(usize::MAX)))
    }
}

/// Decodes a part of a target.
pub(super) fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_decoded() {
        let query = Query::parse("search=a%2Fb+c&page=3&empty&x=%ff&great=99999999999999999999999");
        assert_eq!(query.get("search"), Some("a/b c"));
        let number = |name: &str| query.number(name).map_err(|refusal| refusal.status);
        assert_eq!((number("page"), number("search"), number("none")), (Ok(Some(3)), Err(400), Ok(None)));
        assert_eq!((number("empty"), number("great")), (Err(400), Ok(Some(usize::MAX))));
        assert_eq!(query.get("none"), None);
        assert_eq!((query.get("empty"), query.get("x")), (Some(""), Some("\u{fffd}")));
    }
}
