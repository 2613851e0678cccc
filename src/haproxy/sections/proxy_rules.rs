//! Lines of a proxy with rules.

use super::arguments::Arguments;
use super::captures;
use super::scope::ProxyScope;
use crate::haproxy::keyword::Treatment::{Honoured, Ignored, Lost, Mapped, Refused};
use crate::haproxy::position::Fault;
use crate::haproxy::rules::{
    Acl, Action, BackendRule, BackendTarget, Format, LocalResponse, Parsed, Problem, Regex, Rule, RuleSet, ServerRule,
    Side, is_acl_name, parse_acl, parse_action, parse_condition, parse_redirect,
};
use crate::wire::is_token;

type Outcome = Result<(), Fault>;

pub(super) fn acl(scope: &mut ProxyScope<'_, '_>, arguments: &mut Arguments<'_>) -> Outcome {
    let name = arguments.expect("the name of the ACL")?;
    if !is_acl_name(&name.text) {
        return Err(Fault::new(name.at, format!("{:?} is no name of an ACL; use letters, digits, - _ . :", name.text)));
    }
    if matches!(name.text.as_str(), "or" | "if" | "unless") {
        return Err(Fault::new(name.at, format!("{:?} is a word of conditions, not a name", name.text)));
    }
    arguments.words.first().ok_or_else(|| Fault::new(arguments.at, "expected a criterion such as path_beg"))?;
    let criterion = scope.with_rules(|context| parse_acl(arguments.words, context));
    // Earlier rules with this name count on all of its lines.
    let is_later = scope.proxy.acls.iter().any(|acl| acl.name == name.text && acl.unsupported.is_none());
    let index = scope.proxy.acls.iter().position(|acl| acl.name == name.text).unwrap_or_else(|| {
        scope.proxy.acls.push(Acl { name: name.text.clone(), tests: Vec::new(), unsupported: None });
        scope.proxy.acls.len() - 1
    });
    match criterion {
        Ok(criterion) => scope.proxy.acls[index].tests.push(criterion),
        Err(Problem::Wrong(fault)) => {
            // Lines that use it need not report it again.
            scope.proxy.acls[index].unsupported = Some("its line is wrong".to_owned());
            return Err(fault);
        }
        // A rule that uses the ACL is refused or lost by its own effect; an unused ACL loses nothing.
        Err(Problem::Unsupported(fault)) => {
            scope.outcome = Some((if is_later { Refused } else { Lost }, fault.problem.clone()));
            scope.proxy.acls[index].unsupported = Some(fault.problem);
        }
    }
    Ok(())
}

pub(super) fn use_backend(scope: &mut ProxyScope<'_, '_>, arguments: &mut Arguments<'_>) -> Outcome {
    let name = arguments.expect("a backend")?;
    let format = scope.with_rules(|context| Format::parse(&name.text, name.at, context));
    let condition = scope.with_rules(|context| parse_condition(arguments.words, context));
    let (Some(format), Some(condition)) = (scope.settle(format, true)?, scope.settle(condition, true)?) else {
        return Ok(());
    };
    let target = match format.as_text() {
        Some(text) => BackendTarget::Named(text.to_owned()),
        None => BackendTarget::Dynamic(format),
    };
    scope.proxy.rules.use_backend.push(BackendRule { target, condition, at: name.at });
    Ok(())
}

pub(super) fn default_backend(scope: &mut ProxyScope<'_, '_>, arguments: &mut Arguments<'_>) -> Outcome {
    let name = arguments.expect("a backend")?;
    scope.proxy.default_backend = Some((name.text.clone(), name.at));
    // Old files end the line with a condition, which HAProxy warns of and ignores.
    if let Some(word) = arguments.words.first() {
        scope.note(word, Ignored, "default_backend has no condition; HAProxy does not read it either");
    }
    Ok(())
}

pub(super) fn use_server(scope: &mut ProxyScope<'_, '_>, arguments: &mut Arguments<'_>) -> Outcome {
    let name = arguments.expect("a server")?;
    let condition = scope.with_rules(|context| parse_condition(arguments.words, context));
    let Some(condition) = scope.settle(condition, true)? else { return Ok(()) };
    if name.text.contains('%') {
        scope.outcome = Some((Refused, "a server is chosen by its name, not by a format".to_owned()));
        return Ok(());
    }
    scope.proxy.rules.use_server.push(ServerRule { server: name.text.clone(), condition, at: name.at });
    Ok(())
}

pub(super) fn redirect(scope: &mut ProxyScope<'_, '_>, arguments: &mut Arguments<'_>) -> Outcome {
    let rule = scope.with_rules(|context| parse_redirect(arguments.words, arguments.at, context));
    let rule = scope.settle(rule, true)?;
    scope.proxy.rules.redirects.extend(rule);
    Ok(())
}

