//! Many clients and backends at once, with behaviour drawn from a seed: each client gets its own response.

use super::end::{End, number};
use super::*;
use crate::worker::batch::MOST;
use std::collections::BTreeMap;
use std::net::Shutdown;

/// Number of clients that send in the same turn: more than two batches.
const CLIENTS: usize = 80;

/// Number of requests of each client.
const ROUNDS: usize = 12;

/// Behaviour of a request, drawn from its number and the seed alone.
#[derive(Clone, Debug)]
struct Plan {
    number: usize,
    /// The length of its body, part of which may come later than the head.
    upload: usize,
    is_upload_late: bool,
    /// Its response comes before the end of its body, and in the same turn.
    is_early: bool,
    response: usize,
    coding: Coding,
    /// The second half of the response comes in another turn.
    is_halved: bool,
    /// Its backend closes the connection without a response, if that has served before.
    is_stale: bool,
    client: Conduct,
}

#[derive(Clone, Copy, Debug)]
enum Coding {
    Sized,
    Chunked,
    /// The backend's end is the response's.
    UntilClose,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Conduct {
    Stays,
    /// Its client ends its side behind the request, and gets a response.
    HalfCloses,
    ResetsAtOnce,
    /// Its client leaves in the turn of its response.
    Resets,
}

impl Plan {
    fn new(seed: u64, number: usize) -> Self {
        let mut dice = fastrand::Rng::with_seed(seed << 32 | number as u64);
        let mut length = || match dice.u8(..8) {
            0 => 0,
            1..=4 => dice.usize(1..1000),
            5..=6 => dice.usize(1000..5000),
            _ => dice.usize(5000..60_000),
        };
        let (upload, response) = (length(), length());
        if upload > 1 && dice.u8(..4) == 0 {
            let (coding, client) = (Coding::Sized, Conduct::Stays);
            let (is_upload_late, is_early, is_halved, is_stale) = (true, true, false, false);
            return Self { number, upload, is_upload_late, is_early, response, coding, is_halved, is_stale, client };
        }
        Self {
            number,
            upload: if dice.bool() { upload } else { 0 },
            is_upload_late: dice.bool(),
            is_early: false,
            response,
            coding: [Coding::Sized, Coding::Sized, Coding::Chunked, Coding::UntilClose][dice.usize(..4)],
            is_halved: dice.u8(..4) == 0,
            is_stale: dice.u8(..8) == 0,
            client: match dice.u8(..20) {
                0 => Conduct::HalfCloses,
                1 => Conduct::ResetsAtOnce,
                2..=3 => Conduct::Resets,
                _ => Conduct::Stays,
            },
        }
    }

    /// Bytes of this length that belong to this request alone.
    fn text(&self, length: usize) -> Vec<u8> {
        format!("{};", self.number).into_bytes().into_iter().cycle().take(length).collect()
    }

    /// Bytes of the request in the first turn and later.
    fn request(&self) -> (Vec<u8>, Vec<u8>) {
        let Self { number, upload, .. } = self;
        let head = match upload {
            0 => format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n"),
            _ => format!("PUT /{number} HTTP/1.1\r\nHost: a\r\nContent-Length: {upload}\r\n\r\n"),
        };
        let mut first = head.into_bytes();
        first.extend(self.text(*upload));
        let late = if self.is_upload_late { upload / 2 } else { 0 };
        let late = first.split_off(first.len() - late);
        (first, late)
    }

