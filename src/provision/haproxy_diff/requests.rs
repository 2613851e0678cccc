//! Requests made from the hosts, paths and values in a file.

use super::load;
use crate::haproxy::model::Proxy;
use crate::haproxy::rules::{
    BackendTarget, Condition, Converter, Criterion, Fetch, Format, FormatPart, Matching, Sample, Tests, TextMatch,
};
use std::collections::BTreeSet;
use std::fmt::Write;

/// The greatest number of values of a kind that are taken from a file.
const MOST: usize = 5000;

/// The generator of requests.
pub(super) struct Generator {
    rng: fastrand::Rng,
    hosts: Vec<String>,
    paths: Vec<String>,
    queries: Vec<String>,
    methods: Vec<String>,
    /// Names and values of fields.
    fields: Vec<(String, String)>,
}

/// Collected values.
#[derive(Default)]
struct Values {
    hosts: BTreeSet<String>,
    paths: BTreeSet<String>,
    queries: BTreeSet<String>,
    methods: BTreeSet<String>,
    fields: BTreeSet<(String, String)>,
}

impl Generator {
    pub(super) fn new(text: &str, seed: u64) -> Result<Self, String> {
        let loaded = load(text);
        let mut values = Values::default();
        values.hosts.extend(["www.example.com", "other.example"].map(str::to_owned));
        values.paths.extend(["/", "/index.html", "/a/b/c"].map(str::to_owned));
        values.queries.extend(["", "x=1"].map(str::to_owned));
        values.methods.extend(["GET", "HEAD", "POST"].map(str::to_owned));
        for proxy in &loaded.model.proxies {
            values.proxy(proxy);
        }
        let list = |set: BTreeSet<String>| set.into_iter().take(MOST).collect::<Vec<_>>();
        let Values { hosts, paths, queries, methods, fields } = values;
        Ok(Self {
            rng: fastrand::Rng::with_seed(seed),
            hosts: list(hosts),
            paths: list(paths),
            queries: list(queries),
            methods: list(methods),
            fields: fields.into_iter().take(MOST).collect(),
        })
    }

    /// The index of the listener to ask, out of `count`.
    pub(super) fn listener(&mut self, count: usize) -> usize {
        self.rng.usize(..count.max(1))
    }

    /// The next request.
    pub(super) fn request(&mut self) -> Vec<u8> {
        let Self { rng, hosts, paths, queries, methods, fields } = self;
        fn one<'v>(rng: &mut fastrand::Rng, list: &'v [String]) -> &'v str {
            list.get(rng.usize(..list.len().max(1))).map_or("", String::as_str)
        }
        let method = if rng.u8(..4) > 0 { "GET" } else { one(rng, methods) };
        let mut path = one(rng, paths).to_owned();
        if rng.u8(..6) == 0 {
            path.push_str("more");
        }
        let query = one(rng, queries);
        let mark = if query.is_empty() { "" } else { "?" };
        let mut host = one(rng, hosts).to_owned();
        match rng.u8(..12) {
            0 => host.make_ascii_uppercase(),
            1 => host.push_str(":8080"),
            2 => host.insert_str(0, "sub."),
            _ => {}
        }
        let mut text = format!("{method} {path}{mark}{query} HTTP/1.1\r\nHost: {host}\r\n");
        for _ in 0..rng.usize(..4) {
            if let Some((name, value)) = fields.get(rng.usize(..fields.len().max(1))) {
                let _ = write!(text, "{name}: {value}\r\n");
            }
        }
        if rng.u8(..8) == 0 {
            text.push_str("X-Forwarded-For: 192.0.2.9\r\nX-Forwarded-Proto: https\r\n");
        }
        if rng.u8(..8) == 0 {
            text.push_str("Accept-Encoding: gzip, deflate\r\n");
        }
        if method == "POST" {
            text.push_str("Content-Length: 4\r\n\r\nbody");
        } else {
            text.push_str("\r\n");
        }
        text.into_bytes()
    }
}

