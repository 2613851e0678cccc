//! The demonstration keeps its promises: every command that it prints does what is said beside it.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sluice::base::clock::Clock;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use tungstenite::Message;
use tungstenite::handshake::derive_accept_key;

const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn what_it_prints_works_and_nothing_stays_behind() {
    let mut demo = Demo::start();
    let [plain, host, wildcard, debug, unknown, ping, post, web_socket] = demo.curls();
    let of_either = ["Hello from backend one.", "Hello from backend two."];
    let response = demo.response(&plain);
    assert!(of_either.iter().any(|greeting| response.contains(greeting)), "{response}");
    assert!(response.contains("    X-Forwarded-For: 127.0.0.1\n"), "the backend shows what it was sent: {response}");
    let response = demo.response(&host);
    assert!(response.contains(of_either[0]) && response.contains("    Host: www.example.com\n"), "{response}");
    assert!(demo.response(&wildcard).contains(of_either[1]));
    let response = demo.response(&debug);
    for line in ["X-Debug-Version: ", "X-Debug-Backend-Url: http://127.0.0.1:", "X-Debug-Frontend-Key: 127.0.0.1\r\n"] {
        assert!(response.contains(line), "no {line} in {response}");
    }
    let response = demo.response(&unknown);
    assert!(
        response.starts_with("HTTP/1.1 400 ") && response.contains("X-Debug-Error: unknown_host\r\n"),
        "{response}"
    );
    assert!(demo.response(&ping).ends_with("\r\n\r\nok"));
    assert!(demo.response(&post).ends_with("a body of 11 bytes: hello there\n"));
    demo.expect_greeting(&web_socket);
    demo.expect_echo();
    demo.edit_routes();
    demo.until("the edit is live", || demo.response(&unknown).contains(of_either[0]));
    assert!(demo.response(&host).contains(of_either[1]), "the pattern takes the place of the host that has gone");
    assert_eq!(demo.stop().code(), Some(0));
    let left: Vec<_> = fs::read_dir(demo.folder.join("tmp")).expect("the folder").flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_port_that_is_taken_is_told_with_what_to_do() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = taken.local_addr().expect("an address").port();
    let output = command(port).output().expect("the program");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), output.stdout), (Some(1), Vec::new()), "{error}");
    assert!(error.contains(&format!("listening on 127.0.0.1:{port}: Address already in use")), "{error}");
    assert!(error.contains("sluice demo --port "), "{error}");
}

fn command(port: u16) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.args(["demo", "--port", &port.to_string()]).stdin(Stdio::null()).env_remove("RUST_LOG");
    command
}

/// A port that nobody listens on, and that lies below those which the system gives to connections.
fn unused_port() -> u16 {
    let first = 20_000 + u16::try_from(std::process::id() % 10_000).expect("less than 10,000");
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    (first..first + 1000).find(is_free).expect("a free port")
}

/// A demonstration that runs, in a folder of its own.
struct Demo {
    child: Child,
    port: u16,
    folder: PathBuf,
}

/// A request as one of the printed commands makes it.
struct Curl {
    fields: Vec<String>,
    body: Option<String>,
}

impl Demo {
    /// Starts it and waits until it serves.
    fn start() -> Self {
        let folder = std::env::temp_dir().join(format!("sluice-demo-test-{}", std::process::id()));
        fs::create_dir_all(folder.join("tmp")).expect("a folder");
        let port = unused_port();
        let output = |name| File::create(folder.join(name)).expect("a file for its output");
        let mut command = command(port);
        command.env("TMPDIR", folder.join("tmp")).stdout(output("stdout")).stderr(output("stderr"));
        let demo = Self { child: command.spawn().expect("starting it"), port, folder };
        demo.until("it serves", || {
            demo.guide().contains("Ctrl-C") && demo.response(&Curl::parse("curl /")).contains("200")
        });
        demo
    }

