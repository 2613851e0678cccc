//! No source of routes: no host has a route, and only rules serve requests.

use super::dns::DnsResolver;
use super::{Error, LookupResult, RequestChannels, RouteEvent, SourceCommand, Subscribers};
use crossbeam_channel::select;
use std::sync::Arc;
use std::thread::JoinHandle;

/// Replies to look-ups in its own thread until the command to stop.
pub(super) fn start(
    channels: RequestChannels,
    subscribers: Subscribers,
    resolver: DnsResolver,
) -> Result<JoinHandle<()>, Error> {
    let thread = std::thread::Builder::new().name("directory".to_owned());
    let run = move || {
        // Other threads resolve names with it for as long as this thread lives.
        let _resolver = resolver;
        loop {
            select! {
                recv(channels.lookups) -> lookup => match lookup {
                    Ok(lookup) => {
                        let answer = RouteEvent::LookedUp { host: lookup.host, result: LookupResult::Unknown, keep: true };
                        subscribers.tell(lookup.core, answer);
                    }
                    Err(_) => return,
                },
                recv(channels.commands) -> command => match command {
                    Ok(SourceCommand::Stop) | Err(_) => return,
                    // No host is in use. It fails only if the caller no longer waits.
                    Ok(SourceCommand::Flush(_, known)) => drop(known.send(false)),
                    Ok(_) => {}
                },
            }
        }
    };
    thread.spawn(run).map_err(|error| Error::Thread(Arc::new(error)))
}
