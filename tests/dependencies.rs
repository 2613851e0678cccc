//! What deny.toml says of the crates that sluice is made of, checked without cargo-deny: their licences, where they come
//! from, and which are there twice. `tests/deny` asks cargo-deny itself, of known vulnerabilities too.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

#[test]
fn every_crate_has_a_licence_that_is_allowed_and_comes_from_the_registry() {
    let allowed = list_of("allow");
    let mut faults = Vec::new();
    for package in packages() {
        let (name, licence) = (text(&package, "name"), text(&package, "license"));
        if !is_allowed(&licence, &allowed) {
            faults.push(format!("{name}: {licence:?} is not among {allowed:?} of deny.toml"));
        }
        let source = package["source"].as_str();
        if name != "sluice" && source != Some(REGISTRY) {
            faults.push(format!("{name} comes from {source:?}"));
        }
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn no_crate_is_there_twice_but_those_that_are_known_to_be() {
    let known: BTreeSet<String> = list_of("skip").into_iter().collect();
    let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in packages() {
        versions.entry(text(&package, "name")).or_default().push(text(&package, "version"));
    }
    let twice: Vec<_> = versions.iter().filter(|(_, versions)| versions.len() > 1).collect();
    let new: Vec<_> = twice.iter().filter(|(name, _)| !known.contains(*name)).collect();
    assert!(new.is_empty(), "deny.toml does not know of {new:?}");
}

#[test]
fn licences_are_read_as_they_are_meant() {
    let allowed = ["MIT", "ISC"].map(str::to_owned);
    let table = [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0/MIT", true),
        ("GPL-3.0 AND MIT", false),
        ("ISC AND (GPL-3.0 OR MIT)", true),
        ("(GPL-3.0 OR MIT) AND GPL-3.0", false),
        ("MIT WITH LLVM-exception", false),
        ("", false),
    ];
    for (expression, expected) in table {
        assert_eq!(is_allowed(expression, &allowed), expected, "{expression:?}");
    }
}

/// The crates of a build for this machine, those of the tests included.
fn packages() -> Vec<Value> {
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--offline", "--locked", "--filter-platform", &host])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    metadata["packages"].as_array().expect("packages").clone()
}

fn text(package: &Value, key: &str) -> String {
    package[key].as_str().unwrap_or_default().to_owned()
}

/// The first quoted words of the items of the first list of this name in deny.toml.
fn list_of(name: &str) -> Vec<String> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deny.toml")).expect("deny.toml");
    let (_, rest) = text.split_once(&format!("\n{name} = [")).expect("the list");
    let (list, _) = rest.split_once("]\n").expect("the list's end");
    let in_objects = list.contains('{');
    let items = list.split(if in_objects { '{' } else { ',' });
    items.filter_map(|item| Some(item.split('"').nth(1)?.to_owned())).collect()
}

/// Whether an expression of SPDX can be met by the licences of a list: AND binds closer than OR.
fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    any_of(&mut words, allowed) && words.next().is_none()
}

fn any_of<'w>(words: &mut std::iter::Peekable<impl Iterator<Item = &'w str>>, allowed: &[String]) -> bool {
    let mut is_met = all_of(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        is_met |= all_of(words, allowed);
    }
    is_met
}

fn all_of<'w>(words: &mut std::iter::Peekable<impl Iterator<Item = &'w str>>, allowed: &[String]) -> bool {
    let mut is_met = true;
    loop {
        is_met &= match words.next() {
            Some("(") => {
                let inner = any_of(words, allowed);
                words.next_if_eq(&")").is_some() && inner
            }
            // An exception would have to be named.
            Some(licence) if words.next_if_eq(&"WITH").is_some() => {
                let exception = words.next().unwrap_or_default();
                allowed.contains(&format!("{licence} WITH {exception}"))
            }
            Some(licence) => allowed.iter().any(|known| known == licence),
            None => false,
        };
        if words.next_if_eq(&"AND").is_none() {
            return is_met;
        }
    }
}
