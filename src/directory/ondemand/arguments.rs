//! Arguments of requests, as names and values that change a cluster, a backend or a bucket. An unknown name or an
//! invalid value is an error that names both.

use super::buckets::{self, Bucket, read_fraction};
use super::definition::{BackendDefinition, ClusterDefinition, MAX_BACKENDS, check_part_name};
use super::settings::{self, read_count, read_flag, read_seconds};
use super::{Arguments, Refusal};
use crate::cluster::{ATTRIBUTES, DEFINITIONS, Role};
use crate::health::HealthMode;
use crate::wire::host::host_name;
use std::time::Duration;

/// The longest part of a request that is quoted in a message.
const MAX_SHOWN: usize = 60;

/// The longest value of an option.
const MAX_OPTION: usize = 4096;

/// The refusal of an invalid value.
fn wrong(name: &str, found: &str, expected: &str) -> Refusal {
    let shown: String = found.chars().take(MAX_SHOWN).collect();
    Refusal::bad(format!("{name} is {shown:?}, expected {expected}"))
}

fn unknown(name: &str, known: &str) -> Refusal {
    let shown: String = name.chars().take(MAX_SHOWN).collect();
    Refusal::bad(format!("{shown:?} is no argument here; known are {known}"))
}

fn flag(name: &str, text: &str) -> Result<bool, Refusal> {
    read_flag(text).ok_or_else(|| wrong(name, text, settings::FLAG))
}

fn count(name: &str, text: &str) -> Result<u32, Refusal> {
    read_count(text).ok_or_else(|| wrong(name, text, settings::COUNT))
}

fn time(name: &str, text: &str) -> Result<Duration, Refusal> {
    let time = read_seconds(text).filter(|time| !time.is_zero());
    time.ok_or_else(|| wrong(name, text, "a number of seconds above 0, such as 2 or 0.5"))
}

fn port(name: &str, text: &str) -> Result<u16, Refusal> {
    let number = read_count(text).and_then(|number| u16::try_from(number).ok()).filter(|port| *port > 0);
    number.ok_or_else(|| wrong(name, text, "a port from 1 to 65535"))
}

/// A host in the form used for routing.
fn hostname(name: &str, text: &str) -> Result<Box<str>, Refusal> {
    let lower = text.to_ascii_lowercase();
    let host = host_name(lower.as_bytes()).filter(|host| *host == lower.trim_end_matches('.'));
    host.map(Into::into).ok_or_else(|| wrong(name, text, "a host name without a port"))
}

/// The section of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    Director,
    OnDemand,
    Cache,
}

impl ClusterDefinition {
    /// Applies one line of a file.
    pub(super) fn apply_in(&mut self, scope: Scope, name: &str, value: &str) -> Result<(), Refusal> {
        let is_match = matches!(name, "hostname" | "host" | "port");
        match scope {
            Scope::OnDemand if is_match => self.apply_one(name, value),
            Scope::Director if !is_match => self.apply_one(name, value),
            Scope::Cache => match self.settings.set_in_cache(name, value) {
                Some(result) => result.map_err(|expected| wrong(name, value, &expected)),
                None => Err(unknown(name, "those that the program writes")),
            },
            Scope::OnDemand | Scope::Director => Err(unknown(name, "those that the program writes")),
        }
    }

    /// Applies arguments. If one of them is wrong, the result must not be used.
    pub(super) fn apply(&mut self, arguments: &Arguments) -> Result<(), Refusal> {
        arguments.iter().try_for_each(|(name, value)| self.apply_one(name, value))
    }

    fn apply_one(&mut self, name: &str, text: &str) -> Result<(), Refusal> {
        match (name, text) {
            ("hostname" | "host", "") => self.hostname = None,
            ("hostname" | "host", _) => self.hostname = Some(hostname(name, text)?),
            ("port", "") => self.port = None,
            ("port", _) => self.port = Some(port(name, text)?),
            ("terminate-protection" | "protected", _) => self.is_protected = flag(name, text)?,
            _ => self.apply_setting(name, text)?,
        }
        Ok(())
    }

