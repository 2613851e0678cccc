//! The options `buckets` and `classify`: JSON texts that the shaper parses, with a list of their faults.

use super::{Definition, Options};
use crate::shaper::{Fault, Rules, Spec};
use std::sync::Arc;

pub(super) const BUCKETS: Definition = Definition {
    name: "buckets",
    expected: "an object of buckets",
    default: "",
    meaning: "Shares of classes of requests in the capacity: [fairness between classes](shaper.md)",
    set: |options, text| match Spec::parse(text) {
        Ok(spec) => {
            options.buckets = Some(Arc::new(spec));
            true
        }
        Err(_) => false,
    },
    copy: |options, from| options.buckets.clone_from(&from.buckets),
};

/// It is read after all other options: its rules name buckets.
pub(super) const CLASSIFY: Definition = Definition {
    name: "classify",
    expected: "a list of rules",
    default: "",
    meaning: "Rules that assign a request to a class: [fairness between classes](shaper.md)",
    set: |options, text| match read_rules(options, text) {
        Ok(rules) => {
            options.classify = Some(ClassRules { text: text.into(), rules: Arc::new(rules) });
            true
        }
        Err(_) => false,
    },
    copy: |options, from| options.classify.clone_from(&from.classify),
};

/// The rules of `classify`. They are equal if their texts are.
#[derive(Clone, Debug)]
pub struct ClassRules {
    text: Box<str>,
    pub(in crate::cluster) rules: Arc<Rules>,
}

impl PartialEq for ClassRules {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for ClassRules {}

fn read_rules(options: &Options, text: &str) -> Result<Rules, Vec<Fault>> {
    Rules::parse(text, options.buckets.as_deref().unwrap_or(&Spec::default()))
}

/// The faults of an invalid value; none for another option.
pub(super) fn faults_of(name: &str, text: &str, options: &Options) -> Vec<Fault> {
    if name == BUCKETS.name {
        Spec::parse(text).err().unwrap_or_default()
    } else if name == CLASSIFY.name {
        read_rules(options, text).err().unwrap_or_default()
    } else {
        Vec::new()
    }
}
