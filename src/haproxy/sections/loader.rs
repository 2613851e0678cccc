//! Parsing of lines to sections.

use super::arguments::Arguments;
use super::global::{self, GLOBAL_WORDS, OTHER_GLOBAL_WORDS};
use super::lines::bind_line;
use super::proxy;
use super::scope::ProxyScope;
use super::small::{self, SMALL_WORDS};
use super::{Finding, references};
use crate::haproxy::environment::Environment;
use crate::haproxy::keyword::Treatment::{self, Honoured, Ignored, Lost, Mapped, Wrong};
use crate::haproxy::keyword::nearest;
use crate::haproxy::lexer::Word;
use crate::haproxy::model::{Model, Proxy, ProxyKind};
use crate::haproxy::reader::Line;
use crate::haproxy::rules::{Action, Format, Problem, RuleContext, Sample};

/// The keywords that begin a section, with treatment and reason.
pub(in super::super) const SECTIONS: &[(&str, Treatment, &str)] = &[
    ("global", Honoured, ""),
    ("defaults", Honoured, ""),
    ("frontend", Honoured, ""),
    ("listen", Honoured, ""),
    ("backend", Honoured, ""),
    ("userlist", Honoured, ""),
    ("resolvers", Mapped, "names are resolved by the system's resolver"),
    ("crt-store", Honoured, ""),
    ("http-errors", Honoured, ""),
    ("acme", Lost, "sluice does not request certificates"),
    ("cache", Ignored, "sluice's own cache has its own settings"),
    ("dynamic-update", Ignored, "there is nothing to update"),
    ("fcgi-app", Lost, "sluice speaks HTTP to servers; a backend that uses it is refused"),
    ("healthcheck", Lost, "servers are checked over HTTP or by a connection"),
    ("log-forward", Lost, "sluice does not forward logs"),
    ("log-profile", Ignored, "the access log is sluice's own"),
    ("mailers", Lost, "sluice does not send mail"),
    ("peers", Lost, "tables are this node's own"),
    ("program", Lost, "sluice does not run programs; use systemd"),
    ("ring", Lost, "the access log is sluice's own"),
    ("traces", Ignored, "traces are HAProxy's"),
];

/// Whether a keyword begins a section.
pub(in super::super) fn is_section(word: &str) -> bool {
    SECTIONS.iter().any(|(name, _, _)| *name == word)
}

/// The content parsed so far.
struct Loader<'a, 'e> {
    model: Model,
    findings: Vec<Finding>,
    environment: &'a Environment<'e>,
    /// `defaults` sections by name; the last one, named or not, is current.
    defaults: Vec<Proxy>,
    current: Current,
    /// The number of the current section.
    section: u32,
}

/// The current section.
enum Current {
    None,
    Global,
    Proxy(Box<Proxy>),
    Small(&'static str),
    Skipped,
}

/// Parses lines into a model, with the treatment of every keyword.
pub(in super::super) fn load_lines(lines: &[Line], environment: &Environment<'_>) -> (Model, Vec<Finding>) {
    let mut loader = Loader {
        model: Model::default(),
        findings: Vec::new(),
        environment,
        defaults: Vec::new(),
        current: Current::None,
        section: 0,
    };
    for line in lines {
        loader.line(&line.words);
    }
    loader.end_section();
    references::check(&loader.model, &mut loader.findings);
    references::leave_out_tcp(&mut loader.model, &mut loader.findings);
    (loader.model, loader.findings)
}

impl Loader<'_, '_> {
    fn say(&mut self, word: &Word, shown: &str, treatment: Treatment, note: impl Into<std::borrow::Cow<'static, str>>) {
        let section = self.section;
        self.findings.push(Finding { at: word.at, word: shown.to_owned(), treatment, note: note.into(), section });
    }

