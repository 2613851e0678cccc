//! Parsing of the actions of `http-request` and related keywords.

use super::acl::parse_condition;
use super::action::{Action, LocalResponse, Redirect, RedirectKind, Rule};
use super::fetch::Counter;
use super::format::{Format, FormatPart, can_render};
use super::pattern::text_match;
use super::regex::Regex;
use super::words::{RuleSet, actions, nearest_action};
use super::{Problem, RuleContext, fetch};
use crate::haproxy::keyword::Treatment;
use crate::haproxy::lexer::Word;
use crate::haproxy::position::Position;
use crate::haproxy::rules::{Sample, TextMatch};
use crate::wire::is_token;
use std::path::Path;

/// The result for a line.
pub(in super::super) enum Parsed {
    /// A rule.
    Rule(Box<Rule>, Treatment, &'static str),
    /// The action is irrelevant here, or left out, and affects no decision.
    Skipped(Treatment, String),
}

/// Parses an action and its condition. The flag of an error is whether the action affects a decision.
pub(in super::super) fn parse_action(
    words: &[Word],
    set: RuleSet,
    keyword_at: Position,
    context: RuleContext<'_, '_>,
) -> Result<Parsed, (Problem, bool)> {
    let Some((first, rest)) = words.split_first() else {
        return Err((Problem::wrong(keyword_at, "expected an action"), true));
    };
    // For `set-var(txn.x)` and `lua.name`.
    let name = first.text.split('(').next().unwrap_or_default();
    let Some(word) = actions().iter().find(|word| word.name == name) else {
        if name.starts_with("lua.") {
            return Err((Problem::unsupported(first.at, format!("{name}: sluice runs no Lua")), true));
        }
        let nearest = nearest_action(name).map(|name| format!("; {name} is similar")).unwrap_or_default();
        return Err((Problem::wrong(first.at, format!("{name:?} is no action of HAProxy{nearest}")), true));
    };
    if !word.is_allowed_in(set) {
        return Err((Problem::wrong(first.at, format!("the action {name} does not stand in this list")), true));
    }
    let is_decisive = if set.is_of_responses() { word.decides_response } else { word.decides_request };
    match word.treatment {
        Treatment::Ignored => return Ok(Parsed::Skipped(Treatment::Ignored, word.reason.to_owned())),
        Treatment::Lost => return Ok(Parsed::Skipped(Treatment::Lost, word.reason.to_owned())),
        Treatment::Refused => {
            return Err((Problem::unsupported(first.at, format!("{name}: {}", word.reason)), is_decisive));
        }
        _ => {}
    }
    let mut cursor = Cursor { words: rest, at: first.at, context };
    let action = action(name, &first.text, &mut cursor).map_err(|problem| (problem, is_decisive))?;
    let condition = parse_condition(cursor.words, context).map_err(|problem| (problem, is_decisive))?;
    Ok(Parsed::Rule(Box::new(Rule { action, condition, at: first.at }), word.treatment, word.reason))
}

/// Parses the parameters of the keyword `redirect`, or of the action with that name.
pub(in super::super) fn parse_redirect(
    words: &[Word],
    at: Position,
    context: RuleContext<'_, '_>,
) -> Result<Rule, Problem> {
    let mut cursor = Cursor { words, at, context };
    let redirect = cursor.redirect()?;
    let condition = parse_condition(cursor.words, context)?;
    Ok(Rule { action: Action::Redirect(redirect), condition, at })
}

/// The words after an action, up to its condition.
struct Cursor<'w, 'a, 'e> {
    words: &'w [Word],
    at: Position,
    context: RuleContext<'a, 'e>,
}

