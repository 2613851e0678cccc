//! The Debian package: what is in it, and that it can be installed, started, upgraded and removed. All of it happens in
//! folders of the test's own; what a running systemd does with the unit is not tested here.

use std::fs;
use std::io::{self, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

/// A system with nothing in it but dpkg's own files.
struct System(PathBuf);

impl System {
    fn new() -> Self {
        let root = std::env::temp_dir().join(format!("sluice-package-{}", std::process::id()));
        for folder in ["info", "updates", "triggers"] {
            fs::create_dir_all(root.join("var/lib/dpkg").join(folder)).expect("a folder");
        }
        for file in ["status", "available"] {
            fs::write(root.join("var/lib/dpkg").join(file), "").expect("a file");
        }
        Self(root)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    /// Makes a package of this version.
    fn build(&self, version: &str) -> PathBuf {
        let mut command = Command::new("config/debian/build");
        command.arg(env!("CARGO_BIN_EXE_sluice")).arg(&self.0).arg(version);
        // A program for tests is large, and the package is not kept.
        let output = command.env("DPKG_DEB_COMPRESSOR_TYPE", "none").current_dir(env!("CARGO_MANIFEST_DIR")).output();
        PathBuf::from(said(&output.expect("the script")).trim_end())
    }

    fn dpkg(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("dpkg");
        command.arg(format!("--root={}", self.0.display())).arg("--log=/dev/null");
        command.args(["--force-not-root", "--force-script-chrootless", "--force-depends", "--force-unsafe-io"]);
        said(&command.arg("--force-confold").args(arguments).output().expect("dpkg"))
    }

    fn has(&self, path: &str) -> bool {
        self.path(path).exists()
    }
}

impl Drop for System {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[track_caller]
fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&[&*output.stdout, &*output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{text}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn plain(path: &Path) -> &str {
    path.to_str().expect("plain text")
}

/// A field of a package.
fn field(package: &Path, name: &str) -> String {
    let output = Command::new("dpkg-deb").args(["--field", plain(package), name]).output().expect("dpkg-deb");
    said(&output).trim_end().to_owned()
}

/// The newest version of glibc whose name is in the program. The names of versions are plain text there.
fn newest_glibc() -> String {
    let program = fs::read(env!("CARGO_BIN_EXE_sluice")).expect("the program");
    let text = String::from_utf8_lossy(&program);
    let mut newest = (0, 0);
    for name in text.split('\0') {
        let version = name.strip_prefix("GLIBC_").map(|name| if name == "ABI_DT_RELR" { "2.36" } else { name });
        let Some((major, rest)) = version.and_then(|version| version.split_once('.')) else { continue };
        let minor = rest.split('.').next().unwrap_or_default();
        if let (Ok(major), Ok(minor)) = (major.parse::<u32>(), minor.parse::<u32>()) {
            newest = newest.max((major, minor));
        }
    }
    assert!(newest >= (2, 17), "{newest:?}: Rust itself asks for that");
    format!("{}.{}", newest.0, newest.1)
}

#[test]
fn the_package_is_installed_started_upgraded_and_removed() {
    let system = System::new();
    let (first, second) = (system.build("0.1.0"), system.build("0.2.0"));
    assert_eq!(field(&first, "Depends"), format!("libc6 (>= {}), libgcc-s1", newest_glibc()));
    system.dpkg(&["--install", plain(&first)]);
    for path in ["usr/bin/sluice", "usr/lib/systemd/system/sluice.service", "usr/share/doc/sluice/docs/admin.md"] {
        assert!(system.has(path), "{path}");
    }
    for path in [
        "usr/share/man/man1/sluice.1.gz",
        "usr/share/man/man1/sluice-status.1.gz",
        "usr/share/bash-completion/completions/sluice",
        "usr/share/zsh/vendor-completions/_sluice",
        "usr/share/doc/sluice/samples/haproxy/haproxy.cfg",
    ] {
        assert!(system.has(path), "{path}");
    }
    let completions = fs::read_to_string(system.path("usr/share/bash-completion/completions/sluice"));
    assert!(completions.expect("completions").contains("--help-settings"));
    let unit = fs::read_to_string(system.path("usr/lib/systemd/system/sluice.service")).expect("the unit");
    assert!(unit.contains("\nExecStart=/usr/bin/sluice --config /etc/sluice/config.json\n"), "{unit}");
    assert!(unit.starts_with("\n[Unit]") || unit.starts_with("[Unit]"), "{unit}");

    // An operator changes the configuration, and the program serves it.
    let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    let config = system.path("etc/sluice/config.json");
    let text = fs::read_to_string(&config).expect("the configuration");
    let text =
        text.replace("8080", &free.to_string()).replacen('{', "{\"admin\": false, \"user\": 0, \"group\": 0, ", 1);
    fs::write(&config, &text).expect("the configuration");
    let mut started = Command::new(system.path("usr/bin/sluice"));
    let mut started =
        started.arg("--config").arg(&config).arg("--no-pin").stderr(Stdio::null()).spawn().expect("the program");
    let is_there = || std::net::TcpStream::connect(("127.0.0.1", free)).is_ok();
    let serves = (0..1000).any(|_| {
        thread::park_timeout(Duration::from_millis(10));
        is_there()
    });
    let _ = started.kill();
    let _ = started.wait();
    assert!(serves, "nobody listens on port {free}");

    system.dpkg(&["--install", plain(&second)]);
    let status = fs::read_to_string(system.path("var/lib/dpkg/status")).expect("the status");
    assert!(status.contains("\nVersion: 0.2.0\n"), "{status}");
    assert_eq!(fs::read_to_string(&config).expect("the configuration"), text, "it stays as the operator left it");
    system.dpkg(&["--remove", "sluice"]);
    assert!(!system.has("usr/bin/sluice") && config.exists());
    system.dpkg(&["--purge", "sluice"]);
    assert!(!config.exists());
}

/// What systemd says of the unit is what the unit and its page say.
#[test]
fn the_unit_is_hardened_as_it_is_stated() {
    let mut command = Command::new("systemd-analyze");
    command.args(["security", "--offline=true", "--no-pager", "config/sluice.service"]);
    let Ok(output) = command.current_dir(env!("CARGO_MANIFEST_DIR")).output() else {
        // Past the harness, which hides what a test prints that passes.
        let line = "skipped: systemd-analyze is not installed (Debian: apt-get install systemd)\n";
        return io::stderr().write_all(line.as_bytes()).expect("standard error");
    };
    let text = said(&output);
    let (_, rest) = text.split_once("exposure level for sluice.service: ").expect("a score");
    let score = rest.split_whitespace().next().expect("a number");
    let unit = fs::read_to_string("config/sluice.service").expect("the unit");
    let page = fs::read_to_string("docs/operations.md").expect("the page");
    assert!(unit.contains(&format!("systemd-analyze security: {score}.")), "{score}");
    assert!(page.contains(&format!("`systemd-analyze security` rates the unit {score} ")), "{score}");
}
