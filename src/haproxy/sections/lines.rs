//! Lines with parameters: `bind`, `server` and related ones, `log`.

use super::arguments::{Arguments, expanded};
use super::bind::BIND_WORDS;
use super::scope::ProxyScope;
use super::server::SERVER_WORDS;
use crate::haproxy::address::{self, AddressProblem};
use crate::haproxy::keyword::Treatment::{Lost, Mapped, Refused};
use crate::haproxy::lexer::Word;
use crate::haproxy::model::{Bind, LogTarget, Server, ServerName, Template};
use crate::haproxy::position::Fault;

/// `bind`.
pub(super) fn bind_line(scope: &mut ProxyScope<'_, '_>, arguments: &mut Arguments<'_>) -> Result<(), Fault> {
    let word = arguments.expect("an address such as *:80")?;
    let mut bind = Bind { at: word.at, ..Bind::default() };
    for text in expanded(word, scope.environment).split(',') {
        match address::bind(text) {
            Ok(address) => bind.addresses.push(address),
            Err(AddressProblem::Wrong(problem)) => return Err(Fault::new(word.at, problem)),
            Err(AddressProblem::Unsupported(problem)) => scope.note(word, Lost, problem),
        }
    }
    scope.parameters(BIND_WORDS, &mut bind, arguments)?;
    if bind.is_tls && bind.certificates.is_empty() && bind.certificate_lists.is_empty() {
        scope.note(word, Mapped, "ssl without crt: certificates come from sluice's own store");
    }
    if !bind.addresses.is_empty() {
        scope.proxy.binds.push(bind);
    }
    Ok(())
}

/// Parses the address of a server.
fn server_address(scope: &mut ProxyScope<'_, '_>, word: &Word, server: &mut Server) -> Result<bool, Fault> {
    match address::server(&expanded(word, scope.environment)) {
        Ok(address) => {
            if address.host.is_empty() {
                scope.outcome =
                    Some((Refused, "a server is an address; the client's own destination is not used".to_owned()));
                return Ok(false);
            }
            server.address = address;
            Ok(true)
        }
        Err(AddressProblem::Wrong(problem)) => Err(Fault::new(word.at, problem)),
        Err(AddressProblem::Unsupported(problem)) => {
            scope.outcome = Some((Refused, problem));
            Ok(false)
        }
    }
}

/// `server`.
pub(super) fn server_line(scope: &mut ProxyScope<'_, '_>, arguments: &mut Arguments<'_>) -> Result<(), Fault> {
    let name = arguments.expect("a name")?;
    let address = arguments.expect("an address after the name")?;
    let mut server = scope.proxy.default_server.clone();
    server.id = ServerName { name: name.text.clone(), at: name.at };
    let is_usable = server_address(scope, address, &mut server)?;
    scope.parameters(SERVER_WORDS, &mut server, arguments)?;
    if is_usable {
        scope.proxy.servers.push(server);
    }
    Ok(())
}

/// `server-template PREFIX COUNT ADDRESS …`.
pub(super) fn server_template(scope: &mut ProxyScope<'_, '_>, arguments: &mut Arguments<'_>) -> Result<(), Fault> {
    let name = arguments.expect("a prefix")?;
    let count = arguments.expect("a number or a range")?;
    let (first, last) = count.text.split_once('-').unwrap_or(("1", &count.text));
    let range = first.parse::<u32>().ok().zip(last.parse::<u32>().ok());
    let range = range.filter(|(first, last)| first <= last && last - first < 10_000);
    let (first, last) =
        range.ok_or_else(|| Fault::new(count.at, format!("{:?} is no number or range up to 10000", count.text)))?;
    let address = arguments.expect("an address")?;
    let mut server = scope.proxy.default_server.clone();
    server.id = ServerName { name: name.text.clone(), at: name.at };
    server.template = Some(Template { first, last });
    let is_usable = server_address(scope, address, &mut server)?;
    scope.parameters(SERVER_WORDS, &mut server, arguments)?;
    if is_usable {
        scope.proxy.servers.push(server);
    }
    Ok(())
}

/// `default-server`.
pub(super) fn default_server(scope: &mut ProxyScope<'_, '_>, arguments: &mut Arguments<'_>) -> Result<(), Fault> {
    let mut server = scope.proxy.default_server.clone();
    scope.parameters(SERVER_WORDS, &mut server, arguments)?;
    scope.proxy.default_server = server;
    Ok(())
}

/// `log` of a proxy.
pub(super) fn log_line(scope: &mut ProxyScope<'_, '_>, arguments: &mut Arguments<'_>) -> Result<(), Fault> {
    if scope.is_negated {
        scope.proxy.logs.clear();
        return arguments.finish();
    }
    let target = log_target(arguments)?;
    scope.proxy.logs.push(target);
    Ok(())
}

/// `log global` or `log ADDRESS [len …] FACILITY [LEVEL]`.
pub(super) fn log_target(arguments: &mut Arguments<'_>) -> Result<LogTarget, Fault> {
    let address = arguments.text("an address, stdout or global")?;
    if address == "global" {
        return Ok(LogTarget::Global);
    }
    let mut words = arguments.rest().into_iter().peekable();
    while words.peek().is_some_and(|word| matches!(word.as_str(), "len" | "format" | "sample" | "profile")) {
        words.next();
        words.next();
    }
    let facility = words.next().unwrap_or_default();
    Ok(LogTarget::Address { address, facility, level: words.next() })
}