    fn line(&mut self, words: &[Word]) {
        let Some(first) = words.first() else { return };
        if let Some((name, treatment, reason)) = SECTIONS.iter().find(|(name, _, _)| *name == first.text) {
            self.end_section();
            self.section += 1;
            self.say(first, name, *treatment, *reason);
            self.begin_section(name, words);
            return;
        }
        match &mut self.current {
            Current::None => {
                let similar = nearest(&first.text, SECTIONS.iter().map(|(name, _, _)| *name));
                let hint = similar.map(|name| format!("; {name} is similar")).unwrap_or_default();
                self.say(first, &first.text, Wrong, format!("no section begins before this line{hint}"));
            }
            Current::Global => self.global_line(words),
            Current::Proxy(proxy) => {
                let environment = self.environment;
                proxy::read_line(proxy, words, &mut self.findings, environment, self.section);
            }
            Current::Small(section) => {
                let section = *section;
                self.small_line(section, words);
            }
            Current::Skipped => {}
        }
    }

    fn begin_section(&mut self, name: &'static str, words: &[Word]) {
        let title = words.get(1).map(|word| word.text.clone()).unwrap_or_default();
        let kind = match name {
            "global" => {
                self.current = Current::Global;
                return;
            }
            "userlist" | "resolvers" | "crt-store" | "http-errors" => {
                small::begin(&mut self.model, name, title);
                self.current = Current::Small(name);
                return;
            }
            "defaults" => ProxyKind::Defaults,
            "frontend" => ProxyKind::Frontend,
            "listen" => ProxyKind::Listen,
            "backend" => ProxyKind::Backend,
            _ => {
                self.current = Current::Skipped;
                return;
            }
        };
        let from = words.iter().position(|word| word.text == "from");
        let mut proxy = self.inherited(kind, from.and_then(|from| words.get(from + 1)));
        proxy.inherited_rules = proxy.rules.has_any().then_some(proxy.at);
        proxy.at = words[0].at;
        proxy.kind = kind;
        proxy.name.clone_from(if from == Some(1) { &words[0].text } else { &title });
        if from == Some(1) || (kind == ProxyKind::Defaults && words.len() < 2) {
            proxy.name.clear();
        }
        if kind != ProxyKind::Defaults && proxy.name.is_empty() {
            self.say(&words[0], name, Wrong, "expected a name after it");
        }
        // Old files have `listen NAME ADDRESS`.
        let address = words.get(2).filter(|_| from != Some(2) && from != Some(1));
        if let Some(word) = address.filter(|_| matches!(kind, ProxyKind::Listen | ProxyKind::Frontend)) {
            let mut scope = self.scope(&mut proxy);
            let mut arguments = Arguments::new(&words[2..], word.at);
            if let Err(fault) = bind_line(&mut scope, &mut arguments) {
                self.say(word, &word.text, Wrong, fault.problem);
            } else {
                let note = "HAProxy removed an address after the name in 1.9; write a bind line";
                self.say(word, &word.text, Treatment::Mapped, note);
            }
        }
        self.current = Current::Proxy(Box::new(proxy));
    }

    /// A proxy with the values of its `defaults`.
    fn inherited(&mut self, kind: ProxyKind, from: Option<&Word>) -> Proxy {
        let named = from.and_then(|word| self.defaults.iter().rev().find(|defaults| defaults.name == word.text));
        match (from, named) {
            (Some(word), None) => {
                let known = self.defaults.iter().map(|defaults| defaults.name.as_str());
                let hint = nearest(&word.text, known).map(|name| format!("; {name} is similar")).unwrap_or_default();
                self.say(word, &word.text, Wrong, format!("no defaults of this name stand before it{hint}"));
                Proxy::default()
            }
            (Some(_), Some(defaults)) => defaults.clone(),
            // A section `defaults` inherits nothing.
            (None, _) if kind == ProxyKind::Defaults => Proxy::default(),
            (None, _) => self.defaults.last().cloned().unwrap_or_default(),
        }
    }

    fn scope<'s>(&'s mut self, proxy: &'s mut Proxy) -> ProxyScope<'s, 's> {
        ProxyScope {
            proxy,
            findings: &mut self.findings,
            environment: self.environment,
            section: self.section,
            is_negated: false,
            outcome: None,
            keyword: "bind",
        }
    }

