//! Tests of the whole room, by tables: a text, and the expected result.

mod faults;
mod names;
mod renamed;
mod values;

use super::*;
use serde_json::json;

/// A default configuration with these members changed.
pub(super) fn with(members: &Value) -> Value {
    let mut value = json!({"driver": "file:routes.json"});
    let (Some(all), Some(members)) = (value.as_object_mut(), members.as_object()) else {
        panic!("no object: {members}");
    };
    all.extend(members.clone());
    value
}

/// Reads it, as another user than root.
fn load_value(value: &Value) -> Result<(Settings, Vec<Warning>), Failure> {
    from_text(&value.to_string(), Path::new("config/config.json"), &Overrides::default())
}

/// Its faults, one a line, without the name of the file.
fn faults_of(value: &Value) -> Vec<String> {
    let failure = load_value(value).expect_err("a fault");
    failure.faults.iter().map(ToString::to_string).collect()
}

/// Its warnings, whether or not it is usable.
fn warnings_of(value: &Value) -> Vec<String> {
    let warnings = load_value(value).map_or_else(|failure| failure.warnings, |(_, warnings)| warnings);
    warnings.iter().map(ToString::to_string).collect()
}

/// Its settings; it must have no warnings either.
fn settings_of(value: &Value) -> Settings {
    match load_value(value) {
        Ok((settings, warnings)) => {
            assert_eq!(warnings, [], "{value}");
            settings
        }
        Err(failure) => panic!("{value}: {failure}"),
    }
}
