//! Import of x0d's files, from 0.5 to its unreleased rewrite. They have no version number, and differ in meaning.
//!
//! Source: x0's history. Times are milliseconds up to 0.7 and in the rewrite, and seconds from 0.8 to 0.10;
//! `retry-after` is always in seconds. From 0.7 to 0.10 a backup backend is written as `standby`, and one being removed
//! as `backup`.

use super::arguments::Scope;
use super::definition::{BackendDefinition, ClusterDefinition, MAX_BACKENDS};
use super::file::{Head, Part, Read};
use super::settings::read_count;
use super::{Arguments, Refusal};
use crate::cluster::Endpoint;
use std::collections::{HashMap, HashSet};

/// The unit of times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Seconds,
    Milliseconds,
}

/// Parses a file of x0d. `is_rewrite`: only the rewrite uses a name like this file's.
pub(super) fn read(name: &str, parts: &[Part<'_>], is_rewrite: bool) -> Result<Read, String> {
    let director = || parts.iter().filter(|part| part.head == Head::Director);
    let has = |key: &str| director().any(|part| part.get(key).is_some());
    let is_backend = |part: &&Part<'_>| matches!(part.head, Head::Backend(_));
    let lacks_role = parts.iter().filter(is_backend).any(|part| part.get("role").is_none());
    let is_rewrite = is_rewrite || has("health-check-success-threshold") || lacks_role;
    let unit = if has("scheduler") && !is_rewrite { Unit::Seconds } else { Unit::Milliseconds };
    let swaps_roles = has("allow-x-sendfile") && !is_rewrite;
    let definition = ClusterDefinition::new(name);
    let mut reader = Reader {
        definition,
        endpoints: HashMap::new(),
        names: HashSet::new(),
        unit,
        swaps_roles,
        warnings: Vec::new(),
    };
    if director().next().is_none() {
        return Err("it has no section [director]".to_owned());
    }
    // Backends come last, as x0d writes them: the rest is checked line by line, and there may be thousands of them.
    for part in parts {
        match part.head {
            Head::Director => reader.section(part, Scope::Director),
            Head::Cache => reader.section(part, Scope::Cache),
            Head::OnDemand => reader.section(part, Scope::OnDemand),
            Head::Bucket(bucket) => reader.bucket(part, bucket),
            Head::Backend(_) => {}
        }
    }
    let without_backends = reader.definition.clone();
    for part in parts {
        if let Head::Backend(backend) = part.head {
            reader.backend(part, backend, &without_backends);
        }
    }
    let mut assumed = format!(
        "times are {}",
        if unit == Unit::Seconds {
            "seconds (x0d 0.8 to 0.10)"
        } else {
            "milliseconds (x0d up to 0.7, or its rewrite)"
        }
    );
    if swaps_roles {
        assumed.push_str("; a backend with role=standby is a backup");
    }
    if is_rewrite && reader.definition.hostname.is_none() {
        reader.section(&Part { head: Head::OnDemand, pairs: vec![(0, "hostname", name)] }, Scope::OnDemand);
        assumed.push_str("; the cluster is for the host of its name");
    }
    Ok(Read { definition: reader.definition, assumed: Some(assumed), warnings: reader.warnings })
}

struct Reader {
    definition: ClusterDefinition,
    /// The addresses of the backends, and the backend of each.
    endpoints: HashMap<Endpoint, Box<str>>,
    names: HashSet<Box<str>>,
    unit: Unit,
    swaps_roles: bool,
    warnings: Vec<String>,
}

impl Reader {
    /// A value in this program's form. x0d takes every flag other than `true` for false, and reads the leading digits
    /// of a number.
    fn value(&self, name: &str, value: &str) -> String {
        let is_time = name.ends_with("-timeout") || name.ends_with("-ttl") || name == "health-check-interval";
        let is_flag = matches!(name, "enabled" | "sticky-offline-mode" | "allow-x-sendfile" | "enqueue-on-unavailable")
            || name.starts_with("deliver-");
        if is_flag {
            return (value == "true").to_string();
        }
        match (is_time, self.unit, read_count_of_ms(value)) {
            (true, Unit::Milliseconds, Some(ms)) => (f64::from(ms) / 1000.0).to_string(),
            _ => value.to_owned(),
        }
    }

    fn section(&mut self, part: &Part<'_>, scope: Scope) {
        for (line, name, value) in &part.pairs {
            if matches!(*name, "transfer-mode" | "health-check-success-threshold") {
                self.warnings.push(format!("line {line}: {name} has no like here"));
                continue;
            }
            let value = self.value(name, value);
            let before = self.definition.clone();
            if let Err(refusal) = self.definition.apply_in(scope, name, &value) {
                self.warnings.push(format!("line {line}: {refusal}; its default holds"));
                self.definition = before;
            } else if self.definition.record().is_err() {
                // 0 is not a valid time here; in x0d it means no wait at all.
                self.warnings.push(format!("line {line}: {name}={value} cannot be; its default holds"));
                self.definition = before;
            }
        }
    }

    fn bucket(&mut self, part: &Part<'_>, name: &str) {
        let value = |name: &str, value: &str| match name {
            "rate" | "ceil" => rounded(value),
            _ => value.to_owned(),
        };
        let pairs: Vec<_> = part.pairs.iter().map(|(_, name, text)| ((*name).to_owned(), value(name, text))).collect();
        let before = self.definition.clone();
        let added = self.definition.put_bucket(Some(name), &pairs).and_then(|()| self.definition.record().map(drop));
        if let Err(refusal) = added {
            self.warnings.push(format!("bucket {name} is left out: {refusal}"));
            self.definition = before;
        }
    }

    /// Adds a backend. It is checked by itself, and against the addresses and names of the others.
    fn backend(&mut self, part: &Part<'_>, name: &str, without_backends: &ClusterDefinition) {
        let (mut pairs, mut leaves) = (Vec::new(), false);
        for (_, key, value) in &part.pairs {
            match (*key, *value) {
                ("transport", _) => {}
                ("role", "standby") if self.swaps_roles => pairs.push(((*key).to_owned(), "backup".to_owned())),
                ("role", "backup") if self.swaps_roles => leaves = true,
                // An empty path next to an address is normal.
                ("path", "") => {}
                _ => pairs.push(((*key).to_owned(), self.value(key, value))),
            }
        }
        match self.only_backend(name, &pairs, without_backends) {
            Err(refusal) => self.warnings.push(format!("backend {name} is left out: {refusal}")),
            Ok(mut backend) => {
                if leaves {
                    self.warnings.push(format!("backend {name} is disabled: x0d was about to remove it"));
                    backend.is_enabled = false;
                }
                self.names.insert(name.into());
                self.definition.backends.push(backend);
            }
        }
    }

    fn only_backend(
        &mut self,
        name: &str,
        pairs: &Arguments,
        without_backends: &ClusterDefinition,
    ) -> Result<BackendDefinition, Refusal> {
        if self.names.contains(name) {
            return Err(Refusal::bad("another one has this name".to_owned()));
        }
        if self.names.len() >= MAX_BACKENDS {
            return Err(Refusal::bad(format!("more than {MAX_BACKENDS} backends")));
        }
        let mut alone = without_backends.clone();
        alone.add_backend(Some(name), pairs)?;
        let record = alone.record()?;
        if let Some(endpoint) = record.backends.first().map(|url| url.endpoint().clone())
            && let Some(other) = self.endpoints.insert(endpoint.clone(), name.into())
        {
            let problem = format!("{other} has this address already");
            self.endpoints.insert(endpoint, other);
            return Err(Refusal::bad(problem));
        }
        alone.backends.pop().ok_or_else(|| Refusal::bad("it is none".to_owned()))
    }
}

fn read_count_of_ms(text: &str) -> Option<u32> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit())).or_else(|| read_count(text))
}

