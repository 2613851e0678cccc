//! Settings of a health monitor.

use super::outlier::Rules;
use std::time::Duration;

/// The health checks of the members of a cluster. One for each cluster, from its options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MonitorSettings {
    /// When members are probed.
    pub mode: HealthMode,
    /// The method of a probe.
    pub method: ProbeMethod,
    /// The path of a probe.
    pub path: Box<str>,
    /// The `Host` of a probe.
    pub host: Box<str>,
    /// The status codes of a good response.
    pub expect: StatusSet,
    /// Text that the body of a good response must contain; empty for any body.
    pub body: Box<str>,
    /// The time between two probes of a member.
    pub interval: Duration,
    /// The limit of a probe.
    pub timeout: Duration,
    /// Number of successive good probes that bring a member up.
    pub rise: u32,
    /// Number of successive bad probes that take a member down.
    pub fall: u32,
    /// Whether a member that comes up again stays disabled until an operator enables it.
    pub sticky_offline: bool,
    /// Number of successive failed requests that eject a member; 0 for none.
    pub max_failures: u32,
    /// The share of 5xx responses in a window that ejects a member, in per cent; 0 for none.
    pub max_error_percent: u8,
    /// The share of members that is never ejected, in per cent.
    pub panic_percent: u8,
}

impl Default for MonitorSettings {
    fn default() -> Self {
        Self {
            mode: HealthMode::Off,
            method: ProbeMethod::Options,
            path: "/".into(),
            host: "backend-healthcheck".into(),
            expect: StatusSet::default(),
            body: "".into(),
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(2),
            rise: 2,
            fall: 1,
            sticky_offline: false,
            max_failures: 0,
            max_error_percent: 0,
            panic_percent: 50,
        }
    }
}

impl MonitorSettings {
    /// The rules of outlier detection.
    pub fn rules(&self) -> Rules {
        Rules { max_failures: self.max_failures, max_error_percent: self.max_error_percent }
    }

    /// Whether members are probed, or judged by their responses.
    pub fn is_on(&self) -> bool {
        self.mode != HealthMode::Off || self.rules().are_on()
    }
}

/// When members are probed. Source: x0d's health monitor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HealthMode {
    /// Never.
    #[default]
    Off,
    /// While a member is down, and after a failed request until probes have judged it.
    Lazy,
    /// The same, and after a member was idle for the interval. That probe takes a slot.
    Opportunistic,
    /// Always.
    Paranoid,
}

impl HealthMode {
    /// Every mode.
    pub const ALL: [Self; 4] = [Self::Off, Self::Lazy, Self::Opportunistic, Self::Paranoid];

    /// The name in options.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Lazy => "lazy",
            Self::Opportunistic => "opportunistic",
            Self::Paranoid => "paranoid",
        }
    }
}

/// The method of a probe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProbeMethod {
    /// As in HAProxy's `httpchk`.
    #[default]
    Options,
    /// The response has no body.
    Head,
    /// The response may have a body, which can be searched.
    Get,
}

impl ProbeMethod {
    /// Every method.
    pub const ALL: [Self; 3] = [Self::Options, Self::Head, Self::Get];

    /// The method as written in a request.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Options => "OPTIONS",
            Self::Head => "HEAD",
            Self::Get => "GET",
        }
    }
}

/// Ranges of status codes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusSet(Vec<(u16, u16)>);

impl Default for StatusSet {
    /// 200 to 399.
    fn default() -> Self {
        Self(vec![(200, 399)])
    }
}

impl StatusSet {
    /// Reads codes and ranges such as `200,204,301-308`; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        text.split(',').map(|range| parse_range(range.trim())).collect::<Option<_>>().map(Self)
    }

    /// Every code.
    pub fn any() -> Self {
        Self(vec![(100, 599)])
    }

    /// Whether the set has this code.
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&status))
    }
}

fn parse_range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let code = |text: &str| text.parse().ok().filter(|code| (100..=599).contains(code));
    let range = (code(first)?, code(last)?);
    (range.0 <= range.1).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_codes() {
        let set = StatusSet::parse("200-299, 404").expect("a set");
        for (status, expected) in [(199, false), (200, true), (299, true), (300, false), (404, true)] {
            assert_eq!(set.contains(status), expected, "{status}");
        }
        for bad in ["", "99", "600", "299-200", "200-", "2xx", "200,,300"] {
            assert_eq!(StatusSet::parse(bad), None, "{bad}");
        }
    }
}
