//! The query of a target.

use percent_encoding::percent_decode_str;

/// Names and values, decoded.
pub(super) struct Query {
    pairs: Vec<(String, String)>,
    text: String,
}

impl Query {
    /// Reads `name=value&…`, in which a plus is a space.
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

    /// The query as it came.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn number(&self, name: &str) -> Option<usize> {
        self.get(name)?.parse().ok()
    }
}

/// A part of a target as it was meant.
pub(super) fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_decoded() {
        let query = Query::parse("search=a%2Fb+c&page=3&empty&x=%ff");
        assert_eq!(query.get("search"), Some("a/b c"));
        assert_eq!((query.number("page"), query.number("search"), query.get("none")), (Some(3), None, None));
        assert_eq!((query.get("empty"), query.get("x")), (Some(""), Some("\u{fffd}")));
    }
}