    fn until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let clock = Clock::new();
        let deadline = clock.now() + PATIENCE;
        while !condition() {
            let error = || fs::read_to_string(self.folder.join("stderr")).unwrap_or_default();
            assert!(clock.now() < deadline, "waited in vain until {what}; it says:\n{}{}", self.guide(), error());
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    fn guide(&self) -> String {
        fs::read_to_string(self.folder.join("stdout")).unwrap_or_default()
    }

    /// The printed commands that begin so.
    fn commands(&self, start: &str) -> Vec<String> {
        let guide = self.guide();
        guide
            .lines()
            .filter_map(|line| line.strip_prefix("    "))
            .filter(|l| l.starts_with(start))
            .map(Into::into)
            .collect()
    }

    fn curls<const N: usize>(&self) -> [Curl; N] {
        let curls: Vec<_> = self.commands("curl ").iter().map(|line| Curl::parse(line)).collect();
        let count = curls.len();
        curls.try_into().unwrap_or_else(|_| panic!("{count} commands of curl, not {N}"))
    }

    /// Sends the request; what comes of it until the connection ends.
    fn response(&self, curl: &Curl) -> String {
        let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)) else { return String::new() };
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let (method, body) = curl.body.as_ref().map_or(("GET", ""), |body| ("POST", body));
        let mut request = format!("{method} / HTTP/1.1\r\n{}Connection: close\r\n", curl.head(self.port));
        if !body.is_empty() {
            request += &format!("Content-Length: {}\r\n", body.len());
        }
        let mut response = String::new();
        stream.write_all(format!("{request}\r\n{body}").as_bytes()).expect("sending a request");
        stream.read_to_string(&mut response).expect("reading an answer");
        response
    }

    /// What curl shows of a WebSocket.
    fn expect_greeting(&self, curl: &Curl) {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.write_all(format!("GET / HTTP/1.1\r\n{}\r\n", curl.head(self.port)).as_bytes()).expect("sending");
        let mut seen = Vec::new();
        while !seen.ends_with(b"echo your messages.") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap_or_else(|error| panic!("{error} after {}", seen.escape_ascii()));
            seen.push(byte[0]);
        }
        let seen = String::from_utf8_lossy(&seen);
        let key = curl.fields.iter().find_map(|field| field.strip_prefix("Sec-WebSocket-Key: ")).expect("a key");
        let accept = format!("Sec-WebSocket-Accept: {}\r\n", derive_accept_key(key.as_bytes()));
        assert!(seen.starts_with("HTTP/1.1 101 ") && seen.contains(&accept), "{seen}");
    }

    /// What a real client has of it.
    fn expect_echo(&self) {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let (mut socket, _) = tungstenite::client("ws://localhost/", stream).expect("the handshake");
        assert!(socket.read().expect("the greeting").to_string().starts_with("Hello from backend "));
        for message in [Message::text("grüße"), Message::binary(vec![7; 100_000])] {
            socket.send(message.clone()).expect("sending a message");
            assert_eq!(socket.read().expect("the echo"), message);
        }
    }

    fn edit_routes(&self) {
        let commands = self.commands("sed ");
        let status = Command::new("sh").args(["-c", &commands[0]]).status().expect("a shell");
        assert!(status.success(), "{}", commands[0]);
    }

    fn stop(&mut self) -> ExitStatus {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        kill(Pid::from_raw(pid), Signal::SIGTERM).expect("a signal");
        self.child.wait().expect("its end")
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // It may have ended, which is what is wanted; and what cannot be removed lies where the system clears up.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Curl {
    fn parse(line: &str) -> Self {
        let words = words(line);
        let after = |option: &'static str| words.windows(2).filter(move |w| w[0] == option).map(|w| w[1].clone());
        Self { fields: after("-H").collect(), body: after("-d").next() }
    }

    /// The header lines that curl would send.
    fn head(&self, port: u16) -> String {
        let host = format!("Host: 127.0.0.1:{port}");
        let has_host = self.fields.iter().any(|field| field.starts_with("Host: "));
        let fields = (!has_host).then_some(&host).into_iter().chain(&self.fields);
        fields.map(|field| format!("{field}\r\n")).collect()
    }
}

/// The words of a command; single quotes hold one together.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut is_quoted = false;
    for letter in line.chars() {
        match letter {
            '\'' => is_quoted = !is_quoted,
            ' ' if !is_quoted => words.push(String::new()),
            letter => words.last_mut().expect("one at least").push(letter),
        }
    }
    words
}
