//! News of the node: a thread reads its stream of events, and reconnects when the stream ends.

use super::super::admin_client::AdminClient;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// Delay before a reconnection.
const REST: Duration = Duration::from_secs(1);

/// One message of the reading thread.
#[derive(Debug)]
pub(super) enum News {
    /// An event of this name.
    Event(String, Value),
    /// The reason why there are no events.
    Problem(String),
}

/// The news for the newest query.
pub(super) struct Feed {
    client: AdminClient,
    /// The number of the newest query. Threads of older ones end.
    newest: Arc<AtomicU64>,
    /// Dropped when a newer query follows: so its thread waits no longer.
    _wanted: Option<Sender<()>>,
    sender: Sender<(u64, News)>,
    receiver: Receiver<(u64, News)>,
}

impl Feed {
    pub(super) fn new(client: AdminClient) -> Self {
        let (sender, receiver) = crossbeam_channel::unbounded();
        Self { client, newest: Arc::default(), _wanted: None, sender, receiver }
    }

    /// Switches to this query.
    pub(super) fn ask(&mut self, query: String) {
        let number = self.newest.fetch_add(1, Ordering::Relaxed) + 1;
        let (client, newest, sender) = (self.client.clone(), Arc::clone(&self.newest), self.sender.clone());
        let (wanted, unwanted) = crossbeam_channel::bounded(0);
        self._wanted = Some(wanted);
        thread::spawn(move || {
            // The first event of a stream takes up to a second; a search shows its hosts at once.
            if let Ok(Some(list)) = client.view(&format!("/v1/frontends?{query}")) {
                drop(sender.send((number, News::Event("frontends".to_owned(), list))));
            }
            let is_wanted = || newest.load(Ordering::Relaxed) == number;
            while is_wanted() {
                let problem = read(&client, &query, is_wanted, |news| drop(sender.send((number, news))));
                drop(sender.send((number, News::Problem(problem))));
                if unwanted.recv_timeout(REST) == Err(RecvTimeoutError::Disconnected) {
                    return;
                }
            }
        });
    }

    /// The next message, if there is one.
    pub(super) fn next(&mut self) -> Option<News> {
        let newest = self.newest.load(Ordering::Relaxed);
        self.receiver.try_iter().find(|(number, _)| *number == newest).map(|(_, news)| news)
    }
}

/// Reads one stream to its end, and returns the reason of the end.
fn read(client: &AdminClient, query: &str, is_wanted: impl Fn() -> bool, tell: impl Fn(News)) -> String {
    let mut stream = match client.events(query) {
        Ok(stream) => stream,
        Err(problem) => return problem,
    };
    loop {
        match stream.next() {
            Ok(Some((name, data))) if is_wanted() => tell(News::Event(name, data)),
            Ok(_) => return "the node has ended the stream".to_owned(),
            Err(error) => return client.failed(&error),
        }
    }
}
