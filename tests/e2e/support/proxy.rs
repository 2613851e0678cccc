//! The proxy as a child process, with a directory of its own for its files.

use super::client::{self, Client};
use super::launch::{self, Launch, write_whole};
use super::tls::Pair;
use super::{HOST, PATIENCE, holds_within, until, unused_address};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getuid};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, Permissions};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

/// How long a proxy that nobody needs any more may take to stop before it is killed.
const FAREWELL: Duration = Duration::from_millis(500);

/// What a proxy is started with.
pub(crate) struct Setup {
    dir: PathBuf,
    server: Map<String, Value>,
    /// Sections of the configuration and of the routes that few tests need.
    http: Map<String, Value>,
    https: Map<String, Value>,
    certificates: Map<String, Value>,
    options: Map<String, Value>,
    secure_address: Option<SocketAddr>,
    frontends: Map<String, Value>,
    driver: Value,
    pub(crate) launch: Launch,
    /// Where it listens, if that is not to be found out.
    pub(crate) address: Option<SocketAddr>,
    /// As root the proxy would become another user, who must not write in the directory.
    user: Value,
    /// Where its standard error goes, if not to a file.
    stderr: Option<Stdio>,
}

impl Setup {
    /// Two workers, no frontend, and nothing set.
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("sluice-e2e-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(&dir).expect("making the proxy's directory");
        let user = if getuid().is_root() { json!(0) } else { Value::Null };
        Self {
            dir,
            server: Map::new(),
            http: Map::new(),
            https: Map::new(),
            certificates: Map::new(),
            options: Map::new(),
            secure_address: None,
            frontends: Map::new(),
            driver: json!("file:routes.json"),
            launch: Launch { workers: 2, admin: json!(false), ..Launch::default() },
            address: None,
            user,
            stderr: None,
        }
    }

    /// One frontend, [`HOST`], with these backends.
    pub(crate) fn for_backends(urls: impl IntoIterator<Item = String>) -> Self {
        Self::new().route(HOST, urls)
    }

