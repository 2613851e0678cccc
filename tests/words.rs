//! The words of docs/glossary.md: names and phrases that were replaced do not come back.

use std::fs;
use std::path::{Path, PathBuf};

/// Names of types, functions and counters that were replaced. They are not common words of prose.
const NAMES: &[&str] = &[
    "AnswerEnd",
    "Backlog",
    "Clerk",
    "ClientsLimit",
    "DoorCertificates",
    "FAREWELL",
    "Glimpse",
    "Heir",
    "Holdings",
    "Journey",
    "Keeper",
    "Ledger",
    "Lobby",
    "Lookalike",
    "LoopId",
    "Outlet",
    "Passenger",
    "Probation",
    "Reception",
    "Spares",
    "ToBackend",
    "TurningPoint",
    "UpstreamDeaf",
    "UrlFault",
    "Vitals",
    "address_refusals",
    "asks_if_heard",
    "directory_away",
    "directory_busy",
    "forget_manners",
    "hands_shaken",
    "has_visitors",
    "hear_out",
    "is_barred",
    "leave_too",
    "max_guesses",
    "missed_news",
    "moved_connections",
    "no_buffer",
    "no_port",
    "no_socket",
    "note_departures",
    "see_off",
    "take_leave",
    "upload_is_moot",
];

/// Earlier names of settings, and the places that keep them as aliases.
const SETTINGS: &[&str] =
    &["answerTimeout", "gracefulWait", "maxFields", "maxInterimAnswers", "maxWaiting", "nameRefresh"];
const ALIASES: &[&str] = &["src/config/renamed.rs", "src/config/tests/renamed.rs", "docs/configuration.md"];

/// Words of a dialect, in prose: people for sockets, and the terms that RFC 9110 does not use.
const PHRASES: &[&str] = &[
    "answer",
    "answers",
    "anybody",
    "everybody",
    "hands are",
    "hands shaken",
    "hands were",
    "interim",
    "nobody",
    "shake hands",
    "shakes hands",
    "somebody",
    "stranger",
    "strangers",
    "what of",
    "whoever",
    "whom",
];

/// Sentences begin with their subject.
const INVERTED: &[&str] = &["/ Of ", "! Of ", ". Of "];

/// The page that lists the phrases.
const GLOSSARY: &str = "docs/glossary.md";

#[test]
fn replaced_names_do_not_come_back() {
    let mut faults = Vec::new();
    for (name, text) in files("src", "rs").into_iter().chain(files("docs", "md")) {
        let is_alias = ALIASES.contains(&name.as_str());
        for (number, line) in text.lines().enumerate().filter(|_| name != GLOSSARY) {
            let old = words(line).find(|word| NAMES.contains(word) || (!is_alias && SETTINGS.contains(word)));
            faults.extend(old.map(|word| fault(&name, number, word)));
        }
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn prose_follows_the_glossary() {
    let rooms = files("src", "rs").into_iter();
    let pages = files("docs", "md").into_iter().filter(|(name, _)| name != GLOSSARY);
    let root_pages = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "loadtest/README.md"];
    let root_pages = root_pages.map(|page| (page.to_owned(), fs::read_to_string(root().join(page)).expect("a page")));
    let mut faults = Vec::new();
    for (name, text) in rooms.chain(pages).chain(root_pages) {
        for (number, line) in text.lines().enumerate() {
            let prose = if name.ends_with(".rs") { prose(line) } else { line };
            faults.extend(dialect(prose).map(|phrase| fault(&name, number, phrase)));
        }
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn dialect_is_found_wherever_it_stands() {
    let table = [
        ("/// Whoever comes next.", Some("whoever")),
        ("//! Nobody waits.", Some("nobody")),
        ("    // Of a reply, the head.", Some("/ Of ")),
        ("x(); // hands are\tshaken", Some("hands are")),
        ("log::warn!(\"{name}: the answer is late\");", Some("answer")),
        ("/// A cost of nobodies, and `answered`.", None),
        ("fn nobody_waits() {", None),
        ("f(\"{NOBODY}\")", None),
        ("/// The number of responses. Offsets count.", None),
    ];
    for (line, expected) in table {
        assert_eq!(dialect(prose(line)), expected, "{line}");
    }
}

fn fault(name: &str, number: usize, word: &str) -> String {
    format!("{name}:{}: \"{word}\" was replaced; docs/glossary.md has the words of today", number + 1)
}

/// The part of a line of code that people read: a comment, or the line itself if it has a string.
fn prose(line: &str) -> &str {
    match line.find("//") {
        _ if line.contains('"') => line,
        Some(start) => &line[start..],
        None => "",
    }
}

/// The first phrase of the dialect in a line of prose.
fn dialect(prose: &str) -> Option<&'static str> {
    // A constant is not prose.
    let is_constant = |word: &&str| !word.contains(char::is_lowercase) && word.len() > 1;
    let words: Vec<_> = words(prose).filter(|word| !is_constant(word)).map(str::to_lowercase).collect();
    let has = |phrase: &&&str| {
        let phrase: Vec<_> = phrase.split(' ').collect();
        words.windows(phrase.len()).any(|window| window == phrase)
    };
    let inverted = || INVERTED.iter().find(|start| prose.contains(**start));
    PHRASES.iter().find(has).or_else(inverted).copied()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|char: char| !char.is_alphanumeric() && char != '_').filter(|word| !word.is_empty())
}

/// Names, relative to the root, and texts of all files below a folder with this extension.
fn files(folder: &str, extension: &str) -> Vec<(String, String)> {
    let mut files = Vec::new();
    collect(&root().join(folder), extension, &mut files);
    assert!(!files.is_empty(), "{folder} has no .{extension} file");
    files.sort();
    files
}

fn collect(folder: &Path, extension: &str, files: &mut Vec<(String, String)>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("reading {}: {error}", folder.display()));
    for path in entries.map(|entry: std::io::Result<fs::DirEntry>| entry.expect("an entry").path()) {
        if path.is_dir() {
            collect(&path, extension, files);
        } else if path.extension().is_some_and(|found| found == extension) {
            let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("reading {}: {error}", path.display()));
            files.push((relative(&path), text));
        }
    }
}

fn relative(path: &Path) -> String {
    let path: PathBuf = path.strip_prefix(root()).expect("a file of this repository").into();
    path.to_string_lossy().into_owned()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
