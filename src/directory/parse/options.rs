//! `"options": {"www.example.com": {"httpsRedirect": true}}`: what is particular to a frontend.

use super::super::HTTPS_REDIRECT;
use super::{Members, Reader, kind, pattern, shown, string};
use serde_json::value::RawValue;

impl<'a> Reader<'a> {
    /// To be called once the frontends are known.
    pub(super) fn read_options(&mut self, value: &'a RawValue) {
        let Ok(members) = serde_json::from_str::<Members<'a>>(value.get()) else {
            return self.fault(value, "options", &format!("found {}, expected an object of options", kind(value)));
        };
        for (key, options) in members.0 {
            let name = string(key).unwrap_or_default();
            let path = format!("options[{}]", shown(&name));
            let known = pattern(&name).ok().filter(|pattern| self.records.contains_key(pattern.as_str()));
            let Some(known) = known else {
                self.fault(key, &path, "no frontend is called so");
                continue;
            };
            self.read_options_of(&known, options, &path);
        }
    }

    fn read_options_of(&mut self, pattern: &str, value: &'a RawValue, path: &str) {
        let Ok(members) = serde_json::from_str::<Members<'a>>(value.get()) else {
            return self.fault(value, path, &format!("found {}, expected an object", kind(value)));
        };
        for (key, value) in members.0 {
            let name = string(key).unwrap_or_default();
            let path = format!("{path}.{name}");
            match (name.as_str(), value.get()) {
                (HTTPS_REDIRECT, flag @ ("true" | "false")) => {
                    if let Some(record) = self.records.get_mut(pattern) {
                        record.options.https_redirect = Some(flag == "true");
                    }
                }
                (HTTPS_REDIRECT, _) => {
                    self.fault(value, &path, &format!("found {}, expected true or false", kind(value)));
                }
                _ => self.warn(key, &path, "is not known here and means nothing"),
            }
        }
    }
}