    /// The directory of the proxy's files.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Sets `server.<key>`.
    pub(crate) fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.server.insert(key.to_owned(), value.into());
        self
    }

    /// Listens for encrypted connections too.
    pub(crate) fn with_https(mut self) -> Self {
        let address = unused_address();
        self.secure_address = Some(address);
        self.set_https("bind", address.ip().to_string()).set_https("port", address.port())
    }

    /// The address for which a certificate of the proxy itself has to be.
    pub(crate) fn secure_ip(&self) -> String {
        self.secure_address.expect("a setup with https").ip().to_string()
    }

    /// Sets `http.<key>`.
    pub(crate) fn set_http(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.http.insert(key.to_owned(), value.into());
        self
    }

    /// Sets `https.<key>`.
    pub(crate) fn set_https(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.https.insert(key.to_owned(), value.into());
        self
    }

    /// Adds a certificate and its key to the routes, as texts or paths.
    pub(crate) fn certificate(mut self, pattern: &str, pair: &Pair) -> Self {
        self.certificates.insert(pattern.to_owned(), pair.as_json());
        self
    }

    /// Sets an option of a frontend.
    pub(crate) fn option(mut self, pattern: &str, key: &str, value: impl Into<Value>) -> Self {
        let options = self.options.entry(pattern).or_insert_with(|| json!({}));
        options[key] = value.into();
        self
    }

    /// Writes a certificate and its key to files, and has them shown to clients that ask for nobody else.
    pub(crate) fn default_certificate(self, pair: &Pair) -> Self {
        let setup = self.file("default.crt", &pair.certificate).secret("default.key", &pair.key);
        setup.set_https("cert", "default.crt").set_https("key", "default.key")
    }

    /// Adds a file that nobody else may read.
    pub(crate) fn secret(self, name: &str, content: &str) -> Self {
        let setup = self.file(name, content);
        fs::set_permissions(setup.dir.join(name), Permissions::from_mode(0o600)).expect("changing permissions");
        setup
    }

    /// Sets `server.accessLog` to a file.
    pub(crate) fn with_access_log(self) -> Self {
        let path = self.dir.join("access.log");
        self.set("accessLog", path.to_str().expect("a path of plain text"))
    }

    /// Adds a frontend whose identifier is "site of" its host.
    pub(crate) fn route(mut self, host: &str, urls: impl IntoIterator<Item = String>) -> Self {
        self.frontends.insert(host.to_owned(), frontend(host, urls));
        self
    }

    /// Takes the routes from somewhere else than the file.
    #[allow(dead_code, reason = "the tests with a real Redis use it")]
    pub(crate) fn driver(mut self, driver: impl Into<Value>) -> Self {
        self.driver = driver.into();
        self
    }

    /// Sets a variable of the environment.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.launch.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Leaves `user` and `group` out of the configuration.
    pub(crate) fn with_default_user(mut self) -> Self {
        self.user = Value::Null;
        self
    }

    /// Becomes this user.
    pub(crate) fn user(mut self, user: impl Into<Value>) -> Self {
        self.user = user.into();
        self
    }

    /// Sends its standard error there, not to a file.
    pub(crate) fn stderr(mut self, to: impl Into<Stdio>) -> Self {
        self.stderr = Some(to.into());
        self
    }

    /// The program, if it is not the one that was built.
    pub(crate) fn program(mut self, path: &Path) -> Self {
        self.launch.program = Some(path.to_owned());
        self
    }

    /// How many workers there are; none to leave it to the configuration.
    pub(crate) fn workers(mut self, count: usize) -> Self {
        self.launch.workers = count;
        self
    }

    /// Pins workers.
    pub(crate) fn pinned(mut self) -> Self {
        self.launch.pinned = true;
        self
    }

    /// Has a shell do this before it becomes the program.
    pub(crate) fn prelude(mut self, script: &str) -> Self {
        self.launch.prelude.push_str(script);
        self
    }

    /// Hands it a socket, as a service manager does, of the address that it listens on, or of another one.
    pub(crate) fn activated(mut self, is_known: bool) -> Self {
        let address = unused_address();
        self.launch.socket = Some(TcpListener::bind(address).expect("listening in the proxy's place"));
        self.address = is_known.then_some(address);
        self
    }

    /// Adds a file to the directory.
    pub(crate) fn file(self, name: &str, content: &str) -> Self {
        let path = self.dir.join(name);
        fs::create_dir_all(path.parent().expect("a path in the directory")).expect("making a directory");
        fs::write(&path, content).unwrap_or_else(|error| panic!("writing {}: {error}", path.display()));
        self
    }

    fn write_config(&self, address: SocketAddr) {
        let mut http = self.http.clone();
        http.extend([("bind".to_owned(), json!(address.ip().to_string())), ("port".to_owned(), json!(address.port()))]);
        let mut server = self.server.clone();
        // Most tests want to know the reason of a response.
        server.entry("debugNetworks").or_insert_with(|| json!(["127.0.0.0/8", "::1"]));
        let config = json!({
            "server": server,
            "http": http,
            "https": if self.https.is_empty() { Value::Null } else { Value::Object(self.https.clone()) },
            "driver": self.driver,
            "admin": self.launch.admin,
            "user": self.user,
            "group": self.user,
        });
        write_whole(&self.dir.join("config.json"), &format!("{config:#}"));
    }

    /// Has the proxy check the configuration: whether it is good, and all that was said.
    pub(crate) fn dry(&self) -> (bool, String) {
        self.write_config(unused_address());
        self.write_routes();
        launch::dry(&self.dir)
    }

    /// Starts the proxy and waits until it accepts connections.
    #[track_caller]
    pub(crate) fn start(mut self) -> Proxy {
        let (address, child) = self.spawn();
        // Of a test that binds others, there is nobody at this one.
        let secure_address = self.secure_address.filter(|_| self.https.get("bind").is_some_and(Value::is_string));
        let Self { dir, certificates, launch, .. } = self;
        let mut proxy = Proxy { address, secure_address, certificates, dir, child, successors: Vec::new(), launch };
        proxy.until_accepting();
        proxy
    }

    /// Starts a proxy that cannot serve: how it ended, and what it said.
    #[track_caller]
    pub(crate) fn start_in_vain(mut self) -> (ExitStatus, String) {
        let (_, mut child) = self.spawn();
        let status = child.wait().expect("waiting for the proxy's end");
        let said = fs::read_to_string(self.dir.join("stderr")).expect("what the proxy said");
        let _ = fs::remove_dir_all(&self.dir);
        (status, said)
    }

    /// Unless the test has written its own.
    fn write_routes(&self) {
        if !self.dir.join("routes.json").exists() {
            let mut routes = json!({"frontends": self.frontends});
            if !(self.certificates.is_empty() && self.options.is_empty()) {
                (routes["certificates"], routes["options"]) = (json!(self.certificates), json!(self.options));
            }
            write_whole(&self.dir.join("routes.json"), &format!("{routes:#}"));
        }
    }

    fn spawn(&mut self) -> (SocketAddr, Child) {
        let address = self.address.unwrap_or_else(unused_address);
        self.write_config(address);
        self.write_routes();
        (address, self.launch.spawn(&self.dir, self.stderr.take()))
    }
}

