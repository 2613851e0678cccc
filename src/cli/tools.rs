//! `sluice provision`, `routes`, `nodes` and `wait`: tools for routes in Redis.

use crate::base::secret::Secret;
use crate::config::{self, Overrides};
use crate::directory::Source;
use crate::directory::redis::{self, EXPECTED, Target};
use crate::provision::{self, Explained};
use crate::supervisor;
use crate::wire::host::host_name;
use clap::Args;
use jiff::Timestamp;
use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// The environment variable with the password of every Redis without one of its own.
const PASSWORD_VARIABLE: &str = "SLUICE_REDIS_PASSWORD";

/// The environment variable with the password of all sentinels without one of their own.
const SENTINEL_VARIABLE: &str = "SLUICE_SENTINEL_PASSWORD";

/// Arguments of `sluice provision`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Provision {
    /// The routes: JSON, as for the driver file:
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The Redis to write to [default: the last one that the configuration's driver names, else redis:]
    #[command(flatten)]
    pub place: Place,
    /// Continue, and keep Redis in step with the file
    #[arg(long)]
    pub watch: bool,
    /// Remove lists that are not in the file
    #[arg(long)]
    pub prune: bool,
}

/// Arguments of `sluice routes`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Routes {
    /// The host to explain, step by step; without it, all patterns are listed
    #[arg(value_name = "HOST")]
    pub host: Option<String>,
    /// The Redis to read from.
    #[command(flatten)]
    pub place: Place,
}

/// Arguments of `sluice nodes`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Nodes {
    /// The Redis of the fleet.
    #[command(flatten)]
    pub place: Place,
}

/// Arguments of `sluice wait`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Wait {
    /// The host whose list was edited
    #[arg(value_name = "HOST")]
    pub host: String,
    /// The longest wait, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout: u64,
    /// The Redis of the fleet.
    #[command(flatten)]
    pub place: Place,
}

/// The Redis of a tool, and its credentials.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Place {
    /// The configuration whose driver is used [default: config/config.json]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The Redis, instead of the configuration's [default: redis:]; avoid a password here, as other users can see it
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    pub driver: Option<Secret>,
    /// The file of the password for --driver [default: the environment variable SLUICE_REDIS_PASSWORD]
    #[arg(long, value_name = "FILE", requires = "driver")]
    pub password_file: Option<PathBuf>,
}

impl Place {
    /// The source of routes that the configuration names.
    fn source(&self, file: &Path) -> Result<Source, String> {
        match &self.driver {
            Some(_) => self.named().map(only),
            None => configured(file, self.config.is_some()),
        }
    }

    /// The Redis to write to.
    fn redis(&self, file: &Path) -> Result<Target, String> {
        match self.source(file)? {
            Source::Redis(settings) => Ok(settings.write),
            Source::File(_) | Source::Nothing => {
                Err(format!("the driver of {} is a file; name a Redis with --driver", file.display()))
            }
        }
    }

    /// The Redis of `--driver`.
    fn named(&self) -> Result<Target, String> {
        let url = self.driver.as_ref().map_or("redis:", Secret::reveal);
        let mut target = parse_target(url)?;
        match (&self.password_file, &target.password) {
            (Some(_), Some(_)) => return Err("--password-file: --driver has a password too; name only one".to_owned()),
            (Some(path), None) => {
                let password =
                    config::read_password_file(path).map_err(|problem| format!("--password-file: {problem}"))?;
                target.password = Some(password.reveal().to_owned());
            }
            (None, Some(_)) => eprintln!(
                "sluice: warning: every user of this system can see the password of --driver in the list of processes; use \
                 --config, --password-file or {PASSWORD_VARIABLE} instead"
            ),
            (None, None) => {
                target.password = password_of(PASSWORD_VARIABLE)?.map(|password| password.reveal().to_owned());
            }
        }
        if let Some(of_sentinels @ None) = target.sentinel_password_mut() {
            *of_sentinels = password_of(SENTINEL_VARIABLE)?;
        }
        Ok(target)
    }
}

fn parse_target(url: &str) -> Result<Target, String> {
    Target::parse(url).map_err(|fault| format!("--driver: found {fault}, expected {EXPECTED}"))
}

/// The passwords of the environment: of servers, and of sentinels.
pub(super) fn passwords() -> Result<(Option<Secret>, Option<Secret>), String> {
    Ok((password_of(PASSWORD_VARIABLE)?, password_of(SENTINEL_VARIABLE)?))
}

fn password_of(variable: &str) -> Result<Option<Secret>, String> {
    match env::var(variable) {
        Ok(password) if !password.is_empty() => Ok(Some(Secret::from(password.as_str()))),
        Ok(_) | Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => Err(format!("{variable} of the environment is no UTF-8 text")),
    }
}

