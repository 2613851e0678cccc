//! The log's thread: writes the batches of the cores.

use super::batch::{Batch, BatchSender, Log};
use super::losses::{Losses, Reporter};
use super::output::{self, Output};
use super::sink::Sink;
use super::{Target, sink};
use crate::base::clock::Clock;
use crossbeam_channel::{Receiver, Sender, TrySendError, after, bounded, never, select};
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Length of the queue in batches, for each core: about 1 MiB of lines.
const QUEUE_BATCHES_PER_CORE: usize = 8;

/// Number of empty buffers that are kept, for each core. Buffers beyond that, from a stall of the disk, are freed.
const SPARES_PER_CORE: usize = 2;

/// The limit of [`Control::stop`] for an output that accepts no bytes.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Starts the log's thread with the file returned by [`open`](super::open). Returns the supervisor's part, and the
/// [`Log`] of which each core gets a clone.
pub fn start(target: &Target, file: Option<File>, cores: usize, clock: Clock) -> io::Result<(Control, Log)> {
    let Some(file) = file else {
        let control = Control { running: None, losses: Arc::default() };
        return Ok((control, Log::off()));
    };
    let (batch_sender, batches) = bounded(QUEUE_BATCHES_PER_CORE * cores);
    let (spare_sender, spares) = bounded(SPARES_PER_CORE * cores);
    let (reopen, reopens) = bounded(1);
    let (end, ended) = bounded(0);
    let losses = Arc::<Losses>::default();
    let writer = Writer {
        target: target.clone(),
        sink: output::sink(file, target, &reopens),
        batches,
        spares: spare_sender,
        reopens,
        losses: Arc::clone(&losses),
        reporter: Reporter::default(),
        clock,
    };
    let run = move || {
        // It is dropped when the thread ends, which notifies `stop`.
        let _end: Sender<()> = end;
        writer.run();
    };
    let thread = thread::Builder::new().name("access-log".into()).spawn(run)?;
    let sender = BatchSender { batches: batch_sender, spares, losses: Arc::clone(&losses) };
    let log = Log::new(sender, clock);
    Ok((Control { running: Some(Running { reopen, ended, thread }), losses }, log))
}

/// The supervisor's part of the log. When it is dropped, the thread writes the queued lines and ends.
#[derive(Debug)]
pub struct Control {
    running: Option<Running>,
    losses: Arc<Losses>,
}

#[derive(Debug)]
struct Running {
    /// Dropping it is the command to end.
    reopen: Sender<()>,
    ended: Receiver<()>,
    thread: JoinHandle<()>,
}

impl Control {
    /// Opens the file again, which may have been renamed (SIGUSR1). If that fails, the old one stays in use.
    pub fn reopen(&self) {
        if let Some(running) = &self.running {
            match running.reopen.try_send(()) {
                // One pending command suffices.
                Ok(()) | Err(TrySendError::Full(())) => {}
                Err(TrySendError::Disconnected(())) => log::error!("access log: its thread has ended"),
            }
        }
    }

    /// Number of lines lost since the start: dropped by cores because the queue was full, or not written because of an
    /// error.
    pub fn lost_lines(&self) -> u64 {
        self.losses.total()
    }

    /// Writes the lines that the cores have queued and ends the thread. The cores drop their [`Log`]s first. The limit
    /// for an output that accepts nothing, such as a pipe without a reader, is 5 seconds. Returns the number of lines
    /// lost since the start.
    pub fn stop(self) -> u64 {
        let losses = Arc::clone(&self.losses);
        self.stop_within(STOP_LIMIT);
        losses.total()
    }

    fn stop_within(self, limit: Duration) {
        let Some(Running { reopen, ended, thread }) = self.running else { return };
        drop(reopen);
        if ended.recv_timeout(limit).is_err_and(|error| error.is_timeout()) {
            log::warn!("access log: its output accepts nothing; the last lines are lost");
        } else if thread.join().is_err() {
            log::error!("access log: its thread ended in a panic");
        }
    }
}

/// The state of the thread.
struct Writer {
    target: Target,
    sink: Sink<Output>,
    batches: Receiver<Batch>,
    spares: Sender<Vec<u8>>,
    reopens: Receiver<()>,
    losses: Arc<Losses>,
    reporter: Reporter,
    clock: Clock,
}

