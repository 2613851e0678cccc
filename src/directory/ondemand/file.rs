//! The file of a cluster, in the form of x0d's `.db` files: sections of `key=value` lines.
//!
//! A file of this program has [`MARK`] in its head and [`END`] as its last line, and is parsed strictly. Any other file
//! is x0d's, and is read with the meaning of the version of x0d that wrote it ([`super::import`]).

use super::arguments::Scope;
use super::buckets::{Bucket, fraction};
use super::definition::{BackendDefinition, ClusterDefinition};
use super::import;
use super::settings::Section;
use std::fmt::Write;

/// The mark in the head of a file of this program.
const MARK: &str = "# sluice: cluster on demand, version 1";
const END: &str = "# end";
/// The prefix of the revision of the cluster's last edit in Redis.
const REVISION: &str = "# revision ";
/// The prefix of the number that tells the cluster from an earlier one of its name.
const CREATED: &str = "# created ";

/// The greatest number of values in a section: there are fewer names.
const MAX_LINES: usize = 500;

/// The section of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head<'t> {
    Director,
    OnDemand,
    Cache,
    Bucket(&'t str),
    Backend(&'t str),
}

/// A section with its lines.
#[derive(Clone, Debug)]
pub(super) struct Part<'t> {
    pub(super) head: Head<'t>,
    /// Names and values, each with its line number.
    pub(super) pairs: Vec<(usize, &'t str, &'t str)>,
}

impl Part<'_> {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(_, known, _)| *known == name).map(|(_, _, value)| *value)
    }
}

/// A parsed cluster, and messages for the log.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) definition: ClusterDefinition,
    /// Assumptions about a file of x0d; `None` for a file of this program.
    pub(super) assumed: Option<String>,
    /// Parts that are not used, and why.
    pub(super) warnings: Vec<String>,
}

/// The text of a cluster's file.
pub(super) fn render(definition: &ClusterDefinition) -> String {
    let head =
        format!("# vim:syntax=dosini\n{MARK}\n# The program writes this file: an edit is read at the next start.\n");
    let number = |start: &str, number: u64| match number {
        0 => String::new(),
        number => format!("{start}{number}\n"),
    };
    let (revision, created) = (number(REVISION, definition.revision), number(CREATED, definition.created));
    format!("{head}{revision}{created}{}", render_body(definition))
}

/// The text of a cluster in Redis.
pub(super) fn render_record(definition: &ClusterDefinition) -> String {
    format!("{MARK}\n{}", render_body(definition))
}

fn render_body(definition: &ClusterDefinition) -> String {
    let mut text = String::new();
    let mut put = |line: std::fmt::Arguments<'_>| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{line}");
    };
    put(format_args!("[director]"));
    for (key, value) in definition.settings.iter().filter(|(key, _)| key.section == Section::Director) {
        put(format_args!("{}={value}", key.in_file()));
    }
    put(format_args!("terminate-protection={}", definition.is_protected));
    for (name, value) in &definition.options {
        put(format_args!("{name}={value}"));
    }
    put(format_args!("[ondemand]"));
    if let Some(host) = &definition.hostname {
        put(format_args!("hostname={host}"));
    }
    if let Some(port) = definition.port {
        put(format_args!("port={port}"));
    }
    put(format_args!("[cache]"));
    for (key, value) in definition.settings.iter().filter(|(key, _)| key.section == Section::Cache) {
        put(format_args!("{}={value}", key.in_file()));
    }
    render_buckets(&definition.buckets, None, &mut put);
    for backend in &definition.backends {
        render_backend(backend, &mut put);
    }
    put(format_args!("{END}"));
    text
}

