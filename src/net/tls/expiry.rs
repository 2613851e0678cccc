//! Certificates that expire soon or have expired.

use super::credentials::Credentials;
use std::time::{Duration, SystemTime};
use x509_cert::Certificate;
use x509_cert::der::Decode;

/// The interval of the check of certificates in use.
pub const DAY: Duration = Duration::from_secs(86_400);

/// A certificate with more time left than this is not reported.
const SOON: Duration = DAY.saturating_mul(14);

/// A certificate with more than this part of its life left is not reported either: some live for a week.
const LAST_PART: u32 = 6;

/// The greatest number of certificates named in one line.
const NAMED: usize = 10;

/// A certificate in use: its name and its validity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateInfo {
    /// The pattern, or the file.
    pub name: String,
    /// The start of its validity; `None` if it cannot be read.
    pub not_before: Option<SystemTime>,
    /// The end of its validity; `None` if it cannot be read.
    pub not_after: Option<SystemTime>,
}

impl CertificateInfo {
    /// Reads the facts of a certificate.
    pub fn of(name: &str, credentials: &Credentials) -> Self {
        let (not_before, not_after) = validity(credentials).unzip();
        Self { name: name.to_owned(), not_before, not_after }
    }
}

/// Logs certificates that expire soon or have expired, in one line for all.
pub fn warn_of_expiry<'a>(certificates: impl IntoIterator<Item = (&'a str, &'a Credentials)>, now: SystemTime) {
    if let Some(warning) = warning(certificates.into_iter().filter_map(|(name, pair)| Some((name, left(pair, now)?)))) {
        log::warn!("{warning}");
    }
}

fn warning<'a>(certificates: impl Iterator<Item = (&'a str, Left)>) -> Option<String> {
    let mut old: Vec<_> = certificates.filter(|(_, left)| left.is_news()).collect();
    // Certificates that expire first come first.
    old.sort_by_key(|(name, left)| (left.time, *name));
    let named: Vec<String> = old.iter().take(NAMED).map(|(name, left)| format!("{name} ({left})")).collect();
    let more = match old.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!old.is_empty()).then(|| format!("certificates to be renewed: {}{more}", named.join(", ")))
}

/// The remaining life of a certificate.
#[derive(Clone, Copy)]
struct Left {
    /// `None` if it has expired.
    time: Option<Duration>,
    life: Duration,
}

impl Left {
    fn is_news(&self) -> bool {
        self.time.is_none_or(|left| left < SOON.min(self.life / LAST_PART))
    }
}

impl std::fmt::Display for Left {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.time.map(|left| left.as_secs() / 3600) {
            None => f.write_str("has expired"),
            Some(hours @ 0..48) => write!(f, "expires in {hours} hours"),
            Some(hours) => write!(f, "expires in {} days", hours / 24),
        }
    }
}

/// `None` if the certificate cannot be read.
fn left(credentials: &Credentials, now: SystemTime) -> Option<Left> {
    let (start, end) = validity(credentials)?;
    let time = end.duration_since(now).ok().filter(|left| !left.is_zero());
    Some(Left { time, life: end.duration_since(start).unwrap_or_default() })
}

fn validity(credentials: &Credentials) -> Option<(SystemTime, SystemTime)> {
    let key = credentials.certified_key();
    let validity = Certificate::from_der(key.end_entity_cert().ok()?).ok()?.tbs_certificate.validity;
    Some((validity.not_before.to_system_time(), validity.not_after.to_system_time()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warned_of(days_left: &[(&'static str, Option<u64>, u32)]) -> Option<String> {
        warning(days_left.iter().map(|(name, days, life)| {
            let time = days.map(|days| DAY * u32::try_from(days).expect("a small number"));
            (*name, Left { time, life: DAY * *life })
        }))
    }

    #[test]
    fn what_is_soon_too_old_is_named_the_worst_first() {
        assert_eq!(warned_of(&[("a", Some(15), 90), ("b", Some(14), 365), ("c", Some(2), 6)]), None);
        assert_eq!(
            warned_of(&[
                ("a", Some(13), 365),
                ("b", Some(1), 90),
                ("c", None, 90),
                ("d", Some(0), 6),
                ("e", Some(89), 90)
            ]),
            Some(
                "certificates to be renewed: c (has expired), d (expires in 0 hours), b (expires in 24 hours), \
                 a (expires in 13 days)"
                    .to_owned()
            )
        );
        let many = [("x", None, 90); 12];
        assert!(warned_of(&many).is_some_and(|warning| warning.ends_with(" and 2 more")));
    }
}
