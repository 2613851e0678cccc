//! The copy of a file: its listeners are loopback ports, its servers are echoes.

use super::echo::Echoes;
use super::free_address;
use crate::haproxy::{self, Environment, Source, split_lines};
use std::collections::HashSet;
use std::fmt::Write;
use std::net::SocketAddr;

/// Parameters of `server` that are kept in the copy, and their numbers of values.
const SERVER_WORDS: [(&str, usize); 4] = [("backup", 0), ("cookie", 1), ("disabled", 0), ("weight", 1)];

/// Prefixes of lines that need the real environment, or do not affect routing.
const LEFT_OUT: [&str; 21] = [
    "log",
    "option httplog",
    "option tcplog",
    "option httpslog",
    "option dontlognull",
    "option dontlog-normal",
    "option log-health-checks",
    "option httpchk",
    "option tcp-check",
    "option logasap",
    "http-check",
    "log-format",
    "log-tag",
    "maxconn",
    "default-server",
    "stats",
    "capture",
    "no log",
    "timeout check",
    "email-alert",
    "description",
];

/// Sections that are not copied.
const OTHER_SECTIONS: [&str; 9] =
    ["global", "resolvers", "peers", "mailers", "program", "ring", "cache", "crt-store", "log-forward"];

/// A copy.
pub(super) struct Copy {
    pub(super) text: String,
    pub(super) listeners: Vec<SocketAddr>,
}

/// The program that reads a copy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    /// HAProxy: obsolete keywords are written in their present form.
    Haproxy,
    /// sluice.
    Sluice,
}

/// Copies files, without the proxies that are not in mode http.
pub(super) fn make(sources: &[Source], reader: Reader, echoes: &Echoes) -> Result<Copy, String> {
    let variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let lines = split_lines(sources, &mut Environment::new(variables, &crate::haproxy::files::read))?;
    let mut copy = Copy { text: "global\n    log /dev/null local0\n".to_owned(), listeners: Vec::new() };
    let served = served_proxies(sources);
    let (mut section, mut name) = (String::new(), String::new());
    for words in lines {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let Some(first) = words.first() else { continue };
        let is_section = matches!(*first, "defaults" | "frontend" | "listen" | "backend" | "userlist" | "http-errors");
        if is_section || OTHER_SECTIONS.contains(first) {
            section = (*first).to_owned();
            name = words.get(1).map(|name| (*name).to_owned()).unwrap_or_default();
        }
        let is_proxy = matches!(section.as_str(), "frontend" | "listen" | "backend");
        if OTHER_SECTIONS.contains(&section.as_str()) || (is_proxy && !served.contains(&name)) {
            continue;
        }
        if is_section {
            let is_old = section == "listen" && words.len() > 2;
            let kept = if is_old { &words[..2] } else { &words[..] };
            let _ = writeln!(copy.text, "{}", quoted(kept));
            if is_old {
                bind(&mut copy)?;
            }
            continue;
        }
        match *first {
            "bind" => bind(&mut copy)?,
            "server" | "server-template" => server(&words, &name, echoes, &mut copy)?,
            _ if is_left_out(&words) => {}
            _ => {
                let words = if reader == Reader::Haproxy { modern(&words) } else { own(&words) };
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                let _ = writeln!(copy.text, "    {}", quoted(&words));
            }
        }
    }
    Ok(copy)
}

/// The names of the proxies in mode http.
fn served_proxies(sources: &[Source]) -> HashSet<String> {
    let variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let loaded = haproxy::load(sources, &mut Environment::new(variables, &haproxy::files::read));
    loaded.model.proxies.into_iter().map(|proxy| proxy.name).collect()
}

/// A line without parts that refer to other nodes.
fn own(words: &[&str]) -> Vec<String> {
    let mut words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    if words.first().is_some_and(|word| word == "stick-table")
        && let Some(at) = words.iter().position(|word| word == "peers")
    {
        words.drain(at..(at + 2).min(words.len()));
    }
    words
}

/// A line in HAProxy's present syntax, as far as there is an equivalent.
fn modern(words: &[&str]) -> Vec<String> {
    let (new, rest): (Vec<&str>, &[&str]) = match words {
        ["contimeout", rest @ ..] => (vec!["timeout", "connect"], rest),
        ["clitimeout", rest @ ..] => (vec!["timeout", "client"], rest),
        ["srvtimeout", rest @ ..] => (vec!["timeout", "server"], rest),
        ["option", "forceclose", rest @ ..] => (vec!["option", "httpclose"], rest),
        [word @ ("reqadd" | "rspadd"), line, rest @ ..] => {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            let list = if *word == "reqadd" { "http-request" } else { "http-response" };
            (vec![list, "add-header", name.trim(), value.trim()], rest)
        }
        words => (Vec::new(), words),
    };
    own(&[&new, rest].concat())
}

fn bind(copy: &mut Copy) -> Result<(), String> {
    let address = free_address()?;
    copy.listeners.push(address);
    let _ = writeln!(copy.text, "    bind {address}");
    Ok(())
}

fn server(words: &[&str], backend: &str, echoes: &Echoes, copy: &mut Copy) -> Result<(), String> {
    let name = words.get(1).copied().unwrap_or_default();
    let address = echoes.at(backend, name)?;
    let _ = write!(copy.text, "    server {name} {address}");
    for (at, word) in words.iter().enumerate().skip(3) {
        if let Some((_, values)) = SERVER_WORDS.iter().find(|(known, _)| known == word) {
            let kept = words.get(at..=at + values).unwrap_or_default();
            let _ = write!(copy.text, " {}", quoted(kept));
        }
    }
    copy.text.push('\n');
    Ok(())
}

fn is_left_out(words: &[&str]) -> bool {
    let line = words.join(" ");
    LEFT_OUT.iter().any(|left| line == *left || line.strip_prefix(left).is_some_and(|rest| rest.starts_with(' ')))
}

/// Words quoted for HAProxy.
fn quoted(words: &[&str]) -> String {
    let quote = |word: &&str| {
        let is_plain =
            !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_graphic() && !b"'\"\\#$".contains(&byte));
        if is_plain { (*word).to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
    };
    words.iter().map(quote).collect::<Vec<_>>().join(" ")
}