impl Values {
    fn proxy(&mut self, proxy: &Proxy) {
        proxy.acls.iter().for_each(|acl| self.criteria(&acl.tests));
        let rules = &proxy.rules;
        let lists = [&rules.connection, &rules.content, &rules.request, &rules.redirects, &rules.response];
        let conditions = lists.into_iter().flatten().filter_map(|rule| rule.condition.as_ref());
        let switch = rules.use_backend.iter().filter_map(|rule| rule.condition.as_ref());
        let servers = rules.use_server.iter().filter_map(|rule| rule.condition.as_ref());
        conditions.chain(switch).chain(servers).for_each(|condition| self.condition(condition));
        for rule in &rules.use_backend {
            if let BackendTarget::Dynamic(format) = &rule.target {
                self.format(format);
            }
        }
        self.paths.extend(proxy.monitor_uri.iter().cloned());
        if let Some(persistence) = &proxy.persistence {
            for server in proxy.servers.iter().filter_map(|server| server.cookie.as_ref()) {
                self.fields.insert(("Cookie".to_owned(), format!("a=b; {}={server}", persistence.name)));
            }
        }
    }

    fn condition(&mut self, condition: &Condition) {
        for term in condition.any.iter().flatten() {
            if let Tests::Inline(criteria) = &term.tests {
                self.criteria(criteria);
            }
        }
    }

    fn format(&mut self, format: &Format) {
        for part in &format.parts {
            if let FormatPart::Sample(sample, _) = part {
                for converter in &sample.converters {
                    if let Converter::Map(map) = converter {
                        map.written.iter().take(MOST).for_each(|key| self.value(sample, key));
                    }
                }
            }
        }
    }

    fn criteria(&mut self, criteria: &[Criterion]) {
        for criterion in criteria {
            match &criterion.matching {
                Matching::Text(method, patterns) => {
                    for pattern in patterns.iter().take(MOST) {
                        let text = String::from_utf8_lossy(&pattern.text).into_owned();
                        let text = match method {
                            TextMatch::End => format!("x{text}"),
                            TextMatch::Contain | TextMatch::Domain | TextMatch::Folder => format!("/x/{text}/y"),
                            _ => text,
                        };
                        self.value(&criterion.sample, &text);
                    }
                }
                Matching::Regex(expressions) => {
                    for expression in expressions.written() {
                        let plain = expression.replace(['^', '$', '(', ')', '\\', '?'], "");
                        let text = plain.split(['|', '[', '*', '+']).next().unwrap_or_default();
                        self.value(&criterion.sample, text.trim_end_matches('.'));
                    }
                }
                Matching::Found | Matching::Bool | Matching::Int(_) | Matching::Len(_) => {
                    self.value(&criterion.sample, "1")
                }
                Matching::Ip(_) => {}
            }
        }
    }

    /// Adds a value that a sample is compared with.
    fn value(&mut self, sample: &Sample, text: &str) {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_plain || text.is_empty() {
            return;
        }
        let path = if text.starts_with('/') { text.to_owned() } else { format!("/{text}") };
        match &sample.fetch {
            Fetch::Path | Fetch::PathQuery | Fetch::Url if !text.contains('#') => {
                let (path, query) = path.split_once('?').unwrap_or((&path, ""));
                self.paths.insert(path.to_owned());
                self.queries.insert(query.to_owned());
            }
            Fetch::Base => {
                let (host, path) = text.split_once('/').unwrap_or((text, ""));
                self.hosts.insert(host.to_owned());
                self.paths.insert(format!("/{path}"));
            }
            Fetch::Query => {
                self.queries.insert(text.trim_start_matches('?').to_owned());
            }
            Fetch::UrlParam { name, .. } => {
                self.queries.insert(format!("{}={text}", name.as_deref().unwrap_or("p")));
            }
            Fetch::Method if text.bytes().all(|byte| byte.is_ascii_uppercase()) && text != "CONNECT" => {
                self.methods.insert(text.to_owned());
            }
            Fetch::Header { name, .. } if name == "host" => {
                let host = text.trim_matches('/').trim_start_matches('.').replace('/', ".");
                self.hosts.insert(host);
            }
            Fetch::Header { name, .. } | Fetch::HeaderCount { name, .. } if !is_framing(name) => {
                self.fields.insert((name.clone(), text.to_owned()));
            }
            Fetch::Cookie { name, .. } => {
                let name = name.as_deref().unwrap_or("c");
                self.fields.insert(("Cookie".to_owned(), format!("{name}={text}")));
            }
            _ => {}
        }
    }
}

/// Fields that would change the framing of the request.
fn is_framing(name: &str) -> bool {
    ["content-length", "transfer-encoding", "connection", "upgrade", "expect", "te"].contains(&name)
}