    fn apply_setting(&mut self, name: &str, text: &str) -> Result<(), Refusal> {
        match self.settings.set(name, text) {
            Some(Ok(())) => return Ok(()),
            Some(Err(expected)) => return Err(wrong(name, text, &expected)),
            None => {}
        }
        let is_option = name != "buckets" && DEFINITIONS.iter().any(|definition| definition.name == name);
        if !is_option {
            return Err(unknown(name, "hostname, port, terminate-protection, x0d's settings and options of clusters"));
        }
        if text.len() > MAX_OPTION || text.trim() != text || text.chars().any(char::is_control) {
            return Err(wrong(name, text, "a text without control characters, and without blanks around it"));
        }
        // Whether the value is valid shows when the options are made.
        match text {
            "" => _ = self.options.remove(name),
            text => _ = self.options.insert(name.into(), text.into()),
        }
        Ok(())
    }

    /// Adds a backend. `name` comes from the path; without it the arguments have it. Returns its name.
    pub(super) fn add_backend(&mut self, name: Option<&str>, arguments: &Arguments) -> Result<(), Refusal> {
        let value = |known: &[&str]| {
            arguments.iter().find(|(name, _)| known.contains(&name.as_str())).map(|(_, value)| value.as_str())
        };
        let name =
            name.or_else(|| value(&["name"])).ok_or_else(|| Refusal::bad("name= has to name the backend".into()))?;
        check_part_name("backend", name)?;
        if self.backends.len() >= MAX_BACKENDS {
            return Err(Refusal::bad(format!("there are {MAX_BACKENDS} backends, and more cannot be")));
        }
        if self.place_of(name).is_some() {
            return Err(Refusal::bad(format!("a backend {name} is there already")));
        }
        if value(&["path"]).is_some() {
            return Err(Refusal::bad(
                "path= names a unix socket, and backends are reached by TCP: use hostname and port".into(),
            ));
        }
        let host = value(&["hostname", "host"]).filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| Refusal::bad("hostname= has to name an address or a host".into()))?;
        let number = port("port", value(&["port"]).ok_or_else(|| Refusal::bad("port= has to name a port".into()))?)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let mut backend = BackendDefinition::new(name, bare, number);
        for (name, value) in arguments {
            match name.as_str() {
                "name" | "hostname" | "host" | "port" => {}
                "protocol" => backend.is_secure = read_protocol(value)?,
                _ => backend.apply_one(name, value)?,
            }
        }
        self.backends.push(backend);
        Ok(())
    }

    /// Changes a backend.
    pub(super) fn edit_backend(&mut self, name: &str, arguments: &Arguments) -> Result<(), Refusal> {
        let backend = self.backend_mut(name)?;
        arguments.iter().try_for_each(|(name, value)| backend.apply_one(name, value))
    }

    /// Enables or disables a backend.
    pub(super) fn set_backend_enabled(&mut self, name: &str, is_enabled: bool) -> Result<(), Refusal> {
        self.backend_mut(name).map(|backend| backend.is_enabled = is_enabled)
    }

    /// Removes a backend.
    pub(super) fn remove_backend(&mut self, name: &str) -> Result<(), Refusal> {
        if self.backend_mut(name)?.is_protected {
            return Err(Refusal::Forbidden(format!(
                "backend {name} is protected: POST terminate-protection=false first"
            )));
        }
        self.backends.retain(|backend| *backend.name != *name);
        Ok(())
    }

    fn backend_mut(&mut self, name: &str) -> Result<&mut BackendDefinition, Refusal> {
        let found = self.backends.iter_mut().find(|backend| *backend.name == *name);
        found.ok_or_else(|| Refusal::NotFound(format!("no backend {name}")))
    }

    /// Adds a bucket, or changes an existing one. `name` comes from the path.
    pub(super) fn put_bucket(&mut self, name: Option<&str>, arguments: &Arguments) -> Result<(), Refusal> {
        let read = read_bucket(arguments)?;
        let name = name.or(read.name).ok_or_else(|| Refusal::bad("name= has to name the bucket".into()))?;
        check_part_name("bucket", name)?;
        let (Some(rate), Some(ceil)) = (read.rate, read.ceil) else {
            return Err(Refusal::bad("rate= and ceil= are both needed, as fractions from 0 to 1".into()));
        };
        if let Some(bucket) = buckets::find_mut(&mut self.buckets, name) {
            if read.parent.is_some() {
                return Err(Refusal::bad(format!("bucket {name} is there already, and stays in its parent")));
            }
            (bucket.rate, bucket.ceil) = (rate, ceil);
            return Ok(());
        }
        let parent = read.parent.filter(|parent| *parent != buckets::ROOT);
        buckets::check_room(&self.buckets, parent)?;
        let siblings = match parent {
            None => &mut self.buckets,
            Some(parent) => match buckets::find_mut(&mut self.buckets, parent) {
                Some(parent) => &mut parent.children,
                None => return Err(Refusal::bad(format!("no bucket {parent} to be the parent"))),
            },
        };
        siblings.push(Bucket { name: name.into(), rate, ceil, children: Vec::new() });
        Ok(())
    }

    /// Changes a bucket.
    pub(super) fn edit_bucket(&mut self, name: &str, arguments: &Arguments) -> Result<(), Refusal> {
        let read = read_bucket(arguments)?;
        if read.name.is_some_and(|other| other != name) || read.parent.is_some() {
            return Err(Refusal::bad("a bucket keeps its name and its parent".into()));
        }
        let missing = || Refusal::NotFound(format!("no bucket {name}"));
        let bucket = buckets::find_mut(&mut self.buckets, name).ok_or_else(missing)?;
        bucket.rate = read.rate.unwrap_or(bucket.rate);
        bucket.ceil = read.ceil.unwrap_or(bucket.ceil);
        Ok(())
    }

    /// Removes a bucket and the buckets in it.
    pub(super) fn remove_bucket(&mut self, name: &str) -> Result<(), Refusal> {
        match buckets::remove(&mut self.buckets, name) {
            true => Ok(()),
            false => Err(Refusal::NotFound(format!("no bucket {name}"))),
        }
    }
}