/// x0d writes fractions as floating-point numbers, which may have more than four decimals.
fn rounded(text: &str) -> String {
    text.parse::<f64>().map_or_else(|_| text.to_owned(), |number| ((number * 10_000.0).round() / 10_000.0).to_string())
}

#[cfg(test)]
mod tests {
    use super::super::file::parse;
    use crate::cluster::Role;
    use std::time::Duration;

    const OLD: &str = "[director]\nqueue-limit=128\nqueue-timeout=60000\nretry-after=10\nmax-retry-count=6\n\
        sticky-offline-mode=false\nconnect-timeout=10000\nread-timeout=120000\nwrite-timeout=10000\n\
        health-check-host-header=backend-healthcheck\nhealth-check-request-path=/\n\
        health-check-fcgi-script-filename=\n\n\
        [backend=one]\nrole=standby\ncapacity=2\nenabled=true\ntransport=tcp\nprotocol=http\n\
        health-check-mode=paranoid\nhealth-check-interval=2000\nhost=10.0.0.1\nport=80\n";

    const NEW: &str = "# vim:syntax=dosini\n# !!! DO NOT EDIT !!!\n\n[director]\nenabled=true\nqueue-limit=128\n\
        queue-timeout=60\non-client-abort=close\nretry-after=10\nmax-retry-count=6\nsticky-offline-mode=false\n\
        allow-x-sendfile=false\nenqueue-on-unavailable=true\nconnect-timeout=10\nread-timeout=120\nwrite-timeout=10\n\
        health-check-host-header=backend-healthcheck\nhealth-check-request-path=/\n\
        health-check-fcgi-script-filename=\nscheduler=rr\n\n[cache]\nenabled=false\ndeliver-active=true\n\
        deliver-shadow=true\ndefault-ttl=20\ndefault-shadow-ttl=0\n\n[bucket=vip]\nrate=0.100000001\nceil=0.3\n\n\
        [backend=one]\nrole=standby\ncapacity=2\nenabled=true\ntransport=tcp\nprotocol=http\n\
        health-check-mode=paranoid\nhealth-check-interval=2\nhost=10.0.0.1\nport=80\n\
        [backend=gone]\nrole=backup\ncapacity=2\nenabled=true\ntransport=tcp\nprotocol=http\n\
        health-check-mode=paranoid\nhealth-check-interval=2\nhost=10.0.0.2\nport=80\n\
        [backend=php]\nrole=active\ncapacity=2\nenabled=true\ntransport=local\nprotocol=fastcgi\n\
        health-check-mode=paranoid\nhealth-check-interval=2\npath=/run/php.sock\n";

