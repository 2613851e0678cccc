//! A model of Redis as far as routes need it: data, its history, and replies.

use super::super::connect::Identity;
use super::super::reading::{self, Reading};
use crate::base::clock::Moment;
use crate::route;
use redis::Value;
use std::collections::BTreeMap;

pub(super) const HOSTS: &[&str] =
    &["a.x", "b.x", "c.b.x", "d.b.x", "e.b.x", "f.x", "g.y", "h.y", "i", "j", "k.z", "l.z"];
pub(super) const PATTERNS: &[&str] =
    &["a.x", "b.x", "c.b.x", "f.x", "g.y", "i", "j", "k.z", "*.x", "*.b.x", "*.y", "*"];

/// The content of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Absent,
    /// No backend of the list is valid.
    Bad,
    List {
        urls: Vec<String>,
        redirect: Option<bool>,
    },
}

impl Entry {
    pub(super) fn has_backend(&self) -> bool {
        matches!(self, Self::List { urls, .. } if !urls.is_empty())
    }
}

/// The content of a database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Data {
    /// The identifier, and the backends.
    pub(super) lists: BTreeMap<&'static str, Vec<String>>,
    /// The option `httpsRedirect`.
    pub(super) redirects: BTreeMap<&'static str, bool>,
}

impl Data {
    pub(super) fn entry(&self, pattern: &str) -> Entry {
        let Some(items) = self.lists.get(pattern) else { return Entry::Absent };
        let urls: Vec<String> = items.iter().skip(1).filter(|item| item.starts_with("http")).cloned().collect();
        if urls.is_empty() && items.len() > 1 {
            return Entry::Bad;
        }
        Entry::List { urls, redirect: self.redirects.get(pattern).copied() }
    }

    /// The pattern that serves a host.
    pub(super) fn key_of(&self, host: &str) -> Option<&'static str> {
        route::patterns(host).find_map(|pattern| self.lists.get_key_value(&*pattern)).map(|(pattern, _)| *pattern)
    }
}

/// A server, from its start to its end.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) run: u64,
    history: u64,
    /// The earlier history, and its shared length.
    before: Option<(u64, u64)>,
    is_replica: bool,
    pub(super) offset: u64,
    pub(super) data: Data,
}

impl Server {
    fn new(number: u64) -> Self {
        Self { run: number, history: number, before: None, is_replica: false, offset: 1, data: Data::default() }
    }

    /// A server with the present data of this one. `is_heir`: it knows the history of the data.
    pub(super) fn successor(&self, number: u64, is_heir: bool) -> Self {
        let before = is_heir.then_some((self.history, self.offset));
        Self {
            run: number,
            history: number,
            before,
            is_replica: false,
            offset: self.offset + 1,
            data: self.data.clone(),
        }
    }

    /// The same server with the data of another.
    pub(super) fn resynced(&self, number: u64, data: Data) -> Self {
        Self { run: self.run, history: number, before: None, is_replica: true, offset: 1, data }
    }

    pub(super) fn identity(&self) -> Identity {
        let (before, shared) = self.before.map_or(("0".repeat(40), "-1".to_owned()), |(history, offset)| {
            (format!("history{history}"), (offset + 1).to_string())
        });
        Identity::of(&format!(
            "run_id:{}\r\nrole:{}\r\nmaster_replid:history{}\r\nmaster_replid2:{before}\r\nmaster_repl_offset:{}\r\n\
             slave_repl_offset:{}\r\nsecond_repl_offset:{shared}\r\n",
            self.run_id(),
            if self.is_replica { "slave" } else { "master" },
            self.history,
            self.offset,
            self.offset
        ))
    }

    pub(super) fn run_id(&self) -> String {
        format!("run{}", self.run)
    }

    /// The replies about a host, parsed by the program.
    pub(super) fn read(&self, host: &str) -> Reading {
        let text = |text: &str| Value::BulkString(text.into());
        let patterns: Vec<_> = route::patterns(host).collect();
        let mut replies = Vec::new();
        for pattern in &patterns {
            let items = self.data.lists.get(&**pattern).map_or(&[][..], Vec::as_slice);
            replies.push(Value::Array(items.iter().map(|item| text(item)).collect()));
            let redirect = self.data.redirects.get(&**pattern);
            let fields = redirect.map(|flag| [text("httpsRedirect"), text(&flag.to_string())]);
            replies.push(Value::Array(vec![text("0"), Value::Array(fields.into_iter().flatten().collect())]));
        }
        replies.extend([Value::Array(Vec::new()), Value::Int(-2), Value::Array(vec![Value::Nil; 3])]);
        reading::read(patterns.iter().map(|pattern| &**pattern), &replies)
    }
}

/// Whether the server is reachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    Open,
    /// Connections are refused.
    Refused,
    /// No data arrives, in either direction.
    Silent,
}

/// All servers, and their intended content.
#[derive(Debug)]
pub(super) struct Redis {
    /// The server at the address.
    pub(super) at: Server,
    /// Its replica.
    pub(super) replica: Server,
    pub(super) is_lagging: bool,
    /// Its replies take long.
    pub(super) is_slow: bool,
    /// The data at the last save.
    pub(super) saved: Server,
    /// The data before the last edit, and its time.
    earlier: (Data, Moment),
    /// The data by all edits.
    pub(super) intended: Data,
    pub(super) reach: Reach,
    /// It loads another server's data, and serves none until then.
    pub(super) loads_until: Moment,
    /// Hosts whose replies do not end, until then.
    pub(super) drips: BTreeMap<&'static str, Moment>,
    /// Write counts of each list, for expiries.
    pub(super) versions: BTreeMap<&'static str, u64>,
    numbers: u64,
}

impl Redis {
    pub(super) fn new() -> Self {
        let at = Server::new(1);
        Self {
            replica: at.clone(),
            saved: at.clone(),
            at,
            is_lagging: false,
            is_slow: false,
            earlier: (Data::default(), Moment::ZERO),
            intended: Data::default(),
            reach: Reach::Open,
            loads_until: Moment::ZERO,
            drips: BTreeMap::new(),
            versions: BTreeMap::new(),
            numbers: 1,
        }
    }

    /// A server number that was never used.
    pub(super) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// The replies about a host that are read since this moment. `may_be_torn`: the first ones are from before an edit.
    /// Only what was lost by it is shown, and once an edit.
    pub(super) fn read(&mut self, host: &str, since: Moment, may_be_torn: bool) -> Reading {
        if may_be_torn && self.earlier.1 > since {
            let own = route::patterns(host).next().unwrap_or_default();
            let has = |data: &Data| data.lists.contains_key(&*own);
            if !has(&self.earlier.0) && has(&self.at.data) {
                self.forget_earlier();
                let mut torn = self.at.clone();
                torn.data.lists.remove(&*own);
                return torn.read(host);
            }
        }
        self.at.read(host)
    }

    /// No reply shows data from before the last edit.
    pub(super) fn forget_earlier(&mut self) {
        self.earlier.1 = Moment::ZERO;
    }

    /// Applies an edit.
    pub(super) fn apply(&mut self, now: Moment, bytes: u64, change: impl Fn(&mut Data)) {
        self.earlier = (self.at.data.clone(), now);
        change(&mut self.intended);
        change(&mut self.at.data);
        self.at.offset += bytes;
        if !self.is_lagging {
            self.replica = self.at.clone();
        }
    }
}
