//! Tests of configurations.

mod lowering;
mod rules;
mod sections;
mod serving;
mod treatments;
mod values;

use super::serve::Facts;
use super::{Environment, Loaded, Source, Treatment, load};
use std::path::Path;

/// Parses a text, with the variable `PORT` and two files that rules can name.
fn read(text: &str) -> Loaded {
    let files = |path: &Path| match path.to_str() {
        Some("hosts.lst") => Ok("# hosts\nwww.example.org\n  api.example.org\n\n".into()),
        Some("/e/503.http") => Ok("HTTP/1.0 503 Busy\r\n\r\nbusy\n".into()),
        Some("page.lf") => Ok("path is %[path]\n".into()),
        Some("hosts.map") => Ok("www.example.org web\napi.example.org api # not a comment\n".into()),
        _ => Err("no such file".to_owned()),
    };
    let mut environment = Environment::new([("PORT".into(), "8080".into())], &files);
    load(&[Source { name: "f.cfg".into(), bytes: text.into() }], &mut environment)
}

/// Parses lines of a frontend in mode http.
fn frontend(lines: &str) -> Loaded {
    read(&format!("frontend f\n mode http\n bind :80\n{lines}\nbackend web\n mode http\nbackend api\n mode http\n"))
}

/// Findings other than `understood`: line, treatment, and note.
fn remarks(loaded: &Loaded) -> Vec<(u32, Treatment, String)> {
    let told = loaded.findings.iter().filter(|finding| finding.treatment != Treatment::Honoured);
    told.map(|finding| (finding.at.line, finding.treatment, format!("{}: {}", finding.word, finding.note))).collect()
}

/// There is exactly one finding of this treatment or a worse one, and it contains this text. Any number of harmless
/// findings is allowed.
#[track_caller]
fn expect_one(text: &str, loaded: &Loaded, treatment: Treatment, part: &str) {
    let found = remarks(loaded);
    let is_harmless = treatment <= Treatment::Ignored;
    let mut bad = found.iter().filter(|(_, found, _)| is_harmless || *found >= treatment);
    let is_it = |(_, found, note): &(u32, Treatment, String)| *found == treatment && note.contains(part);
    let is_told = if is_harmless { bad.any(is_it) } else { bad.next().is_some_and(is_it) && bad.next().is_none() };
    assert!(is_told, "{text}\nexpected {treatment:?} {part:?}, found {found:#?}");
}

/// A plain connection of a client.
fn facts() -> Facts {
    Facts {
        source: "192.0.2.1:4000".parse().expect("an address"),
        destination: "198.51.100.1:80".parse().expect("an address"),
        is_tls: false,
        tls: None,
        visit: None,
    }
}