/// The list of a frontend as it stands in the routes file.
pub(crate) fn frontend(host: &str, urls: impl IntoIterator<Item = String>) -> Value {
    std::iter::once(format!("site of {host}")).chain(urls).collect()
}

/// A running proxy.
pub(crate) struct Proxy {
    address: SocketAddr,
    secure_address: Option<SocketAddr>,
    certificates: Map<String, Value>,
    dir: PathBuf,
    child: Child,
    /// Those that have taken its place, the last one at the end.
    successors: Vec<Pid>,
    launch: Launch,
}

impl Proxy {
    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens for encrypted connections.
    #[track_caller]
    pub(crate) fn secure_address(&self) -> SocketAddr {
        self.secure_address.expect("a proxy that was set up with https")
    }

    /// Replaces the certificates in one step, and leaves the routes as they are.
    pub(crate) fn write_certificates(&mut self, certificates: &[(&str, &Pair)]) {
        self.certificates =
            certificates.iter().map(|(pattern, pair)| ((*pattern).to_owned(), pair.as_json())).collect();
        let text = self.read("routes.json");
        let mut routes: Value = serde_json::from_str(&text).expect("routes of JSON");
        routes["certificates"] = Value::Object(self.certificates.clone());
        self.write_routes_text(&format!("{routes:#}"));
    }

    /// A new connection to it.
    #[track_caller]
    pub(crate) fn client(&self) -> Client {
        Client::over(Box::new(client::connect(self.address, None)))
    }

    /// A new connection to it from this address of the loopback network.
    #[track_caller]
    pub(crate) fn client_from(&self, source: IpAddr) -> Client {
        Client::over(Box::new(client::connect(self.address, Some(source))))
    }

    /// Whether it takes new connections.
    pub(crate) fn accepts(&self) -> bool {
        TcpStream::connect(self.address).is_ok()
    }

    /// Replaces the routes in one step, as an editor or a deployment tool does.
    pub(crate) fn write_routes(&self, frontends: &Value) {
        self.write_routes_text(&format!("{:#}", json!({"frontends": frontends})));
    }

    /// Replaces the text of the routes file in one step.
    pub(crate) fn write_routes_text(&self, text: &str) {
        write_whole(&self.dir.join("routes.json"), text);
    }

    /// Replaces one of its files in one step.
    pub(crate) fn replace(&self, name: &str, content: &str) {
        write_whole(&self.dir.join(name), content);
    }

    /// A path in the directory of its files.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// What it has written to standard error.
    pub(crate) fn stderr(&self) -> String {
        self.read("stderr")
    }