/// Copies a file into Redis.
pub(super) fn provision(arguments: &Provision, config: &Path) -> ExitCode {
    let Provision { file, place, watch, prune } = arguments;
    let target = match place.redis(config) {
        Ok(target) => target,
        Err(problem) => return fail(&problem),
    };
    if !watch {
        return match provision::carry(file, &target, *prune) {
            Ok(carried) => {
                println!("{target}: {carried}");
                ExitCode::SUCCESS
            }
            Err(error) => fail(&error.to_string()),
        };
    }
    let tell = |result| match result {
        Ok(carried) => println!("{target}: {carried}"),
        Err(error) => eprintln!("sluice: {error}"),
    };
    match provision::keep_in_step(file, &target, *prune, tell) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string()),
    }
}

/// Prints the resolution of a host, or all patterns.
pub(super) fn routes(arguments: &Routes, config: &Path) -> ExitCode {
    let source = match arguments.place.source(config) {
        Ok(source) => source,
        Err(problem) => return fail(&problem),
    };
    let told = match &arguments.host {
        Some(host) => provision::explain(&source, host),
        None => provision::list(&source).map(|text| Explained { text, is_served: true }),
    };
    match told {
        Ok(Explained { text, is_served }) => {
            print!("{text}");
            if is_served { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => fail(&error.to_string()),
    }
}

/// Prints the living nodes.
pub(super) fn nodes(arguments: &Nodes, config: &Path) -> ExitCode {
    let told = arguments.place.redis(config).and_then(|target| {
        let nodes = redis::nodes(&target).map_err(|error| format!("{target}: {error}"))?;
        Ok((target, nodes))
    });
    match told {
        Ok((target, nodes)) => {
            println!("{target}: {} nodes", nodes.len());
            for node in nodes {
                let started = Timestamp::from_second(i64::try_from(node.epoch).unwrap_or_default()).unwrap_or_default();
                let redis::Node { id, name, version, address, load, .. } = node;
                println!("{id}  {name}  {address}  {version}  {load} requests in flight  since {started}");
            }
            ExitCode::SUCCESS
        }
        Err(problem) => fail(&problem),
    }
}

/// Waits until all nodes serve the present state of a host in Redis. The status is 1 if some do not acknowledge in
/// time.
pub(super) fn wait(arguments: &Wait, config: &Path) -> ExitCode {
    let Some(host) = host_name(arguments.host.to_ascii_lowercase().as_bytes()) else {
        return fail(&format!("{:?} is no host name", arguments.host));
    };
    let told = arguments.place.redis(config).and_then(|target| {
        let patience = Duration::from_secs(arguments.timeout);
        redis::wait_until_served(&target, &host, patience).map_err(|error| format!("{target}: {error}"))
    });
    match told {
        Ok(served) if served.missing.is_empty() => {
            println!("{host}: {served}");
            ExitCode::SUCCESS
        }
        Ok(served) => fail(&format!("{host}: {served}")),
        Err(problem) => fail(&problem),
    }
}

/// Makes a process upgrade itself.
pub(super) fn upgrade(pid: u32) -> ExitCode {
    match supervisor::order_upgrade(pid) {
        Ok(successor) => {
            println!("process {successor} has replaced process {pid}");
            ExitCode::SUCCESS
        }
        Err(problem) => fail(&problem),
    }
}

/// The settings of a single Redis for reading and writing.
fn only(target: Target) -> Source {
    Source::Redis(Box::new(redis::Settings {
        read: target.clone(),
        write: target,
        ttl: Duration::ZERO,
        unknown_rate: 0,
        dead_ttl: Duration::ZERO,
        resync_hold: Duration::ZERO,
        snapshot: None,
        keeps_certificates: false,
    }))
}

/// The source of the configuration; the default source if there is no configuration and none was requested.
fn configured(config: &Path, is_asked_for: bool) -> Result<Source, String> {
    let (redis_password, sentinel_password) = passwords()?;
    if !config.exists() && !is_asked_for {
        let target = parse_target("redis:")?;
        let password = redis_password.map(|password| password.reveal().to_owned());
        return Ok(only(Target { password, ..target }));
    }
    let overrides = Overrides { redis_password, sentinel_password, ..Overrides::default() };
    let (settings, _) = config::load(config, &overrides).map_err(|failure| failure.to_string())?;
    Ok(settings.directory.source)
}

pub(super) fn fail(problem: &str) -> ExitCode {
    problem.lines().for_each(|line| eprintln!("sluice: {line}"));
    ExitCode::FAILURE
}
