//! The command line, and the commands of the program.

mod admin_client;
mod check;
mod haproxy;
mod log_lines;
mod node;
mod pages;
mod program_log;
mod tools;
mod top;

pub use admin_client::Node;
pub use check::CheckFiles;
pub use haproxy::{Check, Diff, Haproxy};
pub use node::Why;
pub use pages::SettingsForm;
pub use tools::{Nodes, Provision, Routes, Wait};

use crate::base::printable::printable;
use crate::base::secret::redact_url;
use crate::config::{self, CpuList, HaproxyFile, LogFormat, Origin, Overrides, Settings, Warning};
use crate::supervisor::{Findings, Predecessor};
use crate::{demo, supervisor};
use clap::{Parser, Subcommand};
use clap_complete::Shell;
use log::Level;
use nix::unistd::Uid;
use std::env;
use std::ffi::OsString;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The environment variable that selects one of several configurations.
const FLAVOR: &str = "SETTINGS_FLAVOR";

/// A reverse proxy for edge nodes: HTTP/1.1 and WebSocket for very many virtual hosts.
#[derive(Debug, Parser)]
#[command(name = "sluice", version, args_conflicts_with_subcommands = true, term_width = 0)]
#[command(after_help = "Environment:\n  \
    SETTINGS_FLAVOR=x        read config/config_x.json unless --config says otherwise\n  \
    SLUICE_REDIS_PASSWORD=x  the password of every Redis of the driver without one of its own\n  \
    SLUICE_SENTINEL_PASSWORD=x  the password of all sentinels of the driver without one of their own\n  \
    RUST_LOG=level           error, warn, info, debug or trace, whatever server.debug says\n  \
    SLUICE_LOG_FORMAT=x      text or json, whatever server.logFormat says")]
pub struct Arguments {
    /// The configuration [default: config/config.json]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Check the configuration and exit: 0 if it can be used, 1 if not
    #[arg(short, long)]
    pub dry: bool,
    /// The number of workers, instead of server.workers [default: one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(config::WORKERS))]
    pub workers: Option<u64>,
    /// The processors to pin workers to, such as 0-3,8, instead of server.cpus [default: all]
    #[arg(long, value_name = "LIST", value_parser = parse_cpus)]
    pub cpus: Option<CpuList>,
    /// Do not pin workers to processors
    #[arg(long)]
    pub no_pin: bool,
    /// Serve a HAProxy configuration file, or the files of a folder, besides the driver; may be repeated
    #[arg(long, value_name = "FILE")]
    pub haproxy: Vec<PathBuf>,
    /// Use the files of --haproxy although keywords are lost that decide about access or routing
    #[arg(long, requires = "haproxy")]
    pub lossy: bool,
    /// Print all settings with their defaults (text), or as a configuration with all settings (sample) [default: text]
    #[arg(long, value_name = "FORM", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "text", hide_possible_values = true)]
    pub help_settings: Option<SettingsForm>,
    /// A command to run instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Commands other than serving.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Serve two built-in backends on 127.0.0.1, and suggest what to try
    Demo {
        /// The port of the proxy
        #[arg(long, value_name = "N", default_value_t = demo::DEFAULT_PORT, value_parser = clap::value_parser!(u16).range(1..))]
        port: u16,
    },
    /// Load a routes file into Redis, by difference
    Provision(Provision),
    /// Show the resolution of a host, step by step (the status is 1 if it has no route), or list all patterns
    Routes(Routes),
    /// Check HAProxy configuration files, list their keywords, or compare with HAProxy
    #[command(subcommand)]
    Haproxy(Haproxy),
    /// Check configurations, routes files and HAProxy files, each by its content (the status is 1 if one is not usable)
    Check(CheckFiles),
    /// Show the state of a running node, from its admin service (the status is 1 if it is not ready)
    Status(Node),
    /// Show the path of a request on a running node, step by step, with reasons (the status is 1 if no backend may
    /// serve)
    Why(Why),
    /// Watch a running node on the terminal: its workers, failures, hosts and queues, and why backends do not serve
    Top(Node),
    /// List the nodes that serve from one Redis
    Nodes(Nodes),
    /// Wait until every core of every node serves the present state of a host in Redis (the status is 1 if that takes
    /// too long)
    Wait(Wait),
    /// Make a running sluice upgrade itself from its program file, without losing a connection, and wait for the
    /// outcome
    Upgrade {
        /// The process
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        pid: u32,
    },
    /// Print the completions of these commands for a shell
    Completions {
        /// The shell
        #[arg(value_name = "SHELL")]
        shell: Shell,
    },
    /// Write the manual pages of these commands to a folder
    Man {
        /// The folder
        #[arg(value_name = "FOLDER")]
        folder: PathBuf,
    },
}

