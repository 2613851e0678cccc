//! Paging: some rows of many, in order.

use super::Response;
use super::patience::Patience;
use super::query::Query;
use serde_json::{Value, json};
use std::cmp::Ordering;

/// The greatest number of rows of a page, and the default.
const MAX_ROWS: usize = 1000;
const ROWS: usize = 100;

/// Some rows of many.
pub(super) struct Page {
    number: usize,
    rows: usize,
    total: usize,
}

impl Page {
    /// The page of a query, out of `total` rows.
    pub(super) fn new(query: &Query, total: usize) -> Result<Self, Response> {
        let rows = query.number("per_page")?.unwrap_or(ROWS).clamp(1, MAX_ROWS);
        let number = query.number("page")?.unwrap_or(1).clamp(1, total.div_ceil(rows).max(1));
        Ok(Self { number, rows, total })
    }

    /// The rows of this page, in order: the other rows are not sorted.
    pub(super) fn select<'a, T>(&self, all: &'a mut [T], order: impl Fn(&T, &T) -> Ordering) -> &'a [T] {
        let patience = Patience::default();
        let order = patience.order(order);
        let skip = (self.number - 1) * self.rows;
        if skip > 0 && skip < all.len() {
            all.select_nth_unstable_by(skip, &order);
        }
        let rest = all.get_mut(skip..).unwrap_or_default();
        if self.rows < rest.len() {
            rest.select_nth_unstable_by(self.rows, &order);
        }
        let shown = rest.len().min(self.rows);
        let shown = &mut rest[..shown];
        shown.sort_unstable_by(order);
        shown
    }

    /// The view of these rows under this name.
    pub(super) fn with(&self, name: &str, rows: Vec<Value>) -> Value {
        let mut view = json!({
            "total": self.total,
            "page": self.number,
            "pages": self.total.div_ceil(self.rows),
            "per_page": self.rows,
        });
        view[name] = rows.into();
        view
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_in_order_and_miss_nothing() {
        let mut random = fastrand::Rng::with_seed(7);
        for total in [0, 1, 2, 9, 10, 11, 20, 95] {
            let mut all: Vec<usize> = (0..total).collect();
            let pages = total.div_ceil(10).max(1);
            let mut seen = Vec::new();
            for number in 1..=pages {
                random.shuffle(&mut all);
                let page = Page::new(&Query::parse(&format!("per_page=10&page={number}")), total);
                let page = page.ok().expect("a page");
                seen.extend_from_slice(page.select(&mut all, Ord::cmp));
            }
            assert_eq!(seen, (0..total).collect::<Vec<_>>(), "{total} rows");
        }
    }
}
