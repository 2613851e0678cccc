//! The demonstration: two built-in backends, the proxy in front of them, and a guide.

mod backend;

use crate::config::{self, Overrides};
use crate::net::listener::Listener;
use crate::supervisor;
use nix::unistd::mkdtemp;
use serde_json::json;
use std::env;
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// The default port of the proxy.
pub const DEFAULT_PORT: u16 = 8080;

/// The guide; `{base}` is the proxy's URL and `{routes}` the path of the routes file.
const GUIDE: &str = include_str!("guide.txt");

/// The routes; `{one}` and `{two}` are the ports of the backends.
const ROUTES: &str = include_str!("routes.json");

/// Why the demonstration failed.
#[derive(Debug)]
pub enum Error {
    /// The proxy cannot listen there.
    Listen(SocketAddr, io::Error),
    /// A backend could not be started.
    Backend(io::Error),
    /// The routes file could not be written.
    Routes(PathBuf, io::Error),
    /// The generated settings are invalid.
    Settings(config::Failure),
    /// The proxy could not be started, or ended too early.
    Serve(supervisor::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(address, error) => {
                let advice = match error.kind() {
                    io::ErrorKind::AddrInUse => "; another program listens there",
                    io::ErrorKind::PermissionDenied => "; ports below 1024 need root",
                    _ => "",
                };
                write!(f, "listening on {address}: {error}{advice}. Name a free port: sluice demo --port 8090")
            }
            Self::Backend(error) => write!(f, "starting a backend of the demonstration: {error}"),
            Self::Routes(path, error) => {
                write!(f, "writing the routes of the demonstration to {}: {error}", path.display())
            }
            Self::Settings(failure) => failure.fmt(f),
            Self::Serve(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

/// Serves on this port of 127.0.0.1 until a signal ends it.
pub fn run(port: u16) -> Result<(), Error> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    // The port is open before the guide is printed.
    Listener::probe(address).map_err(|error| Error::Listen(address, error))?;
    let ports = [backend::start("one"), backend::start("two")];
    let [one, two] = ports.map(|port| port.map_err(Error::Backend));
    let folder = Folder::make()?;
    let routes = folder.0.join("routes.json");
    let text = ROUTES.replace("{one}", &one?.to_string()).replace("{two}", &two?.to_string());
    fs::write(&routes, text).map_err(|error| Error::Routes(routes.clone(), error))?;
    let settings = settings(port, &folder.0)?;
    print_guide(address, &routes);
    supervisor::run(&settings, None, None).map_err(Error::Serve)
}

/// The settings for a configuration in the folder.
fn settings(port: u16, folder: &Path) -> Result<config::Settings, Error> {
    let text = json!({
        "http": {"bind": "127.0.0.1", "port": port},
        "driver": "file:routes.json",
        "admin": false,
        // A tunnel left open in another terminal must not delay Ctrl-C.
        "server": {"accessLog": "-", "drainTimeout": 1, "debugNetworks": "127.0.0.1"},
    });
    // Root does not switch to another account: there may be none, and the folder belongs to root.
    let overrides = Overrides { is_root: false, ..Overrides::default() };
    let loaded = config::from_text(&text.to_string(), &folder.join("config.json"), &overrides);
    loaded.map(|(settings, _)| settings).map_err(Error::Settings)
}

fn print_guide(address: SocketAddr, routes: &Path) {
    let base = format!("http://{address}");
    let text = GUIDE.replace("{base}", &base).replace("{routes}", &routes.display().to_string());
    // A closed standard output is not a failure.
    let _ = io::stdout().write_all(text.as_bytes());
}

/// A temporary folder of this process, removed when this is dropped.
struct Folder(PathBuf);

impl Folder {
    fn make() -> Result<Self, Error> {
        let template = env::temp_dir().join("sluice-demo-XXXXXX");
        mkdtemp(&template).map(Self).map_err(|error| Error::Routes(template, error.into()))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // The system cleans up this location by itself.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_are_valid_and_change_no_user() {
        let settings = settings(8080, Path::new("/tmp/x")).expect("good settings");
        assert_eq!(settings.listeners, [SocketAddr::from(([127, 0, 0, 1], 8080))]);
        assert_eq!((settings.user, settings.group), (None, None));
    }

    #[test]
    fn a_folder_goes_with_all_that_is_in_it() {
        let folder = Folder::make().expect("a folder");
        let path = folder.0.clone();
        fs::write(path.join("routes.json"), "{}").expect("a file");
        drop(folder);
        assert!(!path.exists());
    }
}
