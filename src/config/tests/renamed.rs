//! Tests of renamed settings: the earlier names are equivalent, without warnings.

use super::*;

/// Earlier name, name, a value other than the default, and an invalid one.
fn table() -> [(&'static str, &'static str, Value, Value); 6] {
    [
        ("answerTimeout", "responseTimeout", json!(7), json!("soon")),
        ("maxInterimAnswers", "maxInformationalResponses", json!(7), json!(-1)),
        ("maxFields", "maxHeaders", json!(7), json!(0)),
        ("maxWaiting", "maxQueue", json!(7), json!(-1)),
        ("nameRefresh", "dnsRefresh", json!(7), json!(0)),
        ("gracefulWait", "drainTimeout", json!(7), json!(true)),
    ]
}

fn server(key: &str, value: &Value) -> Value {
    with(&json!({"server": {key: value}}))
}

#[test]
fn earlier_names_mean_the_same_without_a_warning() {
    let (defaults, _) = load_value(&with(&json!({}))).expect("settings");
    for (old, new, value, _) in table() {
        let (by_old, warnings) = load_value(&server(old, &value)).expect("settings");
        assert_eq!(warnings, [], "{old}");
        let (by_new, _) = load_value(&server(new, &value)).expect("settings");
        assert_eq!(by_old, by_new, "{old}");
        assert_ne!(by_old, defaults, "{old}");
    }
}

#[test]
fn a_renamed_setting_wins_over_its_earlier_name_with_a_warning() {
    for (old, new, value, bad) in table() {
        let both = with(&json!({"server": {old: bad, new: value}}));
        let (settings, warnings) = load_value(&both).expect("settings");
        let (by_new, _) = load_value(&server(new, &value)).expect("settings");
        assert_eq!(settings, by_new, "{old}");
        let lines: Vec<_> = warnings.iter().map(ToString::to_string).collect();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(
            lines[0].contains(&format!("server.{old}")) && lines[0].contains(&format!("server.{new}")),
            "{lines:?}"
        );
    }
}

#[test]
fn a_fault_names_the_setting_as_it_was_written() {
    for (old, _, _, bad) in table() {
        let failure = load_value(&server(old, &bad)).expect_err("a fault").to_string();
        assert!(failure.contains(&format!("server.{old}: found")), "{failure}");
    }
}
