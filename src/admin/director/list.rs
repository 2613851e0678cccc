//! The list of all clusters, written one after the other, so that its memory is bounded by the length of the text.

use serde_json::Value;

/// The greatest length of the list in bytes. Clusters that do not fit are left out, and counted.
pub(super) const MAX_LIST: usize = 16 << 20;

/// A JSON object that grows up to a limit.
pub(super) struct List {
    text: String,
    limit: usize,
    left_out: usize,
}

impl List {
    pub(super) fn new(limit: usize) -> Self {
        Self { text: "{".to_owned(), limit, left_out: 0 }
    }

    /// Adds a cluster. After the first one that does not fit, no more are added.
    pub(super) fn push(&mut self, name: &str, view: impl FnOnce() -> Value) {
        if self.left_out > 0 {
            return self.leave_out(1);
        }
        let separator = if self.text.len() > 1 { "," } else { "" };
        let entry = format!("{separator}{}:{}", Value::from(name), view());
        if self.text.len() + entry.len() > self.limit { self.leave_out(1) } else { self.text.push_str(&entry) }
    }

    /// Counts clusters that are left out.
    pub(super) fn leave_out(&mut self, count: usize) {
        self.left_out += count;
    }

    /// The object, and the number of clusters left out.
    pub(super) fn finish(self) -> (String, usize) {
        (self.text + "}\n", self.left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::cell::Cell;

    #[test]
    fn a_list_ends_at_its_limit_and_counts_the_rest() {
        let (text, left_out) = List::new(1000).finish();
        assert_eq!((text.as_str(), left_out), ("{}\n", 0));
        let (mut list, seen) = (List::new(1000), Cell::new(0));
        for number in 0..1_000_000 {
            list.push(&format!("cluster {number} \"x\""), || {
                seen.set(seen.get() + 1);
                json!({ "number": number })
            });
        }
        let (text, left_out) = list.finish();
        let object: Value = serde_json::from_str(&text).expect("an object");
        let shown = object.as_object().expect("an object").len();
        assert!(text.len() <= 1002 && shown > 10, "{text}");
        assert_eq!((shown + left_out, shown + 1), (1_000_000, seen.get()));
        assert_eq!(object["cluster 7 \"x\""]["number"], 7);
    }
}
