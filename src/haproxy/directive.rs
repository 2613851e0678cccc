//! The conditions of `.if` and `.elif` (configuration.txt section 2.4).

use super::environment::Environment;

/// The version of HAProxy for which conditions are evaluated: the one whose behaviour sluice is compared with.
const VERSION: &str = "2.6";

/// Features that conditions find present, because sluice has an equivalent.
const FEATURES: [&str; 5] = ["EPOLL", "OPENSSL", "THREAD", "GETADDRINFO", "TFO"];

/// The deepest nesting of parentheses.
const MAX_DEPTH: usize = 64;

/// Evaluates a condition; an empty one is false. `&&` binds closer than `||`.
pub(super) fn evaluate(text: &str, environment: &Environment<'_>) -> Result<bool, String> {
    if text.trim().is_empty() {
        return Ok(false);
    }
    let mut parser = Parser { rest: text, environment, depth: 0 };
    let decision = parser.or()?;
    match parser.rest.trim_start() {
        "" => Ok(decision),
        rest => Err(format!("expected && or || before {rest:?}")),
    }
}

struct Parser<'a, 'e> {
    rest: &'a str,
    environment: &'a Environment<'e>,
    depth: usize,
}

impl<'a> Parser<'a, '_> {
    fn accept(&mut self, token: &str) -> bool {
        let rest = self.rest.trim_start().strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn or(&mut self) -> Result<bool, String> {
        let mut decision = self.and()?;
        while self.accept("||") {
            decision |= self.and()?;
        }
        Ok(decision)
    }

    fn and(&mut self) -> Result<bool, String> {
        let mut decision = self.term()?;
        while self.accept("&&") {
            decision &= self.term()?;
        }
        Ok(decision)
    }

    fn term(&mut self) -> Result<bool, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("the condition is nested too deeply".to_owned());
        }
        let decision = if self.accept("!") {
            !self.term()?
        } else if self.accept("(") {
            let decision = self.or()?;
            if !self.accept(")") {
                return Err("expected ) in the condition".to_owned());
            }
            decision
        } else {
            self.predicate()?
        };
        self.depth -= 1;
        Ok(decision)
    }

    fn predicate(&mut self) -> Result<bool, String> {
        let text = self.rest.trim_start();
        let len = text.find(|char: char| !char.is_ascii_alphanumeric() && char != '_').unwrap_or(text.len());
        let (name, rest) = text.split_at(len);
        if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit()) {
            self.rest = rest;
            return Ok(name.bytes().any(|byte| byte != b'0'));
        }
        let unknown = || format!("{:?} is no condition that sluice knows; see configuration.txt section 2.4", text);
        let inside = rest.strip_prefix('(');
        let (inside, after) = match inside {
            Some(inside) => inside.split_once(')').ok_or("expected ) in the condition")?,
            None => ("", rest),
        };
        self.rest = after;
        let arguments: Vec<&'a str> = inside.split(',').collect();
        match (name, arguments.as_slice()) {
            ("defined", [name]) => Ok(self.environment.variable(name).is_some()),
            ("feature", [name]) => Ok(FEATURES.contains(name)),
            ("streq", [one, other]) => Ok(one == other),
            ("strneq", [one, other]) => Ok(one != other),
            ("strstr", [text, part]) => Ok(text.contains(part)),
            ("version_atleast", [version]) => Ok(parts(VERSION) >= parts(version)),
            ("version_before", [version]) => Ok(parts(VERSION) < parts(version)),
            // rustls is not OpenSSL; the branch for an old OpenSSL is the safe one.
            ("openssl_version_atleast" | "ssllib_name_startswith" | "awslc_api_atleast" | "fips_mode", _) => Ok(false),
            ("openssl_version_before" | "awslc_api_before", [_]) => Ok(true),
            ("enabled", [option]) => Ok(["EPOLL", "GETADDRINFO", "REUSEPORT"].contains(option)),
            _ => Err(unknown()),
        }
    }
}

/// The numbers of a version such as `2.4-dev19`; a development version precedes its release.
fn parts(version: &str) -> (u32, u32, u32) {
    let (numbers, is_development) = match version.split_once("-dev") {
        Some((numbers, _)) => (numbers, true),
        None => (version, false),
    };
    let mut numbers = numbers.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let patch = numbers.next().unwrap_or(0).saturating_mul(2);
    (major, minor, if is_development { patch } else { patch.saturating_add(1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_decided() {
        let environment = Environment::new([("A".into(), String::new())], &|_| Err("none".into()));
        let table = [
            ("", Ok(false)),
            ("0", Ok(false)),
            ("10", Ok(true)),
            ("!0", Ok(true)),
            ("defined(A)", Ok(true)),
            ("defined( A )", Ok(false)),
            ("!defined(B) && feature(OPENSSL)", Ok(true)),
            ("0 && 1 || 1", Ok(true)),
            ("0 && (1 || 1)", Ok(false)),
            ("streq(a,a)", Ok(true)),
            ("streq(a, a)", Ok(false)),
            ("strneq(,)", Ok(false)),
            ("strstr(abc,b)", Ok(true)),
            ("version_atleast(2.4-dev19)", Ok(true)),
            ("version_atleast(2.6)", Ok(true)),
            ("version_atleast(2.6.1)", Ok(false)),
            ("version_before(2.6-dev1)", Ok(false)),
            ("version_before(3)", Ok(true)),
            ("feature(LUA)", Ok(false)),
            ("foo(1)", Err("no condition")),
            ("streq(a)", Err("no condition")),
            ("1 1", Err("expected &&")),
            ("(1", Err("expected )")),
            ("defined(A", Err("expected )")),
            ("&&", Err("no condition")),
        ];
        for (text, expected) in table {
            match (evaluate(text, &environment), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{text}"),
                (Err(found), Err(expected)) => assert!(found.contains(expected), "{text}: {found}"),
                (found, expected) => panic!("{text}: {found:?}, expected {expected:?}"),
            }
        }
        assert!(evaluate(&"(".repeat(1000), &environment).is_err());
        assert!(evaluate(&"!".repeat(100_000), &environment).is_err());
    }
}
