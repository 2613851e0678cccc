//! Renamed settings. The earlier names are equivalent and accepted without a warning.

/// Each renamed setting: its path, and its earlier name in the same section.
pub(super) const ALL: &[(&str, &str)] = &[
    ("server.dnsRefresh", "nameRefresh"),
    ("server.drainTimeout", "gracefulWait"),
    ("server.maxHeaders", "maxFields"),
    ("server.maxInformationalResponses", "maxInterimAnswers"),
    ("server.maxQueue", "maxWaiting"),
    ("server.responseTimeout", "answerTimeout"),
];

/// The path and the earlier name of a renamed setting.
pub(super) fn find(path: &str) -> Option<(&'static str, &'static str)> {
    ALL.iter().copied().find(|(new, _)| *new == path)
}
