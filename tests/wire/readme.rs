//! `docs/request-smuggling.md` has a section for each class of the table, and no other.

use crate::table::{REQUESTS, RESPONSES};
use std::fs;

#[test]
fn every_class_is_explained() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/request-smuggling.md");
    let text = fs::read_to_string(page).expect("docs/request-smuggling.md");
    let explained: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    let requests = REQUESTS.iter().flat_map(|classes| classes.iter()).map(|class| class.name);
    let classes: Vec<_> = requests.chain(RESPONSES.iter().map(|class| class.name)).collect();
    assert_eq!(explained, classes);
}

#[test]
fn every_class_has_rows() {
    let requests = REQUESTS.iter().flat_map(|classes| classes.iter()).map(|class| (class.name, class.rows.len()));
    for (name, rows) in requests.chain(RESPONSES.iter().map(|class| (class.name, class.rows.len()))) {
        assert!(rows > 0, "{name}");
    }
}
