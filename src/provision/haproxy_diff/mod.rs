//! A comparison of HAProxy and sluice: the same requests with the same file, and a report of differences.
//!
//! Listeners become loopback ports and servers become echo servers, in a copy of the file that both programs read.
//! Parts that need the real environment (TLS, checks, logs, sockets of the host) are left out of the copy.

mod compare;
mod copy;
mod echo;
mod requests;

use crate::base::clock::Clock;
use crate::haproxy::{self, Environment, Source, files};
use compare::{Seen, difference, fetch};
use copy::{Copy, Reader};
use echo::Echoes;
use requests::Generator;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

/// The limit for a program to begin to listen.
const START: Duration = Duration::from_secs(20);

/// The greatest number of differences of one kind that are shown with their request.
const SHOWN: usize = 3;

/// Settings of a comparison.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The file.
    pub file: PathBuf,
    /// HAProxy's program.
    pub haproxy: PathBuf,
    /// Number of requests through both programs.
    pub requests: usize,
    /// The seed of the requests.
    pub seed: u64,
}

/// The result of a comparison.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The report.
    pub text: String,
    /// Number of requests with different responses or routing.
    pub differences: usize,
}

/// A program that ends when this is dropped.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Compares the programs. An error is one line.
pub fn run(settings: &Settings) -> Result<Outcome, String> {
    let sources = files::sources(std::slice::from_ref(&settings.file))?;
    let folder = Folder(std::env::temp_dir().join(format!("sluice-diff-{}", std::process::id())));
    fs::create_dir_all(&folder.0).map_err(|error| format!("making {}: {error}", folder.0.display()))?;
    let (mut copies, echoes) = (Vec::new(), Echoes::default());
    for (name, reader) in [("haproxy", Reader::Haproxy), ("sluice", Reader::Sluice)] {
        let copy = copy::make(&sources, reader, &echoes)?;
        let path = folder.0.join(format!("{name}.cfg"));
        fs::write(&path, &copy.text).map_err(|error| format!("writing {}: {error}", path.display()))?;
        copies.push((path, copy));
    }
    let generator = Generator::new(&copies[1].1.text, settings.seed)?;
    let [(haproxy_file, theirs), (sluice_file, ours)] = &copies[..] else { return Err("two copies".to_owned()) };
    let _haproxy = start_haproxy(&settings.haproxy, haproxy_file, theirs)?;
    let _sluice = start_sluice(&folder.0, sluice_file, ours)?;
    compare_all(settings, generator, (theirs, ours))
}

fn start_haproxy(program: &Path, file: &Path, copy: &Copy) -> Result<Program, String> {
    let log = file.with_extension("log");
    let output = fs::File::create(&log).map_err(|error| format!("writing {}: {error}", log.display()))?;
    let child = Command::new(program).arg("-db").arg("-f").arg(file).stdout(Stdio::null()).stderr(output).spawn();
    let program = Program(child.map_err(|error| format!("starting {}: {error}", program.display()))?);
    await_listeners(program, copy, "HAProxy", &log)
}

fn start_sluice(folder: &Path, file: &Path, copy: &Copy) -> Result<Program, String> {
    let log = file.with_extension("log");
    let config = folder.join("sluice.json");
    let driver = serde_json::json!({"url": format!("haproxy:{}", file.display()), "lossy": true});
    let text = serde_json::json!({"driver": driver, "admin": false, "user": user(), "group": user()}).to_string();
    fs::write(&config, text).map_err(|error| format!("writing {}: {error}", config.display()))?;
    let output = fs::File::create(&log).map_err(|error| format!("writing {}: {error}", log.display()))?;
    let program = std::env::current_exe().map_err(|error| format!("finding this program: {error}"))?;
    let mut command = Command::new(program);
    command.args(["--workers", "1", "--no-pin", "--config"]).arg(config).stdout(Stdio::null()).stderr(output);
    let child = command.spawn().map_err(|error| format!("starting sluice: {error}"))?;
    await_listeners(Program(child), copy, "sluice", &log)
}

/// The user that started this tool owns the folder.
fn user() -> serde_json::Value {
    if nix::unistd::Uid::effective().is_root() { 0.into() } else { serde_json::Value::Null }
}

fn await_listeners(mut program: Program, copy: &Copy, name: &str, log: &Path) -> Result<Program, String> {
    let clock = Clock::new();
    let deadline = clock.now() + START;
    for address in &copy.listeners {
        while TcpStream::connect(address).is_err() {
            let has_ended = program.0.try_wait().is_ok_and(|status| status.is_some());
            if has_ended || clock.now() > deadline {
                let said = fs::read_to_string(log).unwrap_or_default();
                return Err(format!("{name} does not take the copy of the file:\n{}", said.trim_end()));
            }
            thread::park_timeout(Duration::from_millis(10));
        }
    }
    Ok(program)
}

fn compare_all(
    settings: &Settings,
    mut generator: Generator,
    (theirs, ours): (&Copy, &Copy),
) -> Result<Outcome, String> {
    let mut kinds: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut differences = 0;
    let mut statuses: BTreeMap<u16, usize> = BTreeMap::new();
    for number in 0..settings.requests {
        let listener = generator.listener(theirs.listeners.len());
        let (Some(their_address), Some(our_address)) = (theirs.listeners.get(listener), ours.listeners.get(listener))
        else {
            return Err("the file has no listener that can be copied".to_owned());
        };
        let request = generator.request();
        let seen = [their_address, our_address].map(|address| fetch(*address, &request));
        let [haproxy, sluice] = seen;
        *statuses.entry(haproxy.status()).or_default() += 1;
        if let Some(kind) = difference(&haproxy, &sluice) {
            differences += 1;
            let shown = kinds.entry(kind).or_default();
            if shown.len() < SHOWN {
                shown.push(show(number, &request, (&haproxy, &sluice)));
            }
        }
    }
    let mut text = String::new();
    for (kind, shown) in &kinds {
        let _ = writeln!(text, "{kind}:");
        shown.iter().for_each(|shown| text.push_str(shown));
    }
    let statuses: Vec<_> = statuses.iter().map(|(status, count)| format!("{count} x {status}")).collect();
    let (requests, statuses, seed) = (settings.requests, statuses.join(", "), settings.seed);
    let _ = writeln!(text, "{requests} requests ({statuses}), {differences} differences (seed {seed})");
    Ok(Outcome { text, differences })
}

fn show(number: usize, request: &[u8], (haproxy, sluice): (&Seen, &Seen)) -> String {
    let request = String::from_utf8_lossy(request).trim_end().replace("\r\n", "\n    ");
    format!("  request {number}:\n    {request}\n  HAProxy: {haproxy}\n  sluice:  {sluice}\n")
}

/// A free port of this host, found by a listening socket that is closed at once.
fn free_address() -> Result<SocketAddr, String> {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map_err(|error| format!("finding a free port: {error}"))
}

/// Parses a text as a HAProxy file.
fn load(text: &str) -> haproxy::Loaded {
    let source = Source { name: "copy".to_owned(), bytes: text.as_bytes().to_vec() };
    haproxy::load(&[source], &mut Environment::new([], &files::read))
}