fn render_buckets(buckets: &[Bucket], parent: Option<&str>, put: &mut impl FnMut(std::fmt::Arguments<'_>)) {
    for bucket in buckets {
        put(format_args!("[bucket={}]", bucket.name));
        put(format_args!("rate={}", fraction(bucket.rate)));
        put(format_args!("ceil={}", fraction(bucket.ceil)));
        if let Some(parent) = parent {
            put(format_args!("parent={parent}"));
        }
        render_buckets(&bucket.children, Some(&bucket.name), put);
    }
}

fn render_backend(backend: &BackendDefinition, put: &mut impl FnMut(std::fmt::Arguments<'_>)) {
    put(format_args!("[backend={}]", backend.name));
    put(format_args!("role={}", backend.role));
    put(format_args!("capacity={}", backend.capacity));
    put(format_args!("enabled={}", backend.is_enabled));
    put(format_args!("transport=tcp"));
    put(format_args!("protocol={}", if backend.is_secure { "https" } else { "http" }));
    put(format_args!("health-check-mode={}", backend.health_mode.name()));
    put(format_args!("health-check-interval={}", backend.health_interval.as_secs_f64()));
    put(format_args!("host={}", backend.hostname));
    put(format_args!("port={}", backend.port));
    put(format_args!("terminate-protection={}", backend.is_protected));
    for (name, value) in &backend.attributes {
        put(format_args!("{name}={value}"));
    }
}

/// Parses the file of the cluster with this name. The error names the line. Whether the cluster is valid shows when its
/// record is made.
pub(super) fn parse(name: &str, text: &str, is_rewrite: bool) -> Result<Read, String> {
    let is_own = text.lines().take(3).any(|line| line == MARK);
    if is_own && text.lines().last() != Some(END) {
        return Err("its end is missing".to_owned());
    }
    let parts = parts(text)?;
    if !is_own {
        return import::read(name, &parts, is_rewrite);
    }
    let mut definition = ClusterDefinition::new(name);
    let number = |start: &str| {
        let number = text.lines().take(5).find_map(|line| line.strip_prefix(start));
        number.map_or(Ok(0), str::parse).map_err(|_| "its revision is no number".to_owned())
    };
    (definition.revision, definition.created) = (number(REVISION)?, number(CREATED)?);
    for part in &parts {
        read_part(&mut definition, part)?;
    }
    Ok(Read { definition, assumed: None, warnings: Vec::new() })
}

fn read_part(definition: &mut ClusterDefinition, part: &Part<'_>) -> Result<(), String> {
    let arguments = || -> Vec<(String, String)> {
        let read = part.pairs.iter().filter(|(_, name, _)| *name != "transport");
        read.map(|(_, name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    match part.head {
        Head::Bucket(bucket) => {
            definition.put_bucket(Some(bucket), &arguments()).map_err(|refusal| refusal.to_string())
        }
        Head::Backend(backend) => {
            definition.add_backend(Some(backend), &arguments()).map_err(|refusal| refusal.to_string())
        }
        Head::Director | Head::OnDemand | Head::Cache => {
            let scope = match part.head {
                Head::Cache => Scope::Cache,
                Head::OnDemand => Scope::OnDemand,
                _ => Scope::Director,
            };
            part.pairs.iter().try_for_each(|(line, name, value)| {
                definition.apply_in(scope, name, value).map_err(|refusal| format!("line {line}: {refusal}"))
            })
        }
    }
}

/// Splits the text.
fn parts(text: &str) -> Result<Vec<Part<'_>>, String> {
    let mut parts: Vec<Part<'_>> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let (number, line) = (number + 1, line.trim());
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(head) = line.strip_prefix('[') {
            let head = head.strip_suffix(']').and_then(read_head);
            let head = head.ok_or_else(|| {
                format!("line {number}: expected [director], [ondemand], [cache], [bucket=NAME] or [backend=NAME]")
            })?;
            parts.push(Part { head, pairs: Vec::new() });
            continue;
        }
        let (name, value) = line.split_once('=').ok_or_else(|| format!("line {number}: expected key=value"))?;
        let part = parts.last_mut().ok_or_else(|| format!("line {number}: a value stands before the first section"))?;
        let (name, value) = (name.trim(), value.trim());
        if part.pairs.len() >= MAX_LINES {
            return Err(format!("line {number}: more than {MAX_LINES} values in a section"));
        }
        if part.get(name).is_some() {
            return Err(format!("line {number}: {name} stands twice in its section"));
        }
        part.pairs.push((number, name, value));
    }
    if parts.is_empty() { Err("it has no section".to_owned()) } else { Ok(parts) }
}

fn read_head(text: &str) -> Option<Head<'_>> {
    match (text.trim(), text.split_once('=')) {
        ("director", _) => Some(Head::Director),
        ("ondemand", _) => Some(Head::OnDemand),
        ("cache", _) => Some(Head::Cache),
        (_, Some(("bucket", name))) if !name.trim().is_empty() => Some(Head::Bucket(name.trim())),
        (_, Some(("backend", name))) if !name.trim().is_empty() => Some(Head::Backend(name.trim())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> ClusterDefinition {
        let mut definition = ClusterDefinition::new("web.example");
        let arguments = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let settings = [
            ("hostname", "Web.Example"),
            ("port", "8080"),
            ("queue-timeout", "0.5"),
            ("scheduler", "least-load"),
            ("cache-enabled", "true"),
            ("cache-default-ttl", "7"),
            ("terminate-protection", "1"),
            ("sticky.cookie", "SRV"),
        ];
        definition.apply(&arguments(&settings)).expect("good settings");
        let bucket = [("rate", "0.5"), ("ceil", "0.75")];
        definition.put_bucket(Some("main"), &arguments(&bucket)).expect("a good bucket");
        let nested = [("rate", "0.25"), ("ceil", "1"), ("parent", "main")];
        definition.put_bucket(Some("upload"), &arguments(&nested)).expect("a good bucket");
        definition
            .put_bucket(Some("deep"), &arguments(&[nested[0], nested[1], ("parent", "upload")]))
            .expect("a bucket");
        let backend = [("hostname", "10.0.0.1"), ("port", "80"), ("role", "backup"), ("capacity", "4")];
        definition.add_backend(Some("one"), &arguments(&backend)).expect("a good backend");
        let more = [("hostname", "::1"), ("port", "81"), ("protocol", "https"), ("weight", "3"), ("protected", "true")];
        definition.add_backend(Some("two:81"), &arguments(&more)).expect("a good backend");
        definition
    }

    #[test]
    fn what_is_written_is_read_again() {
        let definition = cluster();
        let text = render(&definition);
        let read = parse("web.example", &text, false).expect("a good file");
        assert_eq!(read.definition, definition, "{text}");
        assert_eq!((read.assumed, read.warnings), (None, vec![]));
    }

    #[test]
    fn a_record_is_read_again_and_a_file_keeps_the_revision() {
        let definition = ClusterDefinition { revision: 17, created: 5, ..cluster() };
        let read = parse("web.example", &render(&definition), false).expect("a good file");
        assert_eq!(read.definition, definition);
        let read = parse("web.example", &render_record(&definition), false).expect("a good record");
        assert_eq!(read.definition, ClusterDefinition { revision: 0, created: 0, ..definition });
    }

    #[test]
    fn a_file_of_this_program_that_was_cut_anywhere_is_refused() {
        let text = render(&cluster());
        let head = text.find(MARK).expect("its mark") + MARK.len();
        for end in head..text.len() - 1 {
            assert!(parse("web.example", &text[..end], false).is_err(), "{}", &text[..end]);
        }
    }

    #[test]
    fn faults_have_a_line() {
        let file = |body: &str| format!("{MARK}\n{body}\n{END}\n");
        let table = [
            ("[director]\nqueue-limit=many", "line 3: queue-limit is \"many\""),
            ("[director]\nnothing=1", "line 3: \"nothing\" is no argument"),
            ("x=1", "line 2: a value stands before"),
            ("[other]", "line 2: expected [director]"),
            ("[director]\nenabled", "line 3: expected key=value"),
            ("[director]\nenabled=true\nenabled=true", "line 4: enabled stands twice"),
            ("[backend=one]\nhost=a", "port= has to name a port"),
            ("", "it has no section"),
        ];
        for (body, expected) in table {
            let problem = parse("x", &file(body), false).expect_err("a fault");
            assert!(problem.starts_with(expected), "{problem}");
        }
    }

    #[test]
    fn buckets_of_a_file_are_never_deeper_or_more_than_can_be() {
        let nested = |count: usize| -> String {
            let bucket = |place: usize| {
                let parent = if place == 0 { String::new() } else { format!("parent=b{}\n", place - 1) };
                format!("[bucket=b{place}]\nrate=0\nceil=1\n{parent}")
            };
            (0..count).map(bucket).collect()
        };
        let own = |body: &str| parse("x", &format!("{MARK}\n[director]\n{body}{END}\n"), false);
        assert!(own(&nested(8)).is_ok());
        let problem = own(&nested(100_000)).expect_err("too deep");
        assert_eq!(problem, "buckets in buckets, deeper than 8 levels");
        let flat: String = (0..61).map(|place| format!("[bucket=b{place}]\nrate=0\nceil=1\n")).collect();
        assert_eq!(own(&flat).expect_err("too many"), "there are 60 buckets, and more cannot be");
        // Those of x0d are omitted and reported.
        let read = parse("x", &format!("[director]\nscheduler=rr\n{}", nested(1000)), false).expect("a file of x0d");
        assert_eq!(read.warnings.len(), 992);
    }
}