impl<'w> Cursor<'w, '_, '_> {
    fn take(&mut self, expected: &str) -> Result<&'w Word, Problem> {
        let (word, rest) =
            self.words.split_first().ok_or_else(|| Problem::wrong(self.at, format!("expected {expected}")))?;
        self.words = rest;
        Ok(word)
    }

    /// The next word, unless it begins the condition.
    fn option(&mut self) -> Option<&'w Word> {
        let (word, rest) = self.words.split_first()?;
        if word.text == "if" || word.text == "unless" {
            return None;
        }
        self.words = rest;
        Some(word)
    }

    fn format(&mut self, expected: &str) -> Result<Format, Problem> {
        self.plain_format(expected).map(Format::for_message)
    }

    /// A format with all of its flags, as variables have it.
    fn plain_format(&mut self, expected: &str) -> Result<Format, Problem> {
        let word = self.take(expected)?;
        self.known_format(&word.text, word.at)
    }

    /// The format that a file consists of.
    fn format_in_file(&mut self) -> Result<Format, Problem> {
        let word = self.take("a file")?;
        let text = self.context.environment.read(Path::new(&word.text));
        let text =
            text.map_err(|problem| Problem::unsupported(word.at, format!("{} cannot be read: {problem}", word.text)))?;
        self.known_format(&text, word.at).map(Format::for_message)
    }

    /// A format all of whose parts can be rendered.
    fn known_format(&self, text: &str, at: Position) -> Result<Format, Problem> {
        let format = Format::parse(text, at, self.context)?;
        let mut aliases = format.parts.iter().filter_map(|part| match part {
            FormatPart::Alias(alias, _) => Some(*alias),
            _ => None,
        });
        match aliases.find(|alias| !can_render(alias)) {
            Some(alias) => {
                Err(Problem::unsupported(at, format!("%{alias}: outside of the log sluice does not have it")))
            }
            None => Ok(format),
        }
    }

    fn sample(&mut self, expected: &str) -> Result<Sample, Problem> {
        let word = self.take(expected)?;
        Sample::parse(&word.text, word.at, self.context)
    }

    fn regex(&mut self, ignore_case: bool) -> Result<Regex, Problem> {
        let word = self.take("a regular expression")?;
        Regex::new(&word.text, ignore_case).map_err(|problem| Problem::unsupported(word.at, problem))
    }

    fn name(&mut self) -> Result<String, Problem> {
        let word = self.take("the name of a header")?;
        if !is_token(word.text.as_bytes()) {
            let problem = format!("{:?} is no name of a header, and sluice sends no such field", word.text);
            return Err(Problem::unsupported(word.at, problem));
        }
        Ok(word.text.clone())
    }

    fn status(&mut self, range: std::ops::RangeInclusive<u16>) -> Result<u16, Problem> {
        let word = self.take("a status")?;
        let status = word.text.parse().ok().filter(|status| range.contains(status));
        status.ok_or_else(|| {
            let problem = format!("{:?} is no status from {} to {}", word.text, range.start(), range.end());
            Problem::wrong(word.at, problem)
        })
    }

    fn redirect(&mut self) -> Result<Redirect, Problem> {
        let mut kind = None;
        let mut redirect = Redirect {
            kind: RedirectKind::Location(Format::default()),
            status: 302,
            drop_query: false,
            keep_query: false,
            append_slash: false,
            ignore_empty: false,
            set_cookie: None,
            clear_cookie: None,
        };
        while let Some(word) = self.option() {
            match word.text.as_str() {
                "location" => kind = Some(RedirectKind::Location(self.format("a location")?)),
                "prefix" => kind = Some(RedirectKind::Prefix(self.format("a prefix")?)),
                "scheme" => kind = Some(RedirectKind::Scheme(self.format("a scheme")?)),
                "code" => {
                    let code = self.take("a status")?;
                    redirect.status = match code.text.as_str() {
                        "301" => 301,
                        "302" => 302,
                        "303" => 303,
                        "307" => 307,
                        "308" => 308,
                        other => {
                            let problem =
                                format!("{other:?} is no status of a redirect; expected 301, 302, 303, 307 or 308");
                            return Err(Problem::wrong(code.at, problem));
                        }
                    };
                }
                "drop-query" => redirect.drop_query = true,
                "keep-query" => redirect.keep_query = true,
                "append-slash" => redirect.append_slash = true,
                "ignore-empty" => redirect.ignore_empty = true,
                "set-cookie" | "set-cookie-fmt" => redirect.set_cookie = Some(self.take("a cookie")?.text.clone()),
                "clear-cookie" => redirect.clear_cookie = Some(self.take("a cookie")?.text.clone()),
                other => {
                    let expected = "location, prefix, scheme, code, drop-query, append-slash, set-cookie or if";
                    return Err(Problem::wrong(
                        word.at,
                        format!("{other:?} is no word of redirect; expected {expected}"),
                    ));
                }
            }
        }
        redirect.kind = kind.ok_or_else(|| Problem::wrong(self.at, "expected location, prefix or scheme"))?;
        Ok(redirect)
    }

    fn response(&mut self) -> Result<LocalResponse, Problem> {
        let mut response = LocalResponse::default();
        while let Some(word) = self.option() {
            match word.text.as_str() {
                "status" | "deny_status" => response.status = Some(self.status(200..=599)?),
                "content-type" => response.content_type = Some(self.take("a content type")?.text.clone()),
                "hdr" => {
                    let name = self.name()?;
                    response.headers.push((name, self.format("a value")?));
                }
                "string" => response.text = Some(Format::plain(&self.take("a text")?.text)),
                "lf-string" => response.text = Some(self.format("a format")?),
                "file" => response.file = Some(self.take("a file")?.text.clone()),
                "errorfile" => response.raw_file = Some(self.take("a file")?.text.clone()),
                "errorfiles" => response.error_group = Some(self.take("a section http-errors")?.text.clone()),
                "default-errorfiles" => response.default_errors = true,
                "lf-file" => response.text = Some(self.format_in_file()?),
                other => {
                    let expected =
                        "status, content-type, hdr, string, lf-string, file, lf-file, errorfile, errorfiles or if";
                    return Err(Problem::wrong(
                        word.at,
                        format!("{other:?} is no word of a response; expected {expected}"),
                    ));
                }
            }
        }
        Ok(response)
    }

    /// Parses `track-sc0` and related actions: the key, and the proxy that has the table.
    fn track(&mut self, name: &str) -> Result<Action, Problem> {
        let slot = name.bytes().last().map_or(0, |digit| usize::from(digit.saturating_sub(b'0')));
        let key = self.sample("a key such as src")?;
        let is_named = self.words.first().is_some_and(|word| word.text == "table");
        if !is_named {
            return Ok(Action::Track(slot, key, None));
        }
        self.option();
        Ok(Action::Track(slot, key, Some(self.take("the proxy of the table")?.text.clone())))
    }

    /// A sample, and the slot that keeps its value: a new one of a length, or that of a number.
    fn capture(&mut self) -> Result<Action, Problem> {
        let sample = self.sample("a sample")?;
        let word = self.take("len or id")?;
        let number = self.take("a number")?;
        let value = number
            .text
            .parse::<usize>()
            .map_err(|_| Problem::wrong(number.at, format!("{:?} is no number", number.text)))?;
        match word.text.as_str() {
            "len" if value > 0 => Ok(Action::Capture { sample, slot: 0, len: Some(value) }),
            "id" => Ok(Action::Capture { sample, slot: value, len: None }),
            _ => Err(Problem::wrong(word.at, "expected len and a number of bytes, or id and a slot")),
        }
    }

    fn service(&mut self) -> Result<Action, Problem> {
        let word = self.take("the name of a service")?;
        if word.text != "prometheus-exporter" {
            let problem = format!("{}: sluice has the service prometheus-exporter only", word.text);
            return Err(Problem::unsupported(word.at, problem));
        }
        Ok(Action::Metrics)
    }

    fn deleted_header(&mut self) -> Result<Action, Problem> {
        let word = self.take("the name of a header")?;
        let Some(flag) = self.words.first().filter(|word| word.text == "-m") else {
            return Ok(Action::DelHeader(word.text.clone()));
        };
        self.option();
        let method = self.take("a method")?;
        let escaped = regex::escape(&word.text);
        let pattern = match text_match(&method.text) {
            Some(TextMatch::Equal) => return Ok(Action::DelHeader(word.text.clone())),
            Some(TextMatch::Begin) => format!("^{escaped}"),
            Some(TextMatch::End) => format!("{escaped}$"),
            Some(TextMatch::Contain) => escaped,
            Some(TextMatch::Regex) => word.text.clone(),
            _ => return Err(Problem::wrong(flag.at, "expected str, beg, end, sub or reg after -m")),
        };
        let regex = Regex::new(&pattern, true).map_err(|problem| Problem::unsupported(word.at, problem))?;
        Ok(Action::DelHeadersMatching(regex))
    }
}

