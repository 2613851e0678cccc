//! Configurations, and what is made of them.

mod rules;
mod sections;

use super::{Environment, Loaded, Source, Treatment, load};
use std::path::Path;

/// Reads a text, with the variable `PORT` and two files that rules can name.
fn read(text: &str) -> Loaded {
    let files = |path: &Path| match path.to_str() {
        Some("hosts.lst") => Ok("# hosts\nwww.example.org\n  api.example.org\n\n".to_owned()),
        Some("hosts.map") => Ok("www.example.org web\napi.example.org api # not a comment\n".to_owned()),
        _ => Err("no such file".to_owned()),
    };
    let mut environment = Environment::new([("PORT".into(), "8080".into())], &files);
    load(&[Source { name: "f.cfg".into(), bytes: text.into() }], &mut environment)
}

/// Reads lines of a frontend in mode http.
fn frontend(lines: &str) -> Loaded {
    read(&format!("frontend f\n mode http\n bind :80\n{lines}\nbackend web\n mode http\nbackend api\n mode http\n"))
}

/// What is said that is not `understood`: line, treatment, and note.
fn remarks(loaded: &Loaded) -> Vec<(u32, Treatment, String)> {
    let told = loaded.findings.iter().filter(|finding| finding.treatment != Treatment::Understood);
    told.map(|finding| (finding.at.line, finding.treatment, format!("{}: {}", finding.word, finding.note))).collect()
}

/// Exactly one thing is said, of this treatment, with this text in it.
#[track_caller]
fn expect_one(text: &str, loaded: &Loaded, treatment: Treatment, part: &str) {
    let found = remarks(loaded);
    assert!(
        matches!(found.as_slice(), [(_, only, note)] if *only == treatment && note.contains(part)),
        "{text}\nexpected {treatment:?} {part:?}, found {found:#?}"
    );
}
