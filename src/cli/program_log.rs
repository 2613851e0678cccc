//! The program's own log: lines to standard error, written by its own thread. The reader of standard error may stall,
//! and workers must not wait for it.

use super::log_lines;
use crate::base::printable::printable;
use crate::config::LogFormat;
use crossbeam_channel::{Receiver, Sender, bounded};
use env_logger::{Target, WriteStyle};
use log::{Level, LevelFilter};
use std::env;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// The greatest number of lines that wait. Further ones are dropped and counted.
const QUEUE_LINES: usize = 4096;

/// The limit of the program's final wait for a stalled reader.
const STOP_LIMIT: Duration = Duration::from_secs(1);

/// Starts the log at this level, unless `RUST_LOG` sets another one, and in this form. The result has to be kept until
/// the program ends.
pub(super) fn start(level: &str, format: LogFormat) -> io::Result<ProgramLog> {
    let (queue, log) = start_writer(io::stderr(), format)?;
    // The logger writes to a queue, and cannot detect a terminal itself.
    let is_colourful = format == LogFormat::Text && io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none();
    let wish = env::var("RUST_LOG").unwrap_or_default();
    let wish = wish.trim();
    let is_good = wish.is_empty() || is_filter(wish);
    let filter = if wish.is_empty() || !is_good { level } else { wish };
    env_logger::Builder::new()
        .write_style(if is_colourful { WriteStyle::Always } else { WriteStyle::Never })
        .parse_filters(filter)
        .format(move |out, record| log_lines::write(format, out, record))
        .target(Target::Pipe(Box::new(queue)))
        .init();
    if !is_good {
        log::warn!(
            "RUST_LOG is {:?}, which is no level (error, warn, info, debug, trace, off) and would silence this log; it is {level}",
            printable(wish)
        );
    }
    Ok(log)
}

/// Whether a filter is valid and shows lines of this program, unless it says `off`: a misspelt level is taken for the
/// name of a module, and all other lines are then suppressed.
fn is_filter(text: &str) -> bool {
    let directives = text.split('/').next().unwrap_or_default().split(',').map(str::trim);
    let is_level = |word: &str| word.is_empty() || word.parse::<LevelFilter>().is_ok();
    let is_readable = |directive: &str| directive.split_once('=').is_none_or(|(_, level)| is_level(level.trim()));
    let shows = |directive: &str| {
        let name = directive.split('=').next().unwrap_or_default();
        is_level(directive) || name == "sluice" || name.starts_with("sluice::")
    };
    directives.clone().all(is_readable) && directives.clone().any(shows)
}

/// The handle of the log: dropping it writes the pending lines.
#[derive(Debug)]
pub(super) struct ProgramLog {
    messages: Sender<LogMessage>,
}

#[derive(Debug)]
enum LogMessage {
    Line(Box<[u8]>),
    /// The sender is dropped after all earlier lines were written.
    End(Sender<()>),
}

fn start_writer(out: impl Write + Send + 'static, format: LogFormat) -> io::Result<(Queue, ProgramLog)> {
    let (messages, inbox) = bounded(QUEUE_LINES);
    let lost_lines = Arc::<AtomicU64>::default();
    let queue = Queue { messages: messages.clone(), lost_lines: Arc::clone(&lost_lines) };
    thread::Builder::new().name("log".into()).spawn(move || write_all(&inbox, &lost_lines, out, format))?;
    Ok((queue, ProgramLog { messages }))
}

fn write_all(inbox: &Receiver<LogMessage>, lost_lines: &AtomicU64, mut out: impl Write, format: LogFormat) {
    for message in inbox {
        // A failure of the log cannot be reported anywhere.
        match message {
            LogMessage::Line(line) => drop(out.write_all(&line)),
            LogMessage::End(done) => drop(done),
        }
        let lost = lost_lines.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let report = format!("{lost} lines of this log were lost, because it was not read in time");
            drop(out.write_all(log_lines::plain(format, Level::Warn, &report).as_bytes()));
        }
    }
}

impl Drop for ProgramLog {
    fn drop(&mut self) {
        let (done, is_done) = bounded(0);
        if self.messages.send_timeout(LogMessage::End(done), STOP_LIMIT).is_ok() {
            // Either result is the end: the sender was dropped, or the reader has stalled.
            let _ = is_done.recv_timeout(STOP_LIMIT);
        }
    }
}

/// The output of the logger: each write is a line.
struct Queue {
    messages: Sender<LogMessage>,
    lost_lines: Arc<AtomicU64>,
}

impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.messages.try_send(LogMessage::Line(line.into())).is_err() {
            self.lost_lines.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};

    #[test]
    fn a_filter_with_a_typing_error_is_found() {
        for good in ["info", "OFF", "warn,mio=off", "sluice=debug", "sluice::worker", "off", "error/pattern"] {
            assert!(is_filter(good), "{good}");
        }
        for bad in ["inof", "sluice=dbug", "warning", "mio=trace", "info,sluice=x", "1"] {
            assert!(!is_filter(bad), "{bad}");
        }
    }

    #[test]
    fn a_stalled_reader_loses_counted_lines_and_delays_no_writer() {
        let (reader, writer) = io::pipe().expect("a pipe");
        let (mut queue, log) = start_writer(writer, LogFormat::Text).expect("a thread");
        let line = [&[b'x'; 99][..], b"\n"].concat();
        let mut written = 0;
        while queue.lost_lines.load(Ordering::Relaxed) == 0 {
            queue.write_all(&line).expect("a line");
            written += 1;
        }
        assert!(written > QUEUE_LINES);
        let reading = thread::spawn(move || {
            let lines = BufReader::new(reader).lines().map(|line| line.expect("a line"));
            lines.partition::<Vec<_>, _>(|line| line.starts_with('x'))
        });
        drop(log);
        drop(queue);
        let (whole, reports) = reading.join().expect("the reader ends");
        assert!(whole.iter().all(|line| line.len() == 99));
        assert_eq!(whole.len(), written - 1);
        assert_eq!(reports, ["1 lines of this log were lost, because it was not read in time"]);
    }
}
