//! Failed requests in the program's own log, at the default level: one line for each backend, reason and minute.

use crate::base::clock::Moment;
use crate::base::reason::FailureReason;
use crate::exchange::{Exchange, Settings};
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

/// The interval in which a kind of failure is logged once.
const SPAN: Duration = Duration::from_secs(60);

/// The greatest number of kinds; further kinds are not logged until old ones expire.
const MAX_KINDS: usize = 4096;

/// The backend's URL, or the host of a request without a backend, and the reason.
type Kind = (Box<str>, FailureReason);

/// The moment from which the kind is logged again, and the number of its failures since its last line.
#[derive(Clone, Copy, Debug)]
struct Told {
    next: Moment,
    suppressed: u64,
}

/// Kinds of failures of a worker or of the process.
#[derive(Debug, Default)]
pub(super) struct FailureLog(HashMap<Kind, Told>);

/// Failures that all workers have logged. A worker locks it only where it would log a line itself: once a kind and
/// minute.
static PROCESS: LazyLock<Mutex<FailureLog>> = LazyLock::new(Mutex::default);

impl FailureLog {
    /// Logs a failure, unless one of its kind was logged within the minute.
    #[cold]
    pub(super) fn failed(
        &mut self,
        host: &str,
        exchange: &Exchange,
        reason: FailureReason,
        (settings, now): (&Settings, Moment),
    ) {
        if !reason.is_of_backend() {
            return;
        }
        // One that another process has begun may have no member here.
        let backend = exchange.permit().map(|permit| permit.member().url.to_string());
        let backend = backend.or_else(|| exchange.origin().map(|origin| origin.backend_url().to_owned()));
        let kind = backend.as_deref().unwrap_or(host);
        let Some(suppressed) = self.admit(kind, reason, now) else { return };
        if PROCESS.lock().unwrap_or_else(PoisonError::into_inner).admit(kind, reason, now).is_none() {
            return;
        }
        let at = backend.as_ref().map(|url| format!(" at backend {url}")).unwrap_or_default();
        let fault = exchange.stats().fault.as_ref().filter(|_| reason == FailureReason::UpstreamMalformed);
        let fault = fault.map(|fault| format!(", {fault}")).unwrap_or_default();
        let setting = exchange.ended_by(settings).map(|setting| format!(", ended by {setting}")).unwrap_or_default();
        let status = match reason.status() {
            0 => "response cut".to_owned(),
            status => status.to_string(),
        };
        let more = if suppressed == 0 {
            String::new()
        } else {
            format!("; {suppressed} more of this kind since the last line")
        };
        log::warn!(
            host = host, backend = backend.as_deref().unwrap_or("-"), reason = reason.name(), status = reason.status();
            "{host}: a request failed{at}: {reason} ({status}{setting}{fault}){more}"
        );
    }

    /// The number of failures of this kind that were not logged; `None` if this one is not logged either.
    fn admit(&mut self, kind: &str, reason: FailureReason, now: Moment) -> Option<u64> {
        if self.0.len() >= MAX_KINDS {
            self.0.retain(|_, told| told.next > now);
        }
        if let Some(told) = self.0.get_mut(&(Box::from(kind), reason)) {
            if told.next > now {
                told.suppressed += 1;
                return None;
            }
            told.next = now + SPAN;
            return Some(std::mem::take(&mut told.suppressed));
        }
        if self.0.len() >= MAX_KINDS {
            return None;
        }
        self.0.insert((kind.into(), reason), Told { next: now + SPAN, suppressed: 0 });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_has_one_line_a_minute_and_the_others_are_counted() {
        let mut failures = FailureLog::default();
        let mut now = Moment::ZERO + Duration::from_secs(5);
        let mut admit = |kind: &str, reason, now| failures.admit(kind, reason, now);
        assert_eq!(admit("http://a", FailureReason::ConnectFailed, now), Some(0));
        assert_eq!(admit("http://a", FailureReason::ConnectFailed, now), None);
        assert_eq!(admit("http://a", FailureReason::ResponseTimeout, now), Some(0));
        assert_eq!(admit("http://b", FailureReason::ConnectFailed, now), Some(0));
        now = now + SPAN;
        assert_eq!(admit("http://a", FailureReason::ConnectFailed, now), Some(1));
        assert_eq!(admit("http://a", FailureReason::ResponseTimeout, now), Some(0));
        for number in 0..2 * MAX_KINDS {
            admit(&number.to_string(), FailureReason::ConnectFailed, now);
        }
        assert!(failures.0.len() <= MAX_KINDS);
    }
}