    const REWRITE: &str = "[director]\nenabled=true\nqueue-limit=1000\nqueue-timeout=30000\nretry-after=30\n\
        max-retry-count=3\nsticky-offline-mode=false\nallow-x-sendfile=true\nenqueue-on-unavailable=true\n\
        connect-timeout=4000\nread-timeout=30000\nwrite-timeout=8000\nhealth-check-host-header=healthcheck\n\
        health-check-request-path=/\nhealth-check-fcgi-script-filename=\nhealth-check-success-threshold=3\n\
        scheduler=rr\n[backend=one]\ncapacity=0\nenabled=true\nprotocol=http\nhealth-check-interval=10000\n\
        host=10.0.0.1\nport=80\n";

    #[test]
    fn each_version_is_read_as_it_was_meant() {
        let read = |name: &str, text: &str| parse(name, text, false).expect("a good file");
        let (old, new, rewrite) = (read("old", OLD), read("new", NEW), read("www.example.com", REWRITE));
        for (read, seconds) in [(&old, 60), (&new, 60), (&rewrite, 30)] {
            let options = read.definition.record().expect("good").options;
            assert_eq!(options.queue.timeout, Duration::from_secs(seconds));
        }
        let record = |read: &super::Read| read.definition.record().expect("good").options;
        assert_eq!(record(&rewrite).queue.retry_after, Duration::from_secs(30));
        assert_eq!(record(&old).timeouts.connect, Some(Duration::from_secs(10)));
        assert_eq!(old.definition.backends()[0].role, Role::Standby, "0.5 and 0.6 have standby");
        assert_eq!(old.definition.backends()[0].health_interval, Duration::from_secs(2));
        let backends: Vec<_> = new
            .definition
            .backends()
            .iter()
            .map(|backend| (&*backend.name, backend.role, backend.is_enabled))
            .collect();
        assert_eq!(backends, [("one", Role::Backup, true), ("gone", Role::Active, false)]);
        assert!(
            new.warnings.iter().any(|warning| warning.starts_with("backend php is left out")),
            "{:?}",
            new.warnings
        );
        assert!(record(&new).queue.enqueue_on_unavailable);
        assert_eq!(new.definition.buckets[0].rate, 1000);
        assert_eq!(rewrite.definition.hostname.as_deref(), Some("www.example.com"));
        assert_eq!(new.definition.hostname, None);
        assert!(new.assumed.expect("x0d's").contains("seconds (x0d 0.8"));
        assert!(rewrite.assumed.expect("x0d's").contains("milliseconds"));
    }

    #[test]
    fn unreadable_values_have_their_default_and_are_reported() {
        let read = parse("x", "[director]\nqueue-limit=lots\nqueue-timeout=0\nscheduler=rr\nfoo=1\n", false);
        let read = read.expect("a file of x0d");
        assert_eq!(read.warnings.len(), 3, "{:?}", read.warnings);
        assert_eq!(read.definition.record().expect("good").options.queue.limit, 128);
        for text in ["", "[director]\nx\n", "x=1\n", "[foo]\n", "[cache]\nenabled=true\n"] {
            assert!(parse("x", text, false).is_err(), "{text:?}");
        }
    }

    #[test]
    fn thousands_of_backends_are_read_and_one_that_cannot_be_costs_no_other() {
        let backend = |name: usize, port: usize| {
            format!(
                "[backend=b{name}]\nrole=active\ncapacity=1\nenabled=true\nprotocol=http\nhealth-check-mode=lazy\n\
                 health-check-interval=2\nhost=10.0.0.1\nport={port}\n"
            )
        };
        let mut text = "[director]\nscheduler=rr\nallow-x-sendfile=false\n".to_owned();
        (1..=10_003).for_each(|port| text.push_str(&backend(port, port)));
        text.push_str(&backend(7, 20_000));
        text.push_str(&backend(20_000, 7));
        let read = parse("x", &text, false).expect("a file of x0d");
        assert_eq!(read.definition.backends().len(), 10_000);
        assert_eq!(read.warnings.len(), 5, "{:?}", read.warnings);
        let mut small: String = (1..=9).map(|port| backend(port, port)).collect();
        small.insert_str(0, "[director]\nscheduler=rr\n");
        small.push_str(&backend(7, 20_000));
        small.push_str(&backend(20_000, 7));
        let read = parse("x", &small, false).expect("a file of x0d");
        assert_eq!(
            read.warnings,
            [
                "backend b7 is left out: another one has this name",
                "backend b20000 is left out: b7 has this address already"
            ]
        );
    }
}
