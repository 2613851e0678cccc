//! The tables of keywords as one text, which docs/from-haproxy.md contains; a test compares them.

use super::keyword::Treatment;
use super::rules::{actions, converters, fetches};
use super::sections::{BIND_WORDS, GLOBAL_WORDS, OTHER_GLOBAL_WORDS, SECTIONS, SERVER_WORDS, SMALL_WORDS, proxy_words};
use std::fmt::Write;

/// Every keyword with its treatment, as Markdown.
pub fn words() -> String {
    let mut text = String::new();
    let sections = SECTIONS.iter().map(|(name, treatment, reason)| (*name, *treatment, *reason));
    put(&mut text, "Sections", sections);
    put(&mut text, "`global`", GLOBAL_WORDS.iter().map(|word| (word.name, word.treatment, word.reason)));
    text.push_str(
        "\nAlso in `global`, mapped as far as rustls has them: `ssl-default-bind-*`, `ssl-default-server-*`. ",
    );
    text.push_str("Ignored, because sluice's own machinery has its own settings:\n\n");
    let others: Vec<_> = OTHER_GLOBAL_WORDS.split_whitespace().map(|word| format!("`{word}`")).collect();
    let _ = writeln!(text, "{}", others.join(" "));
    let mut proxies: Vec<_> = proxy_words().collect();
    proxies.sort_by_key(|word| word.name);
    let _ = writeln!(
        text,
        "\n### `defaults`, `frontend`, `listen`, `backend`\n\n| word | in | treatment | why, or how |\n|---|---|---|---|"
    );
    for word in proxies {
        let (places, treatment) = (word.places.names(), word.treatment.name());
        let _ = writeln!(text, "| `{}` | {places} | {treatment} | {} |", word.name, word.reason);
    }
    put(&mut text, "`bind`", BIND_WORDS.iter().map(|word| (word.name, word.treatment, word.reason)));
    put(
        &mut text,
        "`server`, `default-server`, `server-template`",
        SERVER_WORDS.iter().map(|word| (word.name, word.treatment, word.reason)),
    );
    put(
        &mut text,
        "Actions of `http-request`, `http-response`, `http-after-response`, `tcp-request`",
        actions().iter().map(|word| (word.name, word.treatment, word.reason)),
    );
    put(&mut text, "Sample fetches", fetches().iter().map(|word| (word.name, word.treatment, word.reason)));
    text.push_str("\nFetches that are in no row are refused.\n");
    put(&mut text, "Converters", converters().iter().map(|word| (word.name, word.treatment, word.reason)));
    text.push_str("\nConverters that are in no row are refused.\n");
    for section in ["userlist", "resolvers", "crt-store", "http-errors"] {
        let words = SMALL_WORDS.iter().filter(|word| word.section == section);
        put(&mut text, &format!("`{section}`"), words.map(|word| (word.name, word.treatment, word.reason)));
    }
    text
}

fn put(text: &mut String, title: &str, words: impl Iterator<Item = (&'static str, Treatment, &'static str)>) {
    let _ = writeln!(text, "\n### {title}\n\n| word | treatment | why, or how |\n|---|---|---|");
    for (name, treatment, reason) in words {
        let _ = writeln!(text, "| `{name}` | {} | {reason} |", treatment.name());
    }
}

#[cfg(test)]
mod tests {
    use super::super::rules::ACL_CRITERIA;
    use super::*;
    use std::collections::HashSet;

    /// Each keyword occurs once in its table; an unsupported one has a reason; no entry has the treatment `Wrong`.
    #[test]
    fn every_word_stands_once_and_has_its_reason() {
        type Words = Vec<(String, Treatment, &'static str)>;
        let mut tables: Vec<(&str, Words)> = Vec::new();
        let own =
            |(name, treatment, reason): &(&str, Treatment, &'static str)| ((*name).to_owned(), *treatment, *reason);
        tables.push(("sections", SECTIONS.iter().map(own).collect()));
        tables
            .push(("global", GLOBAL_WORDS.iter().map(|word| own(&(word.name, word.treatment, word.reason))).collect()));
        tables.push(("proxies", proxy_words().map(|word| own(&(word.name, word.treatment, word.reason))).collect()));
        tables.push(("bind", BIND_WORDS.iter().map(|word| own(&(word.name, word.treatment, word.reason))).collect()));
        tables
            .push(("server", SERVER_WORDS.iter().map(|word| own(&(word.name, word.treatment, word.reason))).collect()));
        tables.push(("actions", actions().iter().map(|word| own(&(word.name, word.treatment, word.reason))).collect()));
        tables.push(("fetches", fetches().iter().map(|word| own(&(word.name, word.treatment, word.reason))).collect()));
        tables.push((
            "converters",
            converters().iter().map(|word| own(&(word.name, word.treatment, word.reason))).collect(),
        ));
        for (table, words) in tables {
            let mut seen = HashSet::new();
            assert!(!words.is_empty());
            for (name, treatment, reason) in words {
                assert!(seen.insert(name.clone()), "{name} stands twice in the table of {table}");
                assert_ne!(treatment, Treatment::Wrong, "{name} of {table}");
                assert_eq!(reason.is_empty(), treatment == Treatment::Honoured, "{name} of {table}: {reason:?}");
                assert!(!reason.contains(['\n', '|']) && !reason.ends_with('.'), "{name} of {table}: {reason:?}");
            }
        }
        let mut others = HashSet::new();
        for word in OTHER_GLOBAL_WORDS.split_whitespace() {
            assert!(others.insert(word) && !GLOBAL_WORDS.iter().any(|known| known.name == word), "{word} stands twice");
        }
        for base in ACL_CRITERIA {
            assert!(fetches().iter().any(|word| word.name == base), "{base} is no fetch");
        }
    }
}