fn read_protocol(text: &str) -> Result<bool, Refusal> {
    match text {
        "http" => Ok(false),
        "https" => Ok(true),
        other => Err(wrong("protocol", other, "http or https (FastCGI is not spoken)")),
    }
}

impl BackendDefinition {
    /// Changes one setting of an existing backend.
    pub(super) fn apply_one(&mut self, name: &str, text: &str) -> Result<(), Refusal> {
        match name {
            "role" => {
                let role = Role::ALL.into_iter().find(|role| role.name() == text);
                self.role = role.ok_or_else(|| wrong(name, text, "active, standby or backup"))?;
            }
            "enabled" => self.is_enabled = flag(name, text)?,
            "capacity" => self.capacity = count(name, text)?,
            "terminate-protection" | "protected" => self.is_protected = flag(name, text)?,
            "health-check-mode" => {
                let mode = HealthMode::ALL.into_iter().find(|mode| mode.name() == text);
                self.health_mode = mode.ok_or_else(|| wrong(name, text, "paranoid, opportunistic, lazy or off"))?;
            }
            "health-check-interval" => self.health_interval = time(name, text)?,
            "name" | "protocol" | "hostname" | "host" | "port" | "path" => {
                return Err(Refusal::bad(format!(
                    "{name} is fixed once a backend is there: remove it and add another one"
                )));
            }
            _ => self.apply_attribute(name, text)?,
        }
        Ok(())
    }

    fn apply_attribute(&mut self, name: &str, text: &str) -> Result<(), Refusal> {
        let is_own = |name: &str| !matches!(name, "capacity" | "role" | "disabled");
        let is_known = matches!(name, "proxy" | "sni") || ATTRIBUTES.iter().any(|known| known.name == name);
        if !is_known || !is_own(name) {
            return Err(unknown(
                name,
                "role, enabled, capacity, terminate-protection, health-check-mode, health-check-interval, and weight, \
                 slowStart, proxy, sni; for a new one also name, hostname, port, protocol",
            ));
        }
        if text.is_empty() {
            self.attributes.remove(name);
            return Ok(());
        }
        let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
        if !is_plain {
            return Err(wrong(name, text, "a word or number"));
        }
        self.attributes.insert(name.into(), text.into());
        Ok(())
    }
}

#[derive(Default)]
struct BucketArguments<'a> {
    name: Option<&'a str>,
    parent: Option<&'a str>,
    rate: Option<u16>,
    ceil: Option<u16>,
}

fn read_bucket(arguments: &Arguments) -> Result<BucketArguments<'_>, Refusal> {
    let mut read = BucketArguments::default();
    let fraction = |name: &str, text: &str| {
        read_fraction(text)
            .map(Some)
            .ok_or_else(|| wrong(name, text, "a fraction from 0 to 1 with at most four decimals"))
    };
    for (name, value) in arguments {
        match name.as_str() {
            "name" => read.name = Some(value),
            "parent" => read.parent = Some(value),
            "rate" => read.rate = fraction(name, value)?,
            "ceil" => read.ceil = fraction(name, value)?,
            _ => return Err(unknown(name, "name, rate, ceil and parent")),
        }
    }
    Ok(read)
}
