//! Where the value of each option of a cluster comes from.

use crate::cluster::{DEFINITIONS, Options};
use serde_json::{Map, Value, json};

/// Options that `wake` sets where they are not set themselves.
const BY_WAKE: [&str; 3] = ["health.mode", "health.expect", "health.interval"];

/// Every option with the source of its value: `frontend`, another option (`wake`), the name of a setting, or `built-in`.
/// `own` has the options of the frontend, without secrets. The value is the text of the option, or the setting as it is in the configuration; null stands for the default of the
/// setting.
pub(super) fn of(options: &Options, own: &Value, written: &Value) -> Value {
    let has_mode = own.get("health.mode").is_some();
    let all = DEFINITIONS.iter().map(|definition| {
        let (name, default) = (definition.name, definition.default);
        let found = if let Some(value) = own.get(name) {
            json!({ "source": "frontend", "value": value })
        } else if options.wake && !has_mode && BY_WAKE.contains(&name) {
            json!({ "source": "wake", "value": Value::Null })
        } else if default.starts_with("server.") || default.starts_with("https.") {
            let value = default.split('.').try_fold(written, |section, key| section.get(key));
            json!({ "source": default, "value": value })
        } else {
            json!({ "source": "built-in", "value": default })
        };
        (name.to_owned(), found)
    });
    all.collect::<Map<_, _>>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_has_a_source() {
        let (options, errors) = Options::read([("wake", "true"), ("queueLimit", "64")], &Options::none());
        assert_eq!(errors, []);
        let own: Map<String, Value> = options.pairs().map(|(name, value)| (name.to_owned(), value.into())).collect();
        let sources = of(&options, &own.into(), &json!({"server": {"connectTimeout": 7}}));
        assert_eq!(sources.as_object().map(Map::len), Some(DEFINITIONS.len()));
        for (name, source, value) in [
            ("queueLimit", "frontend", json!("64")),
            ("queueTimeout", "built-in", json!("30")),
            ("connectTimeout", "server.connectTimeout", json!(7)),
            ("bodyTimeout", "server.bodyTimeout", Value::Null),
            ("health.mode", "wake", Value::Null),
            ("health.path", "built-in", json!("/")),
        ] {
            assert_eq!(sources[name], json!({ "source": source, "value": value }), "{name}");
        }
    }
}
