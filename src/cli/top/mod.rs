//! `sluice top`: a live view of a running node on a terminal.

mod draw;
#[cfg(test)]
mod draw_tests;
mod feed;
mod model;

use super::admin_client::{AdminClient, Node};
use super::tools::fail;
use crate::base::clock::{Clock, Moment};
use feed::Feed;
use model::{Model, Reaction};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use signal_hook::consts::{SIGHUP, SIGTERM};
use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Interval of the checks for news of the node.
const GLANCE: Duration = Duration::from_millis(100);

/// Delay between the last key of a search and the request to the node.
const TYPING: Duration = Duration::from_millis(250);

/// Shows the node until the user quits. The status is 1 if there is no terminal, or if the node does not respond at first.
pub(super) fn run(node: &Node, file: &Path) -> ExitCode {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return fail("sluice top needs a terminal; sluice status prints the state of the node");
    }
    let asked = AdminClient::find(node, file).and_then(|client| {
        client.view("/v1/status")?.ok_or("this is not an admin service of sluice")?;
        Ok(client)
    });
    let client = match asked {
        Ok(client) => client,
        Err(problem) => return fail(&problem),
    };
    let is_ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGHUP] {
        if let Err(error) = signal_hook::flag::register(signal, Arc::clone(&is_ended)) {
            return fail(&format!("handling signals: {error}"));
        }
    }
    let shown = ratatui::try_init().and_then(|mut terminal| show(&mut terminal, client, &is_ended));
    ratatui::restore();
    match shown {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("the terminal: {error}")),
    }
}

fn show(terminal: &mut DefaultTerminal, client: AdminClient, is_ended: &AtomicBool) -> io::Result<()> {
    let clock = Clock::new();
    let mut model = Model::default();
    let mut feed = Feed::new(client);
    feed.ask(model.query());
    let mut ask_at: Option<Moment> = None;
    let mut is_changed = true;
    while !is_ended.load(Ordering::Relaxed) {
        if is_changed {
            terminal.draw(|frame| draw::draw(frame, &mut model))?;
        }
        is_changed = false;
        if event::poll(GLANCE)? {
            is_changed = true;
            match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => match model.on_key(key) {
                    Reaction::Quit => return Ok(()),
                    Reaction::Ask => ask_at = Some(clock.now()),
                    Reaction::AskLater => ask_at = Some(clock.now() + TYPING),
                    Reaction::Draw => {}
                },
                // The next frame has the new size of the terminal.
                _ => {}
            }
        }
        if ask_at.is_some_and(|moment| moment <= clock.now()) {
            ask_at = None;
            feed.ask(model.query());
        }
        while let Some(news) = feed.next() {
            is_changed = true;
            model.on_news(news);
        }
    }
    Ok(())
}