pub(super) fn rule(scope: &mut ProxyScope<'_, '_>, arguments: &mut Arguments<'_>) -> Outcome {
    let set = match scope.keyword {
        "http-request" => RuleSet::Request,
        "http-response" => RuleSet::Response,
        "http-after-response" => RuleSet::AfterResponse,
        "tcp-request connection" | "tcp-request session" => RuleSet::Connection,
        "tcp-request content" => RuleSet::Content,
        _ => RuleSet::ResponseContent,
    };
    let parsed = scope.with_rules(|context| parse_action(arguments.words, set, arguments.at, context));
    let mut rule = match parsed {
        Err((problem, decisive)) => return scope.settle(Err::<(), _>(problem), decisive).map(|_| ()),
        Ok(Parsed::Skipped(treatment, note)) => {
            scope.outcome = Some((treatment, note));
            return Ok(());
        }
        Ok(Parsed::Rule(rule, treatment, note)) => {
            if treatment != Honoured {
                scope.outcome = Some((treatment, note.to_owned()));
            }
            *rule
        }
    };
    if let Action::Capture { slot, len, .. } = &mut rule.action {
        let side = if set.is_of_responses() { Side::Response } else { Side::Request };
        *slot = captures::slot(scope, (*slot, *len), side, rule.at)?;
    }
    let rules = &mut scope.proxy.rules;
    let list = match set {
        RuleSet::Request => &mut rules.request,
        RuleSet::Response => &mut rules.response,
        RuleSet::AfterResponse => &mut rules.after_response,
        RuleSet::Connection => &mut rules.connection,
        RuleSet::Content => &mut rules.content,
        RuleSet::ResponseContent => {
            let problem = "rules on the bytes of responses are not evaluated";
            scope.outcome = Some((Refused, problem.to_owned()));
            return Ok(());
        }
    };
    list.push(rule);
    Ok(())
}

/// Parses `block if …` of old files.
pub(super) fn block(scope: &mut ProxyScope<'_, '_>, arguments: &mut Arguments<'_>) -> Outcome {
    let condition = scope.with_rules(|context| parse_condition(arguments.words, context));
    let Some(condition) = scope.settle(condition, true)? else { return Ok(()) };
    let action = Action::Deny(LocalResponse::default());
    // These rules come before all of http-request.
    let is_block = |rule: &Rule| rule.action == Action::Deny(LocalResponse::default());
    let end = scope.proxy.rules.request.iter().take_while(|rule| is_block(rule)).count();
    scope.proxy.rules.request.insert(end, Rule { action, condition, at: arguments.at });
    Ok(())
}

/// `monitor fail if …`.
pub(super) fn monitor_fail(scope: &mut ProxyScope<'_, '_>, arguments: &mut Arguments<'_>) -> Outcome {
    let condition = scope.with_rules(|context| parse_condition(arguments.words, context));
    let condition = scope.settle(condition, true)?.flatten();
    scope.proxy.monitor_fail.extend(condition);
    Ok(())
}

/// Parses `reqrep`, `rspadd` and the other keywords that HAProxy had until 2.0.
pub(super) fn old(scope: &mut ProxyScope<'_, '_>, arguments: &mut Arguments<'_>) -> Outcome {
    let (side, verb) = scope.keyword.split_at(3);
    let (ignore_case, verb) = match verb.strip_prefix('i') {
        Some(verb) => (true, verb),
        None => (false, verb),
    };
    let word = arguments.expect("a regular expression or a header")?;
    if verb == "pass" {
        arguments.rest();
        scope.outcome = Some((Ignored, "it changes nothing in HAProxy either; the word was removed in 2.1".to_owned()));
        return Ok(());
    }
    let regex =
        || Regex::new(&word.text, ignore_case).map_err(|problem| Problem::Unsupported(Fault::new(word.at, problem)));
    let action = match verb {
        "add" => match word.text.split_once(':') {
            Some((name, _)) if is_token(name.as_bytes()) => Ok(Action::AddLine(word.text.clone())),
            _ => {
                let problem = format!("{:?} is no header line such as X-Name:\\ value", word.text);
                Err(Problem::Unsupported(Fault::new(word.at, problem)))
            }
        },
        "rep" => {
            let replacement = arguments.text("a replacement")?;
            regex().map(|regex| Action::ReplaceLine(regex, replacement))
        }
        "del" => regex().map(Action::DelLine),
        "deny" => regex().map(Action::DenyLine),
        "allow" => regex().map(Action::AllowLine),
        _ => {
            scope.outcome = Some((Refused, "use http-request deny, tarpit or set-header".to_owned()));
            return Ok(());
        }
    };
    let is_decisive = side == "req" || verb == "deny";
    let condition = scope.with_rules(|context| parse_condition(arguments.words, context));
    let (Some(action), Some(condition)) = (scope.settle(action, is_decisive)?, scope.settle(condition, is_decisive)?)
    else {
        return Ok(());
    };
    let rules = &mut scope.proxy.rules;
    let list = if side == "req" { &mut rules.old_request } else { &mut rules.old_response };
    list.push(Rule { action, condition, at: arguments.at });
    let note = "HAProxy removed this word in 2.1; write http-request or http-response instead";
    scope.outcome = Some((Mapped, note.to_owned()));
    Ok(())
}

/// Parses `log-format`, `unique-id-format`, `error-log-format`: formats that must be valid.
pub(super) fn format(scope: &mut ProxyScope<'_, '_>, arguments: &mut Arguments<'_>) -> Outcome {
    let word = arguments.expect("a format")?;
    let format = scope.with_rules(|context| Format::parse(&word.text, word.at, context));
    // A log line without one of its columns is a loss, not a danger.
    let format = scope.settle(format, false)?;
    match scope.keyword {
        "unique-id-format" => scope.proxy.unique_id_format = format.map(Format::for_message),
        _ => scope.proxy.log_format = format,
    }
    arguments.finish()
}