impl Writer {
    fn run(mut self) {
        loop {
            let pause = self.reporter.pause(&self.losses, self.clock.now());
            let report = pause.map_or_else(never, after);
            select! {
                recv(self.batches) -> batch => match batch {
                    Ok(batch) => self.write(batch),
                    // All cores are gone; the command to end is still to come.
                    Err(_) => self.batches = never(),
                },
                recv(self.reopens) -> order => match order {
                    Ok(()) => self.reopen(),
                    Err(_) => break,
                },
                recv(report) -> _ => {}
            }
            if let Some(report) = self.reporter.report(&self.losses, &self.target, self.clock.now()) {
                log::warn!("{report}");
            }
        }
        while let Ok(batch) = self.batches.try_recv() {
            self.write(batch);
        }
        if let Some(report) = self.reporter.last_report(&self.losses, &self.target) {
            log::warn!("{report}");
        }
    }

    fn write(&mut self, batch: Batch) {
        let mut text = batch.text;
        if let Err(sink::Failure { error, lost_lines }) = self.sink.write(&text) {
            self.losses.add_unwritten(lost_lines);
            self.reporter.note(error);
        }
        text.clear();
        // A buffer beyond the limit is freed.
        drop(self.spares.try_send(text));
    }

    fn reopen(&mut self) {
        if matches!(self.target, Target::Off | Target::Stdout) {
            return;
        }
        match output::open(&self.target) {
            Ok(Some(file)) => self.sink = output::sink(file, &self.target, &self.reopens),
            Ok(None) => {}
            Err(error) => log::error!("{error}; the old output stays in use"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::LogRecord;
    use super::*;
    use crate::base::clock::Moment;
    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;
    use std::fs;
    use std::io::Read;
    use std::net::Ipv4Addr;
    use std::path::PathBuf;
    use std::process;

    /// A temporary directory of one test, removed at its end.
    struct Dir(PathBuf);

    impl Dir {
        fn new(test: &str) -> Self {
            let path = std::env::temp_dir().join(format!("sluice-log-{test}-{}", process::id()));
            fs::create_dir_all(&path).expect("a directory");
            Self(path)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).expect("the directory goes");
        }
    }

    fn start_one(path: PathBuf) -> (Control, Log) {
        let target = Target::File(path);
        let file = output::open(&target).expect("the log opens");
        let (control, log) = start(&target, file, 1, Clock::new()).expect("a thread");
        (control, log)
    }

    /// A log that writes to a FIFO without a reader, and the FIFO.
    fn start_unread(dir: &Dir) -> (Control, Log, File) {
        let path = dir.path("access.fifo");
        mkfifo(&path, Mode::S_IRWXU).expect("a FIFO");
        let (control, log) = start_one(path.clone());
        (control, log, File::open(path).expect("the FIFO"))
    }

    fn write(log: &Log, target: &str) {
        write_at(log, target, Moment::ZERO);
    }

    fn write_at(log: &Log, target: &str, ended: Moment) {
        log.write(&LogRecord {
            ended,
            client: Ipv4Addr::LOCALHOST.into(),
            method: b"GET",
            target: target.as_bytes(),
            minor_version: 1,
            status: 200,
            sent_bytes: 0,
            referer: None,
            user_agent: None,
            frontend_id: None,
            total: Duration::ZERO,
            backend: None,
            ..LogRecord::default()
        });
    }

    /// The targets of the lines of a file, each of which must be complete.
    fn targets(text: &str) -> Vec<&str> {
        assert!(text.is_empty() || text.ends_with('\n'), "the last line is whole");
        let target = |line: &'_ str| line.starts_with("127.0.0.1 - - [") && line.ends_with(" 0.000 -");
        assert!(text.lines().all(target), "{text}");
        text.lines().filter_map(|line| line.split(' ').nth(6)).collect()
    }

    fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
        let clock = Clock::new();
        while !condition() {
            assert!(clock.now() < Moment::ZERO + Duration::from_secs(10), "waiting for {what}");
            thread::yield_now();
        }
    }

    #[test]
    fn lines_are_handed_over_by_age_by_size_and_at_the_end() {
        let dir = Dir::new("flush");
        let path = dir.path("access.log");
        let read = || fs::read_to_string(&path).expect("the log");
        let (control, log) = start_one(path.clone());
        assert!(log.is_on());
        assert_eq!(log.flush_at(), Moment::NEVER);

        write(&log, "/1");
        let due = log.flush_at();
        assert_eq!(due, Moment::ZERO + Duration::from_millis(200));
        log.flush(Moment::from_micros(due.as_micros() - 1));
        assert_eq!(log.flush_at(), due, "too young");
        log.flush(due);
        assert_eq!(log.flush_at(), Moment::NEVER);
        wait_until("the old line", || !read().is_empty());
        assert_eq!(targets(&read()), ["/1"]);

        for _ in 0..4000 {
            write(&log, "/2");
        }
        wait_until("a full batch", || read().len() > 128 * 1024);
        drop(log);
        control.stop();
        assert_eq!(targets(&read()).len(), 4001);
    }

    #[test]
    fn a_renamed_file_is_reopened() {
        let dir = Dir::new("reopen");
        let (path, old) = (dir.path("access.log"), dir.path("access.log.1"));
        let (control, log) = start_one(path.clone());
        write(&log, "/1");
        log.flush(Moment::NEVER);
        wait_until("the first line", || fs::metadata(&path).is_ok_and(|found| found.len() > 0));
        fs::rename(&path, &old).expect("a rename");
        control.reopen();
        wait_until("the new file", || path.exists());
        write(&log, "/2");
        drop(log);
        control.stop();
        assert_eq!(targets(&fs::read_to_string(&old).expect("the old file")), ["/1"]);
        assert_eq!(targets(&fs::read_to_string(&path).expect("the new file")), ["/2"]);
    }

    #[test]
    fn where_reopening_fails_the_old_file_stays() {
        let dir = Dir::new("reopen-fails");
        let (place, elsewhere) = (dir.path("logs"), dir.path("elsewhere"));
        fs::create_dir(&place).expect("a directory");
        let (control, log) = start_one(place.join("access.log"));
        fs::rename(&place, &elsewhere).expect("a rename");
        control.reopen();
        write(&log, "/1");
        drop(log);
        control.stop();
        assert_eq!(targets(&fs::read_to_string(elsewhere.join("access.log")).expect("the old file")), ["/1"]);
    }

    #[test]
    fn a_reader_that_stalls_costs_lines_which_are_counted_and_no_line_is_torn() {
        let dir = Dir::new("overflow");
        let (control, log, unread) = start_unread(&dir);
        let mut written = 0;
        while control.lost_lines() == 0 {
            assert!(written < 1_000_000, "the queue has no end");
            write(&log, "/stalled");
            written += 1;
        }
        let reader = thread::spawn(move || io::read_to_string(unread).expect("text"));
        drop(log);
        let losses = Arc::clone(&control.losses);
        control.stop();
        let text = reader.join().expect("the reader ends");
        assert_eq!(targets(&text).len() as u64 + losses.total(), written);
    }

    #[test]
    fn an_output_that_takes_nothing_does_not_hold_up_the_stop() {
        let dir = Dir::new("stuck");
        let (control, log, _unread) = start_unread(&dir);
        while control.lost_lines() == 0 {
            write(&log, "/stuck");
        }
        let lost = control.lost_lines();
        write(&log, "/kept");
        let due = log.flush_at();
        log.flush(due);
        assert_eq!((control.lost_lines(), log.flush_at()), (lost, due + Duration::from_millis(200)), "it is kept");
        control.stop_within(Duration::ZERO);
    }

    /// Lines are queued by age before and during the stall, but small batches do not fill the queue.
    #[test]
    fn an_output_that_stalls_for_seconds_is_bridged_at_some_lines_a_second_too() {
        const TICK: Duration = Duration::from_millis(200);
        for (lines, least) in [(1, 60), (300, 5)] {
            let dir = Dir::new("some");
            let (control, log, _unread) = start_unread(&dir);
            let mut now = Moment::ZERO;
            while control.lost_lines() == 0 {
                (0..lines).for_each(|_| write_at(&log, "/some", now));
                now = now + TICK;
                log.flush(now);
            }
            let bridged = now.since(Moment::ZERO).as_secs();
            assert!(bridged >= least, "{bridged} s at {lines} lines in {TICK:?}");
            control.stop_within(Duration::ZERO);
        }
    }

    #[test]
    fn a_full_disk_costs_lines_and_the_next_file_takes_them_again() {
        let dir = Dir::new("full");
        let path = dir.path("access.log");
        std::os::unix::fs::symlink("/dev/full", &path).expect("a link");
        let (control, log) = start_one(path.clone());
        write(&log, "/1");
        write(&log, "/2");
        log.flush(Moment::NEVER);
        wait_until("the loss", || control.lost_lines() == 2);
        fs::remove_file(&path).expect("the link goes");
        control.reopen();
        wait_until("the new file", || path.exists());
        write(&log, "/3");
        drop(log);
        control.stop();
        assert_eq!(targets(&fs::read_to_string(&path).expect("the new file")), ["/3"]);
    }

    #[test]
    fn a_fifo_without_a_reader_delays_no_start_and_keeps_lines_for_the_next_reader() {
        let dir = Dir::new("no-reader");
        let (control, log, first) = start_unread(&dir);
        drop(first);
        write(&log, "/1");
        log.flush(Moment::NEVER);
        control.reopen();
        write(&log, "/2");
        log.flush(Moment::NEVER);
        let mut reader = File::open(dir.path("access.fifo")).expect("the FIFO");
        let mut text = Vec::new();
        while !text.ends_with(b"/2 HTTP/1.1\" 200 0 \"-\" \"-\" \"-\" 0.000 -\n") {
            let mut room = [0; 4096];
            let read = reader.read(&mut room).expect("lines");
            text.extend_from_slice(&room[..read]);
        }
        assert_eq!(targets(&String::from_utf8(text).expect("text")), ["/1", "/2"]);
        assert_eq!(control.lost_lines(), 0);
        drop(log);
        control.stop();
    }

    #[test]
    fn an_output_that_takes_nothing_is_left_for_the_next_one() {
        let dir = Dir::new("left");
        let (control, log, _unread) = start_unread(&dir);
        while control.lost_lines() == 0 {
            write(&log, "/stuck");
        }
        let path = dir.path("access.fifo");
        fs::rename(&path, dir.path("old")).expect("a rename");
        control.reopen();
        wait_until("the new file", || path.is_file());
        wait_until("a new line", || {
            write(&log, "/new");
            log.flush(Moment::NEVER);
            fs::read_to_string(&path).is_ok_and(|text| text.contains("/new"))
        });
        drop(log);
        control.stop();
        let text = fs::read_to_string(&path).expect("the new file");
        assert_eq!(targets(&text).last(), Some(&"/new"));
    }

    #[test]
    fn what_others_left_within_a_line_is_a_line() {
        let dir = Dir::new("torn");
        let path = dir.path("access.log");
        for (number, before) in ["torn", "torn\n", ""].into_iter().enumerate() {
            fs::write(&path, before).expect("a file");
            let (control, log) = start_one(path.clone());
            write(&log, "/1");
            log.flush(Moment::NEVER);
            wait_until("the line", || fs::read_to_string(&path).is_ok_and(|text| text.ends_with(" -\n")));
            fs::write(&path, before).expect("a file");
            control.reopen();
            // The command comes first, unless the thread sees both at once.
            wait_until("the order is taken", || {
                control.running.as_ref().is_some_and(|running| running.reopen.is_empty())
            });
            write(&log, "/2");
            drop(log);
            control.stop();
            let text = fs::read_to_string(&path).expect("the file");
            let rest = text.strip_prefix(before.trim_end()).expect("what was there");
            assert_eq!(targets(rest.trim_start()), ["/2"], "{number}: {text}");
            assert_eq!(text.lines().count(), 1 + usize::from(!before.is_empty()), "{number}: {text}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let error = output::open(&Target::File("/nonexistent/access.log".into())).expect_err("no directory");
        assert!(error.to_string().contains("/nonexistent/access.log (server.accessLog)"), "{error}");
    }

    #[test]
    fn no_log_is_no_thread() {
        let (control, log) = start(&Target::Off, None, 2, Clock::new()).expect("nothing to open");
        assert!(!log.is_on());
        write(&log, "/1");
        log.flush(Moment::NEVER);
        control.reopen();
        assert_eq!(control.lost_lines(), 0);
        control.stop();
    }
}
