//! A Redis of a test's own.

use crate::support::{PATIENCE, holds_within, until, unused_address};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use redis::{Client, Connection, FromRedisValue, cmd};
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A running `redis-server`, or one that was killed and can be started again.
pub(crate) struct Server {
    address: SocketAddr,
    dir: PathBuf,
    options: Vec<String>,
    child: Option<Child>,
    is_stopped: bool,
}

impl Server {
    /// One without persistence.
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// One with more options, as in `["--requirepass", "x"]`.
    pub(crate) fn with(options: &[&str]) -> Self {
        Self::at(unused_address(), options.iter().map(|option| (*option).to_owned()).collect())
    }

    /// One at this address.
    pub(crate) fn at(address: SocketAddr, options: Vec<String>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("sluice-redis-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(&dir).expect("making the server's directory");
        let mut server = Self { address, dir, options, child: None, is_stopped: false };
        server.revive();
        server
    }

    /// Starts it, empty, where it was before.
    pub(crate) fn revive(&mut self) {
        let log = File::create(self.dir.join("log")).expect("a file for the log");
        let errors = log.try_clone().expect("a second handle");
        let child = Command::new("redis-server")
            .args(["--port", &self.address.port().to_string(), "--bind", &self.address.ip().to_string()])
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no", "--repl-diskless-sync-delay", "0"])
            .args(["--replica-announce-ip", &self.address.ip().to_string()])
            .args(["--dir", self.dir.to_str().expect("a plain path")])
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .expect("starting redis-server (Debian's package of that name)");
        self.child = Some(child);
        until("redis-server listens", || std::net::TcpStream::connect(self.address).is_ok());
    }

    /// Kills it, as the system does when memory is short.
    pub(crate) fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Whether it was started, and neither killed nor stopped.
    pub(crate) fn is_running(&self) -> bool {
        self.child.is_some() && !self.is_stopped
    }

    /// Stops it, or lets it continue.
    pub(crate) fn set_stopped(&mut self, is_stopped: bool) {
        self.signal(if is_stopped { Signal::SIGSTOP } else { Signal::SIGCONT });
        self.is_stopped = is_stopped;
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        kill(Pid::from_raw(i32::try_from(child.id()).expect("a process id")), signal).expect("sending a signal");
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The driver's URL.
    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// A connection to it.
    pub(crate) fn connect(&self) -> Connection {
        self.connect_as("")
    }

    /// A connection with `user:password@`.
    pub(crate) fn connect_as(&self, who: &str) -> Connection {
        let client = Client::open(format!("redis://{who}{}/", self.address)).expect("a good URL");
        let mut connection = None;
        let connected = holds_within(PATIENCE, || {
            connection = client.get_connection().ok();
            connection.is_some()
        });
        assert!(connected, "connecting to {}", self.address);
        connection.expect("just seen")
    }

    /// Does what `line` says.
    pub(crate) fn run<T: FromRedisValue>(&self, line: &str) -> T {
        run(&mut self.connect(), line)
    }

    /// Puts a list in the place of a frontend's, in one step.
    pub(crate) fn set(&self, pattern: &str, urls: &[String]) {
        set(&mut self.connect(), &format!("frontend:{pattern}"), urls);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "--- redis at {}:\n{}",
                self.address,
                fs::read_to_string(self.dir.join("log")).unwrap_or_default()
            );
        }
        self.kill();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Does what `line` says; words are parted by blanks.
pub(crate) fn run<T: FromRedisValue>(connection: &mut Connection, line: &str) -> T {
    let mut words = line.split(' ');
    let mut command = cmd(words.next().unwrap_or_default());
    words.for_each(|word| {
        command.arg(word);
    });
    command.query(connection).unwrap_or_else(|error| panic!("{line}: {error}"))
}

/// Puts a list in the place of another, in one step.
pub(crate) fn set(connection: &mut Connection, key: &str, urls: &[String]) {
    redis::pipe()
        .atomic()
        .del(key)
        .rpush(key, std::iter::once("site").chain(urls.iter().map(String::as_str)).collect::<Vec<_>>())
        .exec(connection)
        .unwrap_or_else(|error| panic!("writing {key}: {error}"));
}