    /// The response, in as many parts as turns.
    fn response(&self) -> (Vec<u8>, Vec<u8>) {
        let body = self.text(self.response);
        let mut first = match self.coding {
            Coding::Sized => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes(),
            Coding::Chunked => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
            Coding::UntilClose => b"HTTP/1.1 200 OK\r\n\r\n".to_vec(),
        };
        match self.coding {
            Coding::Chunked => {
                for chunk in body.chunks(1500) {
                    first.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
                    first.extend([chunk, b"\r\n"].concat());
                }
                first.extend(b"0\r\n\r\n");
            }
            _ => first.extend(body),
        }
        let late = if self.is_halved { first.len() / 2 } else { 0 };
        let late = first.split_off(first.len() - late);
        (first, late)
    }
}

/// Clients and a backend's connections, with behaviour drawn from the seed.
struct Crowd {
    /// Names the run, to repeat it.
    label: String,
    clients: Vec<Option<End>>,
    backend: Vec<Option<End>>,
    /// The requests of this round, by number, and the connection that each came by.
    plans: BTreeMap<usize, Plan>,
    asked: BTreeMap<usize, usize>,
    /// Parts of bodies that are held back until their responses come, and the number of bodies that are incomplete.
    held: BTreeMap<usize, Vec<u8>>,
    unheard: usize,
}

impl Crowd {
    /// The clients' next requests, all of them before the worker's next turn.
    fn ask(&mut self, seed: u64, round: usize, stage: &mut Stage) {
        self.asked.clear();
        self.plans = (0..CLIENTS).map(|place| round * CLIENTS + place).map(|it| (it, Plan::new(seed, it))).collect();
        let mut late = Vec::new();
        for (client, plan) in self.clients.iter_mut().zip(self.plans.values()) {
            let end = client.get_or_insert_with(|| End::new(TcpStream::connect(stage.address).expect("a connection")));
            let (first, second) = plan.request();
            end.outbox = first;
            end.send();
            late.push(second);
            if plan.client == Conduct::ResetsAtOnce {
                client.take().into_iter().for_each(|end| reset(end.stream));
            }
        }
        stage.turn();
        for ((client, plan), late) in self.clients.iter_mut().zip(self.plans.values()).zip(late) {
            let Some(end) = client else { continue };
            if plan.is_early {
                self.held.insert(plan.number, late);
                continue;
            }
            end.outbox.extend(late);
            end.send();
            if plan.client == Conduct::HalfCloses && end.outbox.is_empty() {
                end.stream.shutdown(Shutdown::Write).expect("an end");
            }
        }
    }

    /// Reads at the backend. Returns whether all requests that wait for a response are complete.
    fn has_heard(&mut self, stage: &Stage) -> bool {
        while let Ok((stream, _)) = stage.backend.accept() {
            self.backend.push(Some(End::new(stream)));
        }
        self.clients.iter_mut().flatten().for_each(End::send);
        for (place, connection) in self.backend.iter_mut().enumerate() {
            let Some(end) = connection else { continue };
            end.work();
            let early = end.number().and_then(|number| self.plans.get(&number)).filter(|plan| plan.is_early);
            if let Some(plan) = early {
                self.asked.insert(plan.number, place);
            } else if let Some((line, body)) = end.take_message() {
                end.served += 1;
                // A request of an earlier round is one whose client has left.
                let Some(plan) = self.plans.get(&number(&line)) else { continue };
                assert_eq!(body, plan.text(plan.upload), "the body of {plan:?}, {}", self.label);
                if plan.is_stale && end.served > 1 {
                    *connection = None;
                    continue;
                }
                self.asked.insert(plan.number, place);
            }
            if connection.as_ref().is_some_and(|end| end.is_over) {
                *connection = None;
            }
        }
        let is_here = |plan: &Plan| self.asked.contains_key(&plan.number) || plan.client == Conduct::ResetsAtOnce;
        self.plans.values().all(is_here)
    }

    /// The responses, and the ends of the clients that do not wait for them, all before the worker's next turn.
    fn response(&mut self, seed: u64, stage: &mut Stage) {
        let mut late = Vec::new();
        let mut command: Vec<_> = self.asked.iter().collect();
        fastrand::Rng::with_seed(seed).shuffle(&mut command);
        for (number, place) in command {
            let plan = &self.plans[number];
            let client = &mut self.clients[number % CLIENTS];
            if let (Some(held), Some(end)) = (self.held.remove(number), client.as_mut()) {
                self.unheard += 1;
                end.outbox.extend(held);
                end.send();
            }
            if plan.client == Conduct::Resets && number % 2 == 0 {
                client.take().into_iter().for_each(|end| reset(end.stream));
            }
            let (first, second) = plan.response();
            let connection = &mut self.backend[*place];
            if let Some(end) = connection {
                end.outbox.extend(first);
                end.send();
            }
            late.push((*place, second, matches!(plan.coding, Coding::UntilClose)));
            if plan.client == Conduct::Resets && number % 2 == 1 {
                client.take().into_iter().for_each(|end| reset(end.stream));
            }
        }
        // Some ends are to be reported together with the bytes before them.
        let (at_once, later): (Vec<_>, Vec<_>) = late.into_iter().partition(|(_, bytes, _)| bytes.is_empty());
        self.go_on(at_once, stage);
        stage.turn();
        self.go_on(later, stage);
    }

