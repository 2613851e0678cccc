//! `sluice top` on a terminal.

use super::Admin;
use crate::support::backend::Backend;
use crate::support::proxy::Setup;
use crate::support::{HOST, PATIENCE, canned, holds_within, until, unused_address};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::Signal;
use serde_json::json;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{self, Receiver};

/// What a terminal shows: a grid of characters, of which only the position of the cursor and the erasure of all are
/// understood.
struct Screen {
    rows: Vec<Vec<char>>,
    at: (usize, usize),
    /// Bytes of a sequence or a character that is not whole.
    rest: Vec<u8>,
}

impl Screen {
    fn new(width: usize, height: usize) -> Self {
        Self { rows: vec![vec![' '; width]; height], at: (0, 0), rest: Vec::new() }
    }

    fn take_in(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        let all = std::mem::take(&mut self.rest);
        let whole = match std::str::from_utf8(&all) {
            Ok(text) => text.len(),
            Err(error) => error.valid_up_to(),
        };
        let mut text = std::str::from_utf8(&all[..whole]).expect("it was checked");
        while let Some(first) = text.chars().next() {
            if !text.starts_with('\u{1b}') {
                self.put(first);
                text = &text[first.len_utf8()..];
                continue;
            }
            let Some(end) = text.get(2..).and_then(|rest| rest.find(|c: char| c.is_ascii_alphabetic())) else { break };
            let (sequence, behind) = text.split_at(end + 3);
            self.follow(sequence);
            text = behind;
        }
        self.rest = [text.as_bytes(), &all[whole..]].concat();
    }

    fn put(&mut self, character: char) {
        let (row, column) = self.at;
        if let Some(cell) = self.rows.get_mut(row).and_then(|row| row.get_mut(column)) {
            *cell = character;
        }
        self.at.1 += 1;
    }

    fn follow(&mut self, sequence: &str) {
        let Some(parameters) = sequence.strip_prefix("\u{1b}[") else { return };
        let (parameters, verb) = parameters.split_at(parameters.len() - 1);
        let number = |text: &str| text.parse::<usize>().unwrap_or(1).max(1) - 1;
        match verb {
            "H" => {
                let (row, column) = parameters.split_once(';').unwrap_or((parameters, ""));
                self.at = (number(row), number(column));
            }
            "J" => self.rows.iter_mut().for_each(|row| row.fill(' ')),
            _ => {}
        }
    }

    fn text(&self) -> String {
        let lines = self.rows.iter().map(|row| row.iter().collect::<String>().trim_end().to_owned());
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// `sluice top` on a terminal.
struct Top {
    child: Child,
    keyboard: File,
    /// Keeps the terminal while the program does not have it yet.
    terminal: File,
    output: Receiver<Vec<u8>>,
    screen: Screen,
}

impl Top {
    fn start(arguments: &[&str], (width, height): (u16, u16)) -> Self {
        let size = Winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).expect("a terminal");
        let (keyboard, terminal) = (File::from(pty.master), File::from(pty.slave));
        let side = || terminal.try_clone().expect("another handle");
        // It has the terminal for itself, and so hears of its size.
        let child = Command::new("setsid")
            .args(["--ctty", env!("CARGO_BIN_EXE_sluice"), "top"])
            .args(arguments)
            .env("TERM", "xterm-256color")
            .stdin(side())
            .stdout(side())
            .stderr(side())
            .spawn()
            .expect("setsid (of util-linux)");
        let mut reader = keyboard.try_clone().expect("another handle");
        let (sender, output) = mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, keyboard, terminal, output, screen: Screen::new(width.into(), height.into()) }
    }

    /// Waits until the terminal shows this.
    #[track_caller]
    fn until(&mut self, expected: &str) {
        let shown = holds_within(PATIENCE * 2, || {
            self.output.try_iter().for_each(|bytes| self.screen.take_in(&bytes));
            self.screen.text().contains(expected)
        });
        assert!(shown, "no {expected:?} on\n{}", self.screen.text());
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("a terminal");
    }

    fn resize(&mut self, width: usize, height: usize) {
        let name = nix::unistd::ttyname(self.terminal.as_fd()).expect("a name");
        self.screen = Screen::new(width, height);
        let size = ["cols".to_owned(), width.to_string(), "rows".to_owned(), height.to_string()];
        let status = Command::new("stty").arg("-F").arg(name).args(size).status().expect("stty");
        assert!(status.success());
    }

    fn until_exit(&mut self) -> ExitStatus {
        let mut status = None;
        until("the program has ended", || {
            status = self.child.try_wait().expect("its status");
            status.is_some()
        });
        status.expect("it has ended")
    }

    /// Whether the terminal takes lines, as a shell needs it.
    fn takes_lines(&self) -> bool {
        let name = nix::unistd::ttyname(self.terminal.as_fd()).expect("a name");
        let output = Command::new("stty").arg("-F").arg(name).arg("-a").output().expect("stty");
        String::from_utf8_lossy(&output.stdout).split_whitespace().any(|word| word == "icanon")
    }
}

impl Drop for Top {
    fn drop(&mut self) {
        // It may have ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_node_is_watched_on_a_terminal() {
    let well = Backend::always(canned::ok("ok"));
    let dead = format!("http://{}", unused_address());
    let setup = Setup::for_backends([well.url(), dead.clone()]).route("other.test", [well.url()]);
    let admin = Admin::start_with(setup, json!({"token": "s3cret"}));
    let mut client = admin.proxy.client();
    client.get("other.test", "/").expect_ok("ok");
    until("the backend is broken", || {
        client.get(HOST, "/").expect_ok("ok");
        let tool = Command::new(env!("CARGO_BIN_EXE_sluice"))
            .args(["why", HOST, "--config"])
            .arg(admin.proxy.path("config.json"))
            .output()
            .expect("the program");
        String::from_utf8_lossy(&tool.stdout).contains(": dead:")
    });
    let config = admin.proxy.path("config.json").display().to_string();
    let mut top = Top::start(&["--config", &config], (110, 30));
    top.until("✓ ready");
    top.until("2 hosts, by requests");
    top.until("▲ 1 / 2");
    // The hosts that match alone, the backends of the first, and why one of them does not serve.
    top.press("/example\r");
    top.until("1 hosts with \"example\"");
    top.press("\r");
    top.until(&format!("Backends of {HOST}"));
    top.until("✕ dead");
    top.until("it cannot be reached");
    top.resize(40, 10);
    top.until("needs 64 and 14");
    top.resize(100, 24);
    top.until(&format!("Backends of {HOST}"));
    top.press("\u{1b}");
    top.until("1 hosts with");
    assert!(!top.takes_lines());
    // A node that is away is told of, and shown again when it is back.
    let mut admin = admin;
    admin.proxy.signal(Signal::SIGTERM);
    assert!(admin.proxy.until_exit().success());
    top.until("✕ no news: ");
    admin.proxy.restart();
    top.until(&format!("process {}", admin.proxy.pid()));
    top.until("✓ ready");
    top.press("q");
    assert!(top.until_exit().success());
    assert!(top.takes_lines(), "the terminal is as it was");
}

#[test]
fn without_a_terminal_or_a_node_it_says_so() {
    let output = Command::new(env!("CARGO_BIN_EXE_sluice")).arg("top").output().expect("the program");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("sluice top needs a terminal"), "{said}");
    let nowhere = unused_address().to_string();
    let mut top = Top::start(&["--admin", &nowhere], (100, 20));
    top.until(&format!("asking the admin service at {nowhere}: Connection refused"));
    assert_eq!(top.until_exit().code(), Some(1));
}