fn parse_cpus(text: &str) -> Result<CpuList, String> {
    text.parse().map_err(|fault: config::CpuListFault| format!("{fault}; expected a list such as 0-3,8"))
}

impl Arguments {
    /// The file to read.
    pub fn config_path(&self, flavor: Option<OsString>) -> PathBuf {
        config::path(self.config.clone(), flavor.as_deref())
    }

    /// The settings that override the file.
    pub fn overrides(&self, is_root: bool, is_successor: bool) -> Overrides {
        Overrides {
            workers: self.workers.and_then(|workers| workers.try_into().ok()),
            cpus: self.cpus.clone(),
            no_pin: self.no_pin,
            is_root,
            is_successor,
            redis_password: None,
            sentinel_password: None,
            haproxy: self.haproxy.iter().map(|path| HaproxyFile { path: path.clone(), is_lossy: self.lossy }).collect(),
        }
    }
}

/// Runs the command line. Invalid arguments end the process here, with a message and the status 2.
pub fn run() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return refuse_arguments(&error),
    };
    if let Some(form) = arguments.help_settings {
        return pages::settings(form);
    }
    let flavor = env::var_os(FLAVOR);
    let file = match &arguments.command {
        Some(
            Command::Provision(Provision { place, .. })
            | Command::Routes(Routes { place, .. })
            | Command::Nodes(Nodes { place })
            | Command::Wait(Wait { place, .. }),
        ) => config::path(place.config.clone(), flavor.as_deref()),
        Some(Command::Status(node) | Command::Top(node) | Command::Why(Why { node, .. })) => {
            config::path(node.config.clone(), flavor.as_deref())
        }
        _ => arguments.config_path(flavor),
    };
    if let Some(command) = &arguments.command {
        return run_command(command, &file);
    }
    serve(&arguments, &file)
}

/// Serves, or checks whether a start would. Reports before the log is there have the form that the environment asks for.
fn serve(arguments: &Arguments, file: &Path) -> ExitCode {
    let wish = log_lines::from_environment();
    let format = if arguments.dry { None } else { wish.as_ref().ok().copied().flatten() };
    let early = format.unwrap_or_default();
    let refuse = |problem: &str| {
        log_lines::print(early, Level::Error, problem);
        ExitCode::FAILURE
    };
    let predecessor = match Predecessor::find() {
        Ok(predecessor) => predecessor,
        Err(problem) => return refuse(&problem.to_string()),
    };
    let (redis_password, sentinel_password) = match tools::passwords() {
        Ok(passwords) => passwords,
        Err(problem) => {
            predecessor.iter().for_each(|predecessor| predecessor.refuse(&problem));
            return refuse(&problem);
        }
    };
    let overrides = arguments.overrides(Uid::effective().is_root(), predecessor.is_some());
    let overrides = Overrides { redis_password, sentinel_password, ..overrides };
    let has_none = file == config::path(None, None) && arguments.config.is_none() && !file.exists();
    if has_none && predecessor.is_none() && overrides.haproxy.is_empty() {
        return refuse(&first_steps(file));
    }
    let loaded = match has_none && !overrides.haproxy.is_empty() {
        true => config::from_text("{}", file, &overrides),
        false => config::load(file, &overrides),
    };
    let (settings, warnings) = match loaded {
        Ok(loaded) => loaded,
        Err(failure) => {
            predecessor.iter().for_each(|predecessor| predecessor.refuse(&failure.to_string()));
            print_warnings(early, file, &failure.warnings);
            return refuse(&failure.to_string());
        }
    };
    if arguments.dry {
        print_warnings(early, file, &warnings);
        return with_log("warn", LogFormat::Text, || status_of(try_start(file, &settings)));
    }
    let origin = Origin::new(file, &overrides);
    let format = format.unwrap_or(settings.log_format);
    with_log(level(settings.debug), format, || {
        if let Err(wrong) = wish {
            let name = log_lines::VARIABLE;
            log::warn!("{name} is {:?}, which is no form (text, json); it is left aside", printable(&wrong));
        }
        for warning in warnings {
            log::warn!("{}: {warning}", file.display());
        }
        report(supervisor::run(&settings, Some(origin), predecessor), format)
    })
}

/// Runs a command other than serving. `file` is the configuration.
fn run_command(command: &Command, file: &Path) -> ExitCode {
    match command {
        Command::Demo { port } => {
            let format = log_lines::from_environment().ok().flatten().unwrap_or_default();
            with_log(level(false), format, || report(demo::run(*port), format))
        }
        Command::Provision(provision) => tools::provision(provision, file),
        Command::Routes(routes) => tools::routes(routes, file),
        Command::Haproxy(command) => haproxy::run(command),
        Command::Check(files) => check::run(files, file),
        Command::Completions { shell } => pages::completions(*shell),
        Command::Man { folder } => pages::manual(folder),
        Command::Status(node) => node::status(node, file),
        Command::Why(arguments) => node::why(arguments, file),
        Command::Top(node) => top::run(node, file),
        Command::Nodes(arguments) => tools::nodes(arguments, file),
        Command::Wait(arguments) => tools::wait(arguments, file),
        Command::Upgrade { pid } => tools::upgrade(*pid),
    }
}

