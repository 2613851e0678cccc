//! Connections that live long under load: an echo backend of WebSocket and a client that plays ping-pong with it over many
//! of them, and a backend of event streams and a client that follows many of them.

mod ws;

use clap::{Parser, Subcommand};
use std::error::Error;
use std::net::SocketAddr;

/// Backends and load generators of WebSocket and of event streams.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Sends every message back.
    Echo {
        /// Where to listen.
        #[arg(long)]
        listen: SocketAddr,
    },
    /// Opens tunnels, sends a message over each whenever the last one came back, compares every byte, and prints
    /// what happened as JSON.
    Load(ws::load::Settings),
    /// Sends numbered events to each client.
    Events(ws::events::SourceSettings),
    /// Follows streams of events, looks for each event once, and prints what happened as JSON.
    Follow(ws::events::Settings),
}

fn main() -> Result<(), Box<dyn Error>> {
    match Args::parse().command {
        Command::Echo { listen } => ws::echo::run(listen)?,
        Command::Load(settings) => println!("{}", ws::load::run(settings)?),
        Command::Events(settings) => ws::events::serve(&settings)?,
        Command::Follow(settings) => println!("{}", ws::events::follow(&settings)?),
    }
    Ok(())
}