    /// The text of one of its files; empty if there is none.
    pub(crate) fn read(&self, name: &str) -> String {
        fs::read(self.dir.join(name)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The lines of a log, once there are this many.
    #[track_caller]
    pub(crate) fn log_lines(&self, name: &str, count: usize) -> Vec<String> {
        let whole_lines = || self.read(name).matches('\n').count();
        until(&format!("{count} lines in {name}"), || whole_lines() >= count);
        self.read(name).lines().map(str::to_owned).collect()
    }

    /// Starts it again as it was, once it has ended.
    #[allow(dead_code, reason = "the tests with a real Redis use it")]
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        self.child = self.launch.spawn(&self.dir, None);
        self.until_accepting();
    }

    #[track_caller]
    fn until_accepting(&mut self) {
        until("the proxy accepts connections", || {
            if let Some(status) = self.child.try_wait().expect("asking for the proxy's state") {
                panic!("the proxy ended with {status} at its start");
            }
            let addresses = [Some(self.address), self.secure_address];
            addresses.into_iter().flatten().all(|address| TcpStream::connect(address).is_ok())
        });
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("sending the proxy a signal");
    }

    /// Holds the proxy still while `inner` runs.
    #[track_caller]
    pub(crate) fn while_stopped(&self, inner: impl FnOnce()) {
        self.signal(Signal::SIGSTOP);
        // The signal takes a moment to reach a thread that runs.
        until("all threads of the proxy stand still", || {
            let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).expect("the proxy's threads");
            tasks.flatten().all(|task| {
                let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
                stat.rsplit_once(") ").is_none_or(|(_, fields)| fields.starts_with('T'))
            })
        });
        inner();
        self.signal(Signal::SIGCONT);
    }

    /// How it ended; a test fails that waits too long for it.
    #[track_caller]
    pub(crate) fn until_exit(&mut self) -> ExitStatus {
        let mut status = None;
        until("the proxy ends", || {
            status = self.child.try_wait().expect("asking for the proxy's state");
            status.is_some()
        });
        status.expect("just seen")
    }

    /// The numbers of the files and connections it has open.
    pub(crate) fn descriptors(&self) -> BTreeSet<usize> {
        let entries = fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("the proxy runs");
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
    }

    /// Its process.
    pub(crate) fn pid(&self) -> Pid {
        let first = || Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"));
        self.successors.last().copied().unwrap_or_else(first)
    }

    /// Follows the proxy to the process that has taken the place of the one that was started; that process stays to be
    /// waited for by [`Proxy::until_exit`].
    pub(crate) fn follow(&mut self, successor: u32) {
        self.successors.push(Pid::from_raw(i32::try_from(successor).expect("a process id")));
    }

    /// Whether the process that was started has ended.
    pub(crate) fn first_has_ended(&mut self) -> bool {
        self.child.try_wait().expect("asking for the proxy's state").is_some()
    }

    fn end(&mut self) {
        for successor in self.successors.drain(..) {
            // It may have ended, which is what is wanted.
            let _ = kill(successor, Signal::SIGKILL);
        }
        let ended = |child: &mut Child| matches!(child.try_wait(), Ok(Some(_)));
        if ended(&mut self.child) {
            return;
        }
        if !thread::panicking() {
            self.signal(Signal::SIGTERM);
            if holds_within(FAREWELL, || ended(&mut self.child)) {
                return;
            }
        }
        // It may have ended in between, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the proxy at {} with its files in {}", self.address, self.dir.display())
    }
}

impl Drop for Proxy {
    /// Ends the process. A test that fails leaves the directory and prints it; a panic in the proxy fails the test.
    fn drop(&mut self) {
        self.end();
        if thread::panicking() {
            eprintln!("--- {self} ({PATIENCE:?} is how long a test waits)");
            for name in ["config.json", "routes.json", "stdout", "stderr"] {
                eprintln!("--- {name}:\n{}", self.read(name));
            }
            return;
        }
        let stderr = self.stderr();
        assert!(
            !stderr.contains("panicked at"),
            "the proxy panicked (its files are in {}):\n{stderr}",
            self.dir.display()
        );
        // What cannot be removed lies in the system's directory for such things.
        let _ = fs::remove_dir_all(&self.dir);
    }
}