/// Prints the fault of the arguments, or the requested help. An argument that may hold a password is not shown.
fn refuse_arguments(error: &clap::Error) -> ExitCode {
    let secrets: Vec<String> = env::args_os()
        .skip(1)
        .map(|argument| argument.to_string_lossy().into_owned())
        .filter(|text| text.contains("://") || text.contains('@'))
        .collect();
    if !error.use_stderr() || secrets.is_empty() {
        error.exit();
    }
    let mut text = error.render().to_string();
    for secret in &secrets {
        // clap may show the URL of `--driver=URL` alone.
        for shown in [Some(secret.as_str()), secret.split_once('=').map(|(_, value)| value)].into_iter().flatten() {
            text = text.replace(shown, &redact_url(shown));
        }
    }
    eprint!("{text}");
    ExitCode::from(2)
}

fn report(result: Result<(), impl Display>, format: LogFormat) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            for line in error.to_string().lines() {
                // The error is printed even if the log is silenced.
                if log::log_enabled!(Level::Error) {
                    log::error!("{line}");
                } else {
                    log_lines::print(format, Level::Error, line);
                }
            }
            ExitCode::FAILURE
        }
    }
}

fn print_warnings(format: LogFormat, file: &Path, warnings: &[Warning]) {
    for warning in warnings {
        log_lines::print(format, Level::Warn, &format!("{}: warning: {warning}", file.display()));
    }
}

fn level(debug: bool) -> &'static str {
    if debug { "debug" } else { "info" }
}

fn status_of(is_good: bool) -> ExitCode {
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Checks whether a start would serve.
fn try_start(file: &Path, settings: &Settings) -> bool {
    let file = file.display();
    let Findings { faults, warnings } = supervisor::check(settings);
    warnings.iter().for_each(|warning| eprintln!("{file}: warning: {warning}"));
    faults.iter().for_each(|fault| eprintln!("{file}: {fault}"));
    if faults.is_empty() {
        println!("{file}: OK");
    }
    faults.is_empty()
}

/// The first steps, for a user who has called the program without a configuration.
fn first_steps(file: &Path) -> String {
    format!(
        "sluice: nothing is started: there is no configuration at {}, and --config names none\n\
         to see it at work: sluice demo\n\
         to serve: sluice --config FILE, with {} in the file\n",
        file.display(),
        r#"{"http": {"port": 8080}, "driver": "file:routes.json"}"#
    )
}

/// Runs `serve` with the program's log; pending lines are written at the end.
fn with_log(level: &str, format: LogFormat, serve: impl FnOnce() -> ExitCode) -> ExitCode {
    match program_log::start(level, format) {
        Ok(_log) => serve(),
        Err(error) => {
            let problem = format!("starting the thread of the program's own log: {error}");
            log_lines::print(format, Level::Error, &problem);
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn arguments_become_overrides() {
        let parse = |line: &str| Arguments::try_parse_from(line.split_whitespace());
        let plain = parse("sluice").expect("no arguments");
        assert_eq!(plain.overrides(false, false), Overrides::default());
        assert_eq!(plain.config_path(None), Path::new("config/config.json"));
        assert_eq!(plain.config_path(Some("x".into())), Path::new("config/config_x.json"));
        let full = parse("sluice --config a.json --dry --workers 4 --cpus 0-1,3 --no-pin").expect("all arguments");
        assert!(full.dry);
        assert_eq!(full.config_path(Some("x".into())), Path::new("a.json"));
        let cpus = Some("0-1,3".parse().expect("a list"));
        let overrides = Overrides { workers: Some(4), cpus, no_pin: true, is_root: true, ..Overrides::default() };
        assert_eq!(full.overrides(true, false), overrides);
        assert_eq!(parse("sluice demo").expect("a command").command, Some(Command::Demo { port: 8080 }));
        assert_eq!(parse("sluice demo --port 81").expect("a command").command, Some(Command::Demo { port: 81 }));
        assert_eq!(parse("sluice --help-settings").expect("a form").help_settings, Some(SettingsForm::Text));
        assert_eq!(parse("sluice --help-settings=sample").expect("a form").help_settings, Some(SettingsForm::Sample));
        let wrong = ["--workers 0", "--workers x", "--workers 1025", "--cpus x", "--cpus 1-0", "--dry demo", "other"];
        let wrong = wrong.into_iter().chain(["demo --port 0", "demo --port 65536", "--port 80"]);
        for arguments in wrong {
            assert!(parse(&format!("sluice {arguments}")).is_err(), "{arguments}");
        }
    }
}
