//! Captures: values of a message that are kept for later rules.

use super::arguments::Arguments;
use super::scope::ProxyScope;
use crate::haproxy::model::{Capture, ProxyKind};
use crate::haproxy::position::{Fault, Position};
use crate::haproxy::rules::Side;

/// `capture request header` and `capture response header`.
pub(super) fn header(scope: &mut ProxyScope<'_, '_>, arguments: &mut Arguments<'_>) -> Result<(), Fault> {
    let header = Some(arguments.text("the name of a header")?);
    let len = len(arguments)?;
    let captures = &mut scope.proxy.captures;
    let is_request = scope.keyword == "capture request header";
    let list = if is_request { &mut captures.request } else { &mut captures.response };
    list.push(Capture { header, len });
    arguments.finish()
}

/// `declare capture`: a slot for rules.
pub(super) fn declare(scope: &mut ProxyScope<'_, '_>, arguments: &mut Arguments<'_>) -> Result<(), Fault> {
    let word = arguments.expect("request or response")?;
    let captures = &mut scope.proxy.captures;
    let list = match word.text.as_str() {
        "request" => &mut captures.request,
        "response" => &mut captures.response,
        other => return Err(Fault::new(word.at, format!("{other:?} is neither request nor response"))),
    };
    list.push(Capture { header: None, len: len(arguments)? });
    arguments.finish()
}

fn len(arguments: &mut Arguments<'_>) -> Result<usize, Fault> {
    let at = arguments.at;
    if !arguments.accept("len") {
        return Err(Fault::new(at, "expected len and a number of bytes"));
    }
    let len = usize::try_from(arguments.number("a number of bytes")?).ok().filter(|len| *len > 0);
    len.ok_or_else(|| Fault::new(at, "expected len and a number of bytes from 1 on"))
}

/// The slot of an action `capture`: a new one for its `len`, otherwise that of its `id`.
pub(super) fn slot(
    scope: &mut ProxyScope<'_, '_>,
    (slot, len): (usize, Option<usize>),
    side: Side,
    at: Position,
) -> Result<usize, Fault> {
    let Some(len) = len else { return Ok(slot) };
    if side == Side::Response || scope.proxy.kind == ProxyKind::Backend {
        return Err(Fault::new(at, "len makes a slot for requests of a frontend only; write id and a slot"));
    }
    scope.proxy.captures.request.push(Capture { header: None, len });
    Ok(scope.proxy.captures.request.len() - 1)
}
