//! How the program is started, again and again.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What the program is started with, beside the files in its directory.
#[derive(Default)]
pub(crate) struct Launch {
    /// The program, if it is not the one that was built.
    pub(crate) program: Option<PathBuf>,
    /// The section `admin` of the configuration: without one, every proxy would try the same port.
    pub(crate) admin: serde_json::Value,
    /// How many workers there are; none to leave it to the configuration.
    pub(crate) workers: usize,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) pinned: bool,
    /// What a shell does before it becomes the program.
    pub(crate) prelude: String,
    /// A listening socket that is handed over as a service manager does it.
    pub(crate) socket: Option<TcpListener>,
}

impl Launch {
    /// Starts the program with its files in this directory.
    pub(crate) fn spawn(&self, dir: &Path, stderr: Option<Stdio>) -> Child {
        let output = |name| Stdio::from(File::create(dir.join(name)).expect("a file for what the proxy says"));
        let mut prelude = self.prelude.clone();
        if self.socket.is_some() {
            prelude.push_str("exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; ");
        }
        let socket = self.socket.as_ref().map(|socket| socket.try_clone().expect("another handle of the socket"));
        let program = self.program.as_deref().unwrap_or(Path::new(env!("CARGO_BIN_EXE_sluice")));
        let mut command = Command::new("sh");
        command.args(["-c", &(prelude + "exec \"$@\""), "sh"]).arg(program);
        if self.workers > 0 {
            command.args(["--workers", &self.workers.to_string()]);
        }
        if !self.pinned {
            command.arg("--no-pin");
        }
        command
            .arg("--config")
            .arg(dir.join("config.json"))
            .env_remove("RUST_LOG")
            .env_remove("SETTINGS_FLAVOR")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(socket.map_or_else(Stdio::null, |socket| OwnedFd::from(socket).into()))
            .stdout(output("stdout"))
            .stderr(stderr.unwrap_or_else(|| output("stderr")))
            .spawn()
            .expect("starting the proxy")
    }
}

/// Has the program check the configuration of this directory: whether it is good, and all that was said.
pub(crate) fn dry(dir: &Path) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    let output = command.arg("--dry").arg("--config").arg(dir.join("config.json")).output();
    let output = output.expect("starting the proxy");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// Puts a file in the place of another in one step.
pub(super) fn write_whole(path: &Path, text: &str) {
    let draft = path.with_extension("draft");
    fs::write(&draft, text).unwrap_or_else(|error| panic!("writing {}: {error}", draft.display()));
    fs::rename(&draft, path).unwrap_or_else(|error| panic!("renaming to {}: {error}", path.display()));
}
