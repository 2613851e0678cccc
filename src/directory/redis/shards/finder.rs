//! The thread that finds the servers of a cluster while none is watched.

use super::super::address::Address;
use super::super::target::Target;
use super::super::{Event, Pause, Stop};
use super::client::fetch_view;
use super::nodes::View;
use super::topology::ShardEvent;
use crossbeam_channel::{Receiver, Sender, bounded, select};
use std::io;

/// Starts the thread. Each message names known servers, and is answered by one event.
pub(in crate::directory::redis) fn start(
    target: &Target,
    events: Sender<Event>,
    stop: Stop,
) -> io::Result<Sender<Vec<Address>>> {
    let (requests, requests_in) = bounded(1);
    let target = target.clone();
    let run = move || run(&target, &requests_in, &events, &stop);
    std::thread::Builder::new().name("redis-find".into()).spawn(run)?;
    Ok(requests)
}

fn run(target: &Target, requests: &Receiver<Vec<Address>>, events: &Sender<Event>, stop: &Stop) {
    let mut pause = Pause::default();
    let mut is_first = true;
    loop {
        let known = select! {
            recv(requests) -> known => known,
            recv(stop.signal()) -> _ => return,
        };
        let Ok(known) = known else { return };
        if !std::mem::take(&mut is_first) && pause.wait(stop) {
            return;
        }
        let event = match find(target, &known) {
            Ok(view) => {
                pause.reset();
                ShardEvent::Found(view)
            }
            Err(problem) => ShardEvent::NotFound { problem },
        };
        if events.send(Event::Shard(event)).is_err() {
            return;
        }
    }
}

/// The view of the first server that knows masters.
fn find(target: &Target, known: &[Address]) -> Result<View, String> {
    let mut problems = Vec::new();
    for address in known.iter().cloned().chain(target.seeds()) {
        match fetch_view(target, &address) {
            Ok(view) if view.masters().next().is_some() => return Ok(view),
            Ok(_) => problems.push(format!("{address} knows no master")),
            Err(error) => problems.push(format!("{address}: {error}")),
        }
    }
    problems.dedup();
    Err(problems.join("; "))
}