    fn end_section(&mut self) {
        if let Current::Proxy(proxy) = &mut self.current {
            // Lines are added when all others have been gone through.
            proxy.rules.old_request.sort_by_key(|rule| matches!(rule.action, Action::AddLine(_)));
            proxy.rules.old_response.sort_by_key(|rule| matches!(rule.action, Action::AddLine(_)));
        }
        match std::mem::replace(&mut self.current, Current::None) {
            Current::Proxy(proxy) if proxy.kind == ProxyKind::Defaults => self.defaults.push(*proxy),
            Current::Proxy(proxy) => self.model.proxies.push(*proxy),
            _ => {}
        }
    }

    fn global_line(&mut self, words: &[Word]) {
        let first = &words[0];
        let name = first.text.as_str();
        let (name, body) = match (name, words.get(1)) {
            ("no", Some(second)) => (second.text.as_str(), &words[1..]),
            _ => (name, words),
        };
        let mut arguments = Arguments::new(&body[1..], first.at);
        let (treatment, note) = if matches!(name, "set-var" | "set-var-fmt") {
            match self.process_variable(name, &mut arguments) {
                Ok(()) => (Honoured, "".into()),
                Err(Problem::Wrong(fault)) => (Wrong, fault.problem.into()),
                Err(Problem::Unsupported(fault)) => (Treatment::Refused, fault.problem.into()),
            }
        } else if let Some(known) = GLOBAL_WORDS.iter().find(|known| known.name == name) {
            match (known.read)(&mut self.model.global, &mut arguments) {
                Ok(()) => (known.treatment, known.reason.into()),
                Err(fault) => (Wrong, fault.problem.into()),
            }
        } else if global::tls_default(&mut self.model.global, name, &mut arguments) {
            (Treatment::Mapped, "what rustls has of it is kept".into())
        } else if OTHER_GLOBAL_WORDS.split_whitespace().any(|known| known == name) {
            (Ignored, "sluice's own machinery has its own settings".into())
        } else {
            let known = GLOBAL_WORDS.iter().map(|known| known.name).chain(OTHER_GLOBAL_WORDS.split_whitespace());
            let hint = nearest(name, known).map(|name| format!("; {name} is similar")).unwrap_or_default();
            (Wrong, std::borrow::Cow::from(format!("{name:?} is no word of global that sluice knows{hint}")))
        };
        self.say(first, name, treatment, note);
    }

    /// `set-var proc.NAME SAMPLE` and `set-var-fmt proc.NAME FORMAT`.
    fn process_variable(&mut self, keyword: &str, arguments: &mut Arguments<'_>) -> Result<(), Problem> {
        let name = arguments.expect("the name of a variable")?;
        if !name.text.starts_with("proc.") {
            return Err(Problem::wrong(name.at, format!("{:?}: variables of global begin with proc.", name.text)));
        }
        let value = arguments.expect("a value")?;
        let context = RuleContext { environment: self.environment, acls: &[] };
        let format = match keyword {
            "set-var" => Format::of_sample(Sample::parse(&value.text, value.at, context)?),
            _ => Format::parse(&value.text, value.at, context)?,
        };
        arguments.finish()?;
        self.model.global.process_variables.push((name.text.clone(), format));
        Ok(())
    }

    fn small_line(&mut self, section: &'static str, words: &[Word]) {
        let first = &words[0];
        let mut words_of = SMALL_WORDS.iter().filter(|word| word.section == section);
        let Some(known) = words_of.find(|word| word.name == first.text) else {
            let siblings = SMALL_WORDS.iter().filter(|word| word.section == section).map(|word| word.name);
            let hint = nearest(&first.text, siblings).map(|name| format!("; {name} is similar")).unwrap_or_default();
            self.say(first, &first.text, Wrong, format!("{:?} is no word of {section}{hint}", first.text));
            return;
        };
        let mut arguments = Arguments::new(&words[1..], first.at);
        match small::read(&mut self.model, section, known.name, &mut arguments) {
            Ok(None) => self.say(first, known.name, known.treatment, known.reason),
            Ok(Some((treatment, note))) => self.say(first, known.name, treatment, note),
            Err(fault) => self.say(first, known.name, Wrong, fault.problem),
        }
    }
}
