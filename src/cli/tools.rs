//! `sluice provision` and `sluice routes`: the tools for routes in Redis.

use crate::config::{self, Overrides};
use crate::directory::Source;
use crate::directory::redis::{EXPECTED, Target};
use crate::{provision, supervisor};
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What `sluice provision` is told.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Provision {
    /// The routes: JSON, as with the driver file:
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The Redis to write to [default: the last one that the configuration's driver names, else redis:]
    #[arg(long, value_name = "URL", value_parser = parse_target)]
    pub driver: Option<Target>,
    /// Go on, and keep Redis in step with the file
    #[arg(long)]
    pub watch: bool,
    /// Remove the lists that the file does not have
    #[arg(long)]
    pub prune: bool,
}

/// What `sluice routes` is told.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Routes {
    /// The host to explain, step by step; without it, all patterns are listed
    #[arg(value_name = "HOST")]
    pub host: Option<String>,
    /// The Redis to read from [default: the first one that the configuration's driver names, else redis:]
    #[arg(long, value_name = "URL", value_parser = parse_target)]
    pub driver: Option<Target>,
}

fn parse_target(url: &str) -> Result<Target, String> {
    Target::parse(url).ok_or_else(|| format!("expected {EXPECTED}"))
}

/// Carries a file into Redis.
pub(super) fn provision(arguments: &Provision, config: &Path) -> ExitCode {
    let Provision { file, driver, watch, prune } = arguments;
    let target = match driver.clone().map_or_else(|| configured(config, |settings| settings.write), Ok) {
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

/// Prints what a host resolves to, or all patterns.
pub(super) fn routes(arguments: &Routes, config: &Path) -> ExitCode {
    let driver = arguments.driver.clone();
    let target = match driver.map_or_else(|| configured(config, |settings| settings.read), Ok) {
        Ok(target) => target,
        Err(problem) => return fail(&problem),
    };
    let text = match &arguments.host {
        Some(host) => provision::explain(&target, host),
        None => provision::list(&target),
    };
    match text {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error.to_string()),
    }
}

/// Has a process upgrade itself.
pub(super) fn upgrade(pid: u32) -> ExitCode {
    match supervisor::order_upgrade(pid) {
        Ok(successor) => {
            println!("process {successor} serves in the place of process {pid}");
            ExitCode::SUCCESS
        }
        Err(problem) => fail(&problem),
    }
}

/// The Redis of the configuration; where there is no configuration, the default one.
fn configured(
    config: &Path,
    choose: impl FnOnce(crate::directory::redis::Settings) -> Target,
) -> Result<Target, String> {
    if !config.exists() {
        return parse_target("redis:");
    }
    let (settings, _) = config::load(config, &Overrides::default()).map_err(|failure| failure.to_string())?;
    match settings.directory.source {
        Source::Redis(settings) => Ok(choose(*settings)),
        Source::File(_) => Err(format!("the driver of {} is a file; name a Redis with --driver", config.display())),
    }
}

fn fail(problem: &str) -> ExitCode {
    problem.lines().for_each(|line| eprintln!("sluice: {line}"));
    ExitCode::FAILURE
}
