//! The variables of a request. Their memory is reused for each request.

use crate::haproxy::rules::Side;
use arrayvec::ArrayString;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Names and values, one after the other.
#[derive(Debug, Default)]
pub(super) struct Variables {
    bytes: Vec<u8>,
    entries: Vec<(Range<usize>, Range<usize>)>,
}

/// The variable with the value of a slot of captures: a name that no rule can use.
fn slot_name(side: Side, slot: usize) -> ArrayString<32> {
    let mut name = ArrayString::new();
    // The longest number has 20 digits.
    let _ = write!(name, " {}{slot}", if side == Side::Request { "request" } else { "response" });
    name
}

impl Variables {
    /// The value in a slot of captures.
    pub(super) fn captured(&self, side: Side, slot: usize) -> Option<&[u8]> {
        self.get(&slot_name(side, slot))
    }

    /// Puts a value into a slot of captures.
    pub(super) fn capture(&mut self, side: Side, slot: usize, value: &[u8]) {
        self.set(&slot_name(side, slot), value);
    }

    pub(super) fn get(&self, wanted: &str) -> Option<&[u8]> {
        let found = self.entries.iter().rev().find(|(name, _)| self.bytes.get(name.clone()) == Some(wanted.as_bytes()));
        found.and_then(|(_, value)| self.bytes.get(value.clone()))
    }

    /// Sets a variable. A repeated set uses new space, which is rare.
    pub(super) fn set(&mut self, name: &str, value: &[u8]) {
        self.unset(name);
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name.as_bytes());
        let middle = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.entries.push((start..middle, middle..self.bytes.len()));
    }

    pub(super) fn unset(&mut self, name: &str) {
        let Self { bytes, entries } = self;
        entries.retain(|(known, _)| bytes.get(known.clone()) != Some(name.as_bytes()));
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }

    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }
}

/// Variables that outlive a request: those of a connection (`sess`) or of the process (`proc`). Each request works on a
/// copy, and sets a variable in both.
#[derive(Debug, Default)]
pub(in super::super) struct SharedVariables {
    values: Mutex<BTreeMap<Box<str>, Box<[u8]>>>,
}

impl SharedVariables {
    /// Sets a variable, or removes it.
    pub(in super::super) fn set(&self, name: &str, value: Option<&[u8]>) {
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        match value {
            Some(value) => drop(values.insert(name.into(), value.into())),
            None => drop(values.remove(name)),
        }
    }

    /// Copies all of them.
    pub(super) fn copy_to(&self, variables: &mut Variables) {
        let values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        values.iter().for_each(|(name, value)| variables.set(name, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_counts() {
        let mut variables = Variables::default();
        variables.set("txn.a", b"1");
        variables.set("txn.b", b"2");
        variables.set("txn.a", b"");
        assert_eq!((variables.get("txn.a"), variables.get("txn.b")), (Some(&b""[..]), Some(&b"2"[..])));
        variables.unset("txn.b");
        assert_eq!((variables.get("txn.b"), variables.get("txn.")), (None, None));
    }
}