    /// The rest of some responses.
    fn go_on(&mut self, rest: Vec<(usize, Vec<u8>, bool)>, stage: &mut Stage) {
        for (place, bytes, closes) in rest {
            let Some(end) = &mut self.backend[place] else { continue };
            end.outbox.extend(bytes);
            end.send();
            if closes {
                let label = format!("a response is taken, {}", self.label);
                let clients = &mut self.clients;
                stage.until(&label, |_| {
                    clients.iter_mut().flatten().for_each(End::work);
                    end.work();
                    (end.outbox.is_empty() || end.is_over).then_some(())
                });
                self.backend[place] = None;
            }
        }
    }

    /// Whether every waiting client has had a response, and it was the right one.
    fn is_served(&mut self) -> bool {
        for end in self.backend.iter_mut().flatten() {
            end.work();
            let Some(plan) = end.number().and_then(|number| self.plans.get(&number)).filter(|plan| plan.is_early)
            else {
                continue;
            };
            // A response that comes early withholds no part of the body from a backend that reads on.
            if let Some((_, body)) = end.take_message() {
                assert!(body == plan.text(plan.upload), "the body of {plan:?}, {}", self.label);
                end.served += 1;
                self.unheard -= 1;
            }
        }
        let mut is_served = self.unheard == 0;
        for (client, plan) in self.clients.iter_mut().zip(self.plans.values()) {
            let Some(end) = client else { continue };
            if end.served == 0 {
                end.work();
                if let Some((line, body)) = end.take_message() {
                    assert_eq!(line, "HTTP/1.1 200 OK", "{plan:?}, {}", self.label);
                    assert!(body == plan.text(plan.response), "another's response to {plan:?}, {}", self.label);
                    assert!(end.inbox.is_empty(), "bytes behind the response to {plan:?}, {}", self.label);
                    end.served = 1;
                }
            }
            let is_there = end.served == 1 || !end.is_over;
            assert!(is_there, "no response to {plan:?}: {:?}, {}", end.inbox.escape_ascii().to_string(), self.label);
            is_served &= end.served == 1;
        }
        is_served
    }
}

/// Clients that send in the same turn, backends that respond in the same turn, and clients that leave meanwhile: each
/// client gets the response to its own request, whatever the size of a batch.
#[test]
fn every_client_of_a_batch_gets_its_own_response() {
    for (events, seeds) in [(1, 0..2), (3, 2..4), (EVENTS, 0..6)] {
        for seed in seeds {
            let mut stage = Stage::new(&format!("crowd-{events}-{seed}"), CLIENTS + 10);
            stage.events = events;
            // Some clients close their side behind the request, and want its response.
            stage.worker.core.settings.on_client_abort = crate::exchange::OnClientAbort::Ignore;
            let label = format!("seed {seed}, {events} events a turn");
            let (clients, backend) = ((0..CLIENTS).map(|_| None).collect(), Vec::new());
            let (plans, asked, held, unheard) = Default::default();
            let mut crowd = Crowd { label, clients, backend, plans, asked, held, unheard };
            for round in 0..ROUNDS {
                crowd.ask(seed, round, &mut stage);
                let waits = format!("the requests of round {round}, {}", crowd.label);
                stage.until(&waits, |stage| crowd.has_heard(stage).then_some(()));
                crowd.response(seed, &mut stage);
                let waits = format!("the responses of round {round}, {}", crowd.label);
                stage.until(&waits, |_| crowd.is_served().then_some(()));
                for (client, plan) in crowd.clients.iter_mut().zip(crowd.plans.values()) {
                    client.iter_mut().for_each(|end| end.served = 0);
                    if plan.client == Conduct::HalfCloses {
                        *client = None;
                    }
                }
            }
            assert_eq!(stage.worker.batch.largest(), events.min(MOST), "{}", crowd.label);
            drop(crowd.clients);
            stage.until("all have left", |stage| stage.worker.clients.is_empty().then_some(()));
            let held = (stage.worker.jobs.len(), stage.worker.core.buffers.lent());
            assert_eq!(held, (0, 0), "{}", crowd.label);
        }
    }
}