/// The name in the parentheses of `set-var(…)`.
fn variable(text: &str, at: Position) -> Result<String, Problem> {
    let inside = text.split_once('(').and_then(|(_, inside)| inside.strip_suffix(')'));
    let inside = inside.ok_or_else(|| Problem::wrong(at, "expected (scope.name) after the action"))?;
    // Conditions such as `ifempty` follow a comma.
    let mut parts = inside.split(',');
    let name = parts.next().unwrap_or_default();
    if parts.next().is_some() {
        return Err(Problem::unsupported(at, "conditions of set-var after a comma; use if { var(…) -m found }"));
    }
    fetch::variable(name).map_err(|problem| Problem::wrong(at, problem))
}

/// The number in the parentheses of `sc-inc-gpc0(…)`.
fn slot(text: &str, at: Position) -> Result<usize, Problem> {
    let inside = text.split_once('(').and_then(|(_, inside)| inside.strip_suffix(')'));
    let number = inside.and_then(|inside| inside.trim().parse().ok()).filter(|slot| *slot < 3);
    number.ok_or_else(|| Problem::wrong(at, "expected the number of a slot, 0 to 2, in parentheses"))
}

fn action(name: &str, text: &str, cursor: &mut Cursor<'_, '_, '_>) -> Result<Action, Problem> {
    let at = cursor.at;
    Ok(match name {
        "allow" | "accept" => Action::Allow,
        "deny" => Action::Deny(cursor.response()?),
        "tarpit" => Action::Tarpit(cursor.response()?),
        "return" => Action::Return(cursor.response()?),
        "auth" => match cursor.option() {
            None => Action::Auth(None),
            Some(word) if word.text == "realm" => Action::Auth(Some(cursor.take("a realm")?.text.clone())),
            Some(word) => return Err(Problem::wrong(word.at, "expected realm or if")),
        },
        "redirect" => Action::Redirect(cursor.redirect()?),
        "use-service" => cursor.service()?,
        "reject" => Action::Reject,
        "silent-drop" => Action::SilentDrop,
        "set-header" => Action::SetHeader(cursor.name()?, cursor.format("a value")?),
        "add-header" => Action::AddHeader(cursor.name()?, cursor.format("a value")?),
        "del-header" => cursor.deleted_header()?,
        "replace-header" => {
            Action::ReplaceHeader(cursor.name()?, cursor.regex(false)?, cursor.format("a replacement")?)
        }
        "replace-value" => Action::ReplaceValue(cursor.name()?, cursor.regex(false)?, cursor.format("a replacement")?),
        "set-method" => Action::SetMethod(cursor.format("a method")?),
        "set-path" => Action::SetPath(cursor.format("a path")?),
        "set-pathq" => Action::SetPathQuery(cursor.format("a path")?),
        "set-query" => Action::SetQuery(cursor.format("a query")?),
        "set-uri" => Action::SetUri(cursor.format("a target")?),
        "replace-path" => Action::ReplacePath(cursor.regex(false)?, cursor.format("a replacement")?),
        "replace-pathq" => Action::ReplacePathQuery(cursor.regex(false)?, cursor.format("a replacement")?),
        "replace-uri" => Action::ReplaceUri(cursor.regex(false)?, cursor.format("a replacement")?),
        "set-status" => {
            let status = cursor.status(100..=999)?;
            let has_reason = cursor.words.first().is_some_and(|word| word.text == "reason");
            let reason = if has_reason {
                cursor.option();
                Some(cursor.take("a phrase")?.text.clone())
            } else {
                None
            };
            Action::SetStatus(status, reason)
        }
        "set-var" => Action::SetVar(variable(text, at)?, cursor.sample("a sample")?),
        "set-var-fmt" => Action::SetVarFormat(variable(text, at)?, cursor.plain_format("a format")?),
        "unset-var" => Action::UnsetVar(variable(text, at)?),
        "track-sc0" | "track-sc1" | "track-sc2" => cursor.track(name)?,
        "sc-inc-gpc0" => Action::IncrementCounter(slot(text, at)?, Counter::Gpc0),
        "sc-inc-gpc1" => Action::IncrementCounter(slot(text, at)?, Counter::Gpc1),
        "sc-set-gpt0" => {
            let word = cursor.take("a number")?;
            let number = word.text.parse().map_err(|_| {
                Problem::unsupported(word.at, format!("{:?}: a tag is set to a fixed number", word.text))
            })?;
            Action::SetTag(slot(text, at)?, number)
        }
        "capture" => cursor.capture()?,
        "set-src" => Action::SetSource(cursor.sample("a sample")?),
        other => return Err(Problem::unsupported(at, format!("{other} is not read"))),
    })
}
