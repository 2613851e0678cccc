//! The transfer of known routes and certificates to the successor process.

use super::State;
use super::snapshot::{self, Snapshot, SnapshotEntry};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, Write};
use std::time::Duration;

/// Writes an export, in any thread.
pub(super) type Export = Box<dyn FnOnce(&mut dyn Write) -> io::Result<()> + Send>;

/// Data written by the predecessor with [`super::Directory::hand_over`].
#[derive(Debug, Default)]
pub struct Inherited {
    /// The routes, with dead marks and the histories of the data.
    pub routes: Option<File>,
    /// The certificates with their keys.
    pub certificates: Option<File>,
    /// The on-demand clusters from files of earlier processes.
    pub state: State,
}

/// Makes an export of a snapshot, rendered when it is written.
pub(super) fn export<T: SnapshotEntry>(render: impl FnOnce() -> Snapshot<T> + Send + 'static) -> Export {
    Box::new(move |out| {
        let mut out = BufWriter::with_capacity(1 << 20, out);
        snapshot::encode(&render(), &mut out)?;
        out.flush()
    })
}

/// Writes the export of a directory thread. A thread without one sends nothing.
pub(super) fn write(exports: &Receiver<Export>, out: &mut impl Write, patience: Duration) -> Result<(), String> {
    match exports.recv_timeout(patience) {
        Ok(export) => export(out).map_err(|error| error.to_string()),
        Err(RecvTimeoutError::Disconnected) => Ok(()),
        Err(RecvTimeoutError::Timeout) => Err(format!("the directory has not replied within {patience:?}")),
    }
}

/// Reads handed-over data, and truncates the file to free its memory. `None` if there is none.
pub(super) fn read<T: SnapshotEntry>(file: Option<File>, kind: &str) -> Option<Snapshot<T>> {
    let mut file = file?;
    let mut bytes = Vec::new();
    let result = file.rewind().and_then(|()| file.read_to_end(&mut bytes)).and_then(|_| file.set_len(0));
    if let Err(error) = result {
        log::error!("upgrade: reading the {kind} of the predecessor: {error}; they are not used");
        return None;
    }
    if bytes.is_empty() {
        return None;
    }
    match snapshot::parse::<T>(&bytes) {
        Ok(snapshot) => {
            log::info!("upgrade: {} {kind} were handed over", snapshot.items.len());
            Some(snapshot)
        }
        Err(fault) => {
            log::error!("upgrade: the {kind} of the predecessor: {fault}; they are not used");
            None
        }
    }
}
